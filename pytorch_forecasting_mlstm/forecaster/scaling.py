"""The scale of every series, so that all have the same weight in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .panel import Panel


@dataclass(frozen=True)
class Scaling:
    """Center and spread of each series, (S,).

    The float32 of pytorch-forecasting is precise enough for numbers of any size after scaling.
    """

    center: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, panel: Panel, held_out: int = 0) -> Scaling:
        """Measure the scales.

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out. A series that is not longer is measured as
            a whole.
        """
        center, spread = np.empty(len(panel)), np.empty(len(panel))
        for number, values in enumerate(panel.values):
            part = values[: len(values) - held_out]
            part = part[np.isfinite(part)]
            part = part if len(part) else values[np.isfinite(values)]
            center[number], spread[number] = part.mean(), _spread(part)
        return cls(center, spread)

    def scale(self, values: np.ndarray, series: np.ndarray) -> np.ndarray:
        """Scale values (N,) of `series` (N,)."""
        return (values - self.center[series]) / self.spread[series]

    def unscale(self, values: np.ndarray, series: np.ndarray) -> np.ndarray:
        """Bring scaled values (W, ...) of `series` (W,) back to their unit."""
        shape = (-1, *[1] * (values.ndim - 1))
        center, spread = self.center[series].reshape(shape), self.spread[series].reshape(shape)
        return center + spread * values

    def match(self, panel: Panel, numbers: np.ndarray) -> Scaling:
        """Return the scales of the series of another panel; new ones are measured in it.

        Parameters
        ----------
        panel : Panel
            Series of which some are known here.
        numbers : numpy.ndarray
            (series of `panel`,): their numbers here; those beyond the end are new.
        """
        new = Scaling.fit(panel)
        known = numbers < len(self.center)
        row = np.where(known, numbers, 0)
        return Scaling(
            np.where(known, self.center[row], new.center),
            np.where(known, self.spread[row], new.spread),
        )


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of a series, or the magnitude of a constant one."""
    size = float(np.abs(values).max())
    # Divided by `size` first, whose square may overflow.
    spread = float((values / size).std()) * size if size else 0.0
    return spread if spread > 1e-12 * size else size or 1.0
