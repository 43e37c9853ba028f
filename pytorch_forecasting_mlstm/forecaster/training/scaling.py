"""The scale of every series, so that all have the same weight in the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..panel.panel import Panel
from .calendar_effects.base import CalendarEffect
from .calendar_effects.choice import fit_effect, future_factors, without_effect

_RESOLUTION = 8 * np.finfo(float).eps  # smaller changes are rounding errors
_MAX_DIGITS = 300  # after the point, that NumPy can round to


@dataclass(frozen=True)
class Scaling:
    """Center and spread of each series, (S,), without the effect of the calendar.

    The float32 of pytorch-forecasting is precise enough for numbers of any size after scaling.
    """

    center: np.ndarray
    spread: np.ndarray
    effect: CalendarEffect | None = None

    @classmethod
    def fit(cls, panel: Panel, held_out: int = 0, *, calendar_effects: bool = True) -> Scaling:
        """Measure the scales.

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out. A series that is not longer is measured as
            a whole.
        calendar_effects : bool, default True
            Whether to look for an effect of the calendar.
        """
        effect = fit_effect(panel, held_out) if calendar_effects else None
        return cls._measure(panel, held_out, effect)

    @classmethod
    def _measure(cls, panel: Panel, held_out: int, effect: CalendarEffect | None) -> Scaling:
        center, spread = np.empty(len(panel)), np.empty(len(panel))
        for number, values in enumerate(without_effect(effect, panel).values):
            part = values[: max(0, len(values) - held_out)]
            part = part[np.isfinite(part)]
            part = part if len(part) else values[np.isfinite(values)]
            center[number], spread[number] = part.mean(), _spread(part)
        return cls(center, spread, effect)

    def without_effect(self, panel: Panel) -> Panel:
        """Take the effect of the calendar off the targets of a panel of these series."""
        return without_effect(self.effect, panel)

    def scale(self, panel: Panel) -> np.ndarray:
        """Return the scaled targets, (N,), of a panel of these series, without that effect."""
        series = panel.series
        return (panel.target - self.center[series]) / self.spread[series]

    def unscale(self, forecasts: np.ndarray, panel: Panel) -> np.ndarray:
        """Bring scaled forecasts (S, h, Q) of a panel of these series back to their unit.

        They are for the steps after the last observed target of each series.
        """
        center, spread = self.center[:, None, None], self.spread[:, None, None]
        factors = future_factors(self.effect, panel, forecasts.shape[1])
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
        effect = None if self.effect is None else self.effect.match(panel, numbers)
        known = numbers < len(self.center)
        row = np.where(known, numbers, 0)
        center, spread = self.center[row], self.spread[row]
        if not known.all():  # to measure all series would take a while in every forecast
            new = np.flatnonzero(~known)
            of_new = None if effect is None else replace(effect, follows=effect.follows[new])
            measured = Scaling._measure(panel.take(new), 0, of_new)
            center[new], spread[new] = measured.center, measured.spread
        return Scaling(center, spread, effect)

    def append(self, other: Scaling, chosen: np.ndarray) -> Scaling:
        """Return the scales of these series, followed by those of some of another scaling."""
        effect, more = self.effect, other.effect
        if effect is not None and more is not None:
            effect = replace(effect, follows=np.append(effect.follows, more.follows[chosen]))
        return Scaling(
            np.append(self.center, other.center[chosen]),
            np.append(self.spread, other.spread[chosen]),
            effect,
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
