"""The scale of every series, so that all have the same weight in the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..panel.panel import Panel
from .trading_days import TradingDays

_RESOLUTION = 8 * np.finfo(float).eps  # smaller changes are rounding errors
_MAX_DIGITS = 300  # after the point, that NumPy can round to


@dataclass(frozen=True)
class Scaling:
    """Center and spread of each series, (S,), without the effect of trading days.

    The float32 of pytorch-forecasting is precise enough for numbers of any size after scaling.
    """

    center: np.ndarray
    spread: np.ndarray
    trading_days: TradingDays | None = None

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
        return cls._measure(panel, held_out, TradingDays.fit(panel, held_out))

    @classmethod
    def _measure(cls, panel: Panel, held_out: int, trading_days: TradingDays | None) -> Scaling:
        center, spread = np.empty(len(panel)), np.empty(len(panel))
        targets = panel.target / _factors(trading_days, panel)
        for number, begin in enumerate(panel.begins[:-1]):
            values = targets[begin : begin + panel.lengths[number]]
            part = values[: max(0, len(values) - held_out)]
            part = part[np.isfinite(part)]
            part = part if len(part) else values[np.isfinite(values)]
            center[number], spread[number] = part.mean(), _spread(part)
        return cls(center, spread, trading_days)

    def scale(self, panel: Panel) -> np.ndarray:
        """Return the scaled targets, (N,), of a panel of these series."""
        series = panel.series
        values = panel.target / _factors(self.trading_days, panel)
        return (values - self.center[series]) / self.spread[series]

    def unscale(self, forecasts: np.ndarray, panel: Panel) -> np.ndarray:
        """Bring scaled forecasts (S, h, Q) of a panel of these series back to their unit.

        They are for the steps after the last observed target of each series.
        """
        center, spread = self.center[:, None, None], self.spread[:, None, None]
        values = center + spread * forecasts
        if self.trading_days is None:
            return values
        S, h, _ = forecasts.shape
        series = np.arange(S)[:, None].repeat(h, axis=1)
        positions = panel.ends[:, None] + np.arange(h)
        return values * self.trading_days.factors(panel.axis, positions, series)[..., None]

    def match(self, panel: Panel, numbers: np.ndarray) -> Scaling:
        """Return the scales of the series of another panel; new ones are measured in it.

        Parameters
        ----------
        panel : Panel
            Series of which some are known here.
        numbers : numpy.ndarray
            (series of `panel`,): their numbers here; those beyond the end are new.
        """
        trading_days = self.trading_days and self.trading_days.match(panel, numbers)
        new = Scaling._measure(panel, 0, trading_days)
        known = numbers < len(self.center)
        row = np.where(known, numbers, 0)
        return Scaling(
            np.where(known, self.center[row], new.center),
            np.where(known, self.spread[row], new.spread),
            trading_days,
        )

    def append(self, other: Scaling, chosen: np.ndarray) -> Scaling:
        """Return the scales of these series, followed by those of some of another scaling."""
        days, more = self.trading_days, other.trading_days
        if days is not None and more is not None:
            days = replace(days, follows=np.append(days.follows, more.follows[chosen]))
        return Scaling(
            np.append(self.center, other.center[chosen]),
            np.append(self.spread, other.spread[chosen]),
            days,
        )


def _factors(trading_days: TradingDays | None, panel: Panel) -> np.ndarray:
    """Return the effect of trading days on every row of a panel."""
    if trading_days is None:
        return np.ones(len(panel.target))
    series = panel.series
    return trading_days.factors(panel.axis, panel.starts[series] + panel.steps, series)


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
