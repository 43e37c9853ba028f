"""The scale of every series, so that all have the same weight in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..panel.panel import Panel
from .calendar_effects.choice import (
    Effects,
    fit_effects,
    future_factors,
    join_series,
    match_effects,
    select_series,
    without_effects,
)

_RESOLUTION = 8 * np.finfo(float).eps  # smaller changes are rounding errors
_MAX_DIGITS = 300  # after the point, that NumPy can round to


@dataclass(frozen=True)
class Scaling:
    """Center and spread of each series, (S,), without the effects of the calendar.

    The float32 of pytorch-forecasting is precise enough for numbers of any size after scaling.
    """

    center: np.ndarray
    spread: np.ndarray
    effects: Effects = ()

    @classmethod
    def fit(cls, panel: Panel, held_out: int = 0, *, calendar_effects: bool = True) -> Scaling:
        """Measure the scales.

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out. A series that is not longer is measured as
            a whole. They count for the spread alone, if they make it larger: of a product that they
            launch, errors would be counted in units of what was before, and decide everything.
        calendar_effects : bool, default True
            Whether to look for effects of the calendar.
        """
        effects = fit_effects(panel, held_out) if calendar_effects else ()
        return cls._measure(panel, held_out, effects)

    @classmethod
    def _measure(cls, panel: Panel, held_out: int, effects: Effects) -> Scaling:
        center, spread = np.empty(len(panel)), np.empty(len(panel))
        for number, values in enumerate(without_effects(effects, panel).values):
            part = values[: max(0, len(values) - held_out)]
            part, values = part[np.isfinite(part)], values[np.isfinite(values)]
            part = part if len(part) else values
            center[number] = part.mean()
            deviation = _deviation(part)
            if len(part) < len(values):
                deviation = max(deviation, _deviation(values))
            spread[number] = deviation or _magnitude(part)
        return cls(center, spread, effects)

    def without_effects(self, panel: Panel) -> Panel:
        """Take the effects of the calendar off the targets of a panel of these series."""
        return without_effects(self.effects, panel)

    def scale(self, panel: Panel) -> np.ndarray:
        """Return the scaled targets, (N,), of a panel of these series, without those effects."""
        series = panel.series
        return (panel.target - self.center[series]) / self.spread[series]

    def unscale(self, forecasts: np.ndarray, panel: Panel) -> np.ndarray:
        """Bring scaled forecasts (S, h, Q) of a panel of these series back to their unit.

        They are for the steps after the last observed target of each series.
        """
        center, spread = self.center[:, None, None], self.spread[:, None, None]
        factors = future_factors(self.effects, panel, forecasts.shape[1])
        return (center + spread * forecasts) * factors[..., None]

    def match(self, panel: Panel, numbers: np.ndarray) -> Scaling:
        """Return the scales of the series of another panel; new ones are measured in it.

        Parameters
        ----------
        panel : Panel
            Series of which some are known here.
        numbers : numpy.ndarray
            (series of `panel`,): their numbers here; those beyond the end are new.
        """
        effects = match_effects(self.effects, panel, numbers)
        known = numbers < len(self.center)
        row = np.where(known, numbers, 0)
        center, spread = self.center[row], self.spread[row]
        if not known.all():  # to measure all series would take a while in every forecast
            new = np.flatnonzero(~known)
            measured = Scaling._measure(panel.take(new), 0, select_series(effects, new))
            center[new], spread[new] = measured.center, measured.spread
        return Scaling(center, spread, effects)

    def append(self, other: Scaling, chosen: np.ndarray) -> Scaling:
        """Return the scales of these series, followed by those of some of another scaling."""
        return Scaling(
            np.append(self.center, other.center[chosen]),
            np.append(self.spread, other.spread[chosen]),
            join_series(self.effects, select_series(other.effects, chosen)),
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


def _deviation(values: np.ndarray) -> float:
    """Return the standard deviation of values, 0 if it is a rounding error."""
    size = float(np.abs(values).max())
    # Differences of close numbers are exact. Divided by `size` first, whose square may overflow.
    share = float(((values - values[0]) / size).std()) if size else 0.0
    return share * size if share > _RESOLUTION else 0.0


def _magnitude(values: np.ndarray) -> float:
    """Return the largest size of values, 1 if all are 0."""
    return float(np.abs(values).max()) or 1.0
