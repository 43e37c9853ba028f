"""What all effects of the calendar have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

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
    def is_in(self, values: np.ndarray, factors: np.ndarray) -> bool | None:
        """Whether a series, (T,), varies no more without the factors, (T,); None if unclear."""

    @abstractmethod
    def to_table(self) -> pd.DataFrame:
        """Return the effects in words, with the columns "effect" and "change", a relative one."""

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

        Returns
        -------
        CalendarEffect
            The same effect, on the series of `panel`.
        """
        known = numbers < len(self.follows)
        follows = np.zeros(len(numbers), dtype=bool)
        follows[known] = self.follows[numbers[known]]
        if not known.all():
            new = panel.take(np.flatnonzero(~known))
            follows[~known] = self.measure(new, new.values, majority=self.follows.mean() > 0.5)
        return replace(self, follows=follows)

    def measure(
        self, panel: Panel, learned: list[np.ndarray], *, majority: bool | None = None
    ) -> np.ndarray:
        """Return which series of a panel, (S,), have the effect.

        Parameters
        ----------
        panel : Panel
            The series.
        learned : list of numpy.ndarray
            The first values of each series, which tell it. Series with a negative one do not have
            the effect, since a factor has no meaning for them.
        majority : bool, optional
            What series do that are too short to tell. Default: what most of the others do.

        Returns
        -------
        numpy.ndarray
            (S,) bool.
        """
        first = int(panel.starts.min())
        factors = self.at(panel.axis, np.arange(first, panel.ends.max()))
        judged = [
            is_nonnegative(values) and self.is_in(values, factors[begin : begin + len(values)])
            for begin, values in zip(panel.starts - first, learned, strict=True)
        ]
        if majority is None:
            clear = [one for one in judged if one is not None]
            majority = sum(clear) > len(clear) / 2
        possible = [is_nonnegative(values) for values in panel.values]
        return np.array(
            [
                may and (majority if one is None else one)
                for one, may in zip(judged, possible, strict=True)
            ],
            dtype=bool,
        )


def learned_values(panel: Panel, held_out: int) -> list[np.ndarray]:
    """Return the values of each series but the last ones."""
    return [values[: max(0, len(values) - held_out)] for values in panel.values]


def is_nonnegative(values: np.ndarray) -> bool:
    """Whether no observed value is negative."""
    observed = values[np.isfinite(values)]
    return not len(observed) or bool(observed.min() >= 0)


def mean_of(values: np.ndarray) -> float:
    """Return the mean of the observed values, 0 without any."""
    observed = values[np.isfinite(values)]
    return float(observed.mean()) if len(observed) else 0.0
