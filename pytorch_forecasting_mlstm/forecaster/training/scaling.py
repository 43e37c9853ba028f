"""The scale of every series, so that all have the same weight in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..panel.panel import Panel

_RESOLUTION = 8 * np.finfo(float).eps  # smaller changes are rounding errors
_MAX_DIGITS = 300  # after the point, that NumPy can round to


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
            part = values[: max(0, len(values) - held_out)]
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


def round_to_float32(values: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Round forecasts (S, ...) to what float32 resolves of the spread (S,) of their series.

    Further digits would be meaningless. Nothing finer than the last of float64 is asked for.
    """
    digits = 6 - np.floor(np.log10(spread)).astype(int)
    rounded = [
        np.round(part, count) if count <= _MAX_DIGITS else part
        for part, count in zip(values, digits.tolist(), strict=True)
    ]
    return np.stack(rounded)


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of a series, or the magnitude of a constant one."""
    size = float(np.abs(values).max())
    # Differences of close numbers are exact. Divided by `size` first, whose square may overflow.
    share = float(((values - values[0]) / size).std()) if size else 0.0
    return share * size if share > _RESOLUTION else size or 1.0
