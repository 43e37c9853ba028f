"""What all effects of the calendar have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...panel.panel import Panel
from ...times.time_axis import TimeAxis


@dataclass(frozen=True)
class CalendarEffect(ABC):
    """A factor for every time, which some series of a table follow.

    Attributes
    ----------
    follows : numpy.ndarray
        (S,): whether each series has the effect.
    """

    follows: np.ndarray

    @abstractmethod
    def at(self, axis: TimeAxis, positions: np.ndarray) -> np.ndarray:
        """Return the factors at positions (N,) of an axis."""

    @abstractmethod
    def is_in(self, values: np.ndarray, factors: np.ndarray) -> bool:
        """Whether a series with a mean above 0 varies no more without the factors, (T,) both."""

    def factors(self, axis: TimeAxis, positions: np.ndarray, series: np.ndarray) -> np.ndarray:
        """Return the factors at positions of an axis, of `series`, two arrays of one shape."""
        if not positions.size:
            return np.ones(positions.shape)
        first = positions.min()
        factors = self.at(axis, np.arange(first, positions.max() + 1))
        return np.where(self.follows[series], factors[positions - first], 1.0)

    def match(self, panel: Panel, numbers: np.ndarray) -> Self:
        """Return the effect on the series of another panel; new ones are measured in it.

        Parameters
        ----------
        panel : Panel
            Series of which some are known here.
        numbers : numpy.ndarray
            (series of `panel`,): their numbers here; those beyond the end are new.
        """
        known = numbers < len(self.follows)
        follows = np.zeros(len(numbers), dtype=bool)
        follows[known] = self.follows[numbers[known]]
        if not known.all():
            new = panel.take(np.flatnonzero(~known))
            follows[~known] = self.measure(new, new.values)
        return replace(self, follows=follows)

    def measure(self, panel: Panel, values: list[np.ndarray]) -> np.ndarray:
        """Return which series of a panel, (S,), have the effect in their first `values`."""
        first = int(panel.starts.min())
        factors = self.at(panel.axis, np.arange(first, panel.ends.max()))
        return np.array(
            [
                mean_of(part) > 0 and self.is_in(part, factors[begin : begin + len(part)])
                for begin, part in zip(panel.starts - first, values, strict=True)
            ],
            dtype=bool,
        )


def learned_values(panel: Panel, held_out: int) -> list[np.ndarray]:
    """Return the values of each series but the last ones; all of a series that is not longer."""
    return [
        values[: len(values) - held_out] if len(values) > held_out else values
        for values in panel.values
    ]


def mean_of(values: np.ndarray) -> float:
    """Return the mean of the observed values, 0 without any."""
    observed = values[np.isfinite(values)]
    return float(observed.mean()) if len(observed) else 0.0
