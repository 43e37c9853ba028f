"""Which effect a table has: of trading days on months, of special days on days; or none."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from ...panel.panel import Panel
from .base import CalendarEffect
from .special_days import SpecialDays
from .trading_days import TradingDays

_KINDS: dict[str, Any] = {"trading days": TradingDays, "special days": SpecialDays}


def fit_effect(panel: Panel, held_out: int) -> CalendarEffect | None:
    """Estimate the effect that the steps of a panel can have; None if it has none."""
    return TradingDays.fit(panel, held_out) or SpecialDays.fit(panel, held_out)


def without_effect(effect: CalendarEffect | None, panel: Panel) -> Panel:
    """Return a panel whose targets are divided by their factors.

    They do not leave the range of the values with a factor of 1 in their series: a shop that was
    closed on every Christmas, and opens on one, has no tenfold day.
    """
    if effect is None:
        return panel
    series = panel.series
    factors = effect.factors(panel.axis, panel.starts[series] + panel.steps, series)
    target = panel.target / factors
    usual = np.where(factors == 1, target, np.nan)
    low, high = np.full(len(panel), np.nan), np.full(len(panel), np.nan)
    np.fmin.at(low, series, usual)
    np.fmax.at(high, series, usual)
    changed = factors != 1
    bounded = np.fmin(np.fmax(target, low[series]), high[series])
    return replace(panel, target=np.where(changed & np.isfinite(target), bounded, target))


def future_factors(effect: CalendarEffect | None, panel: Panel, horizon: int) -> np.ndarray:
    """Return the factors of the steps after the last observed target of every series, (S, h)."""
    shape = (len(panel), horizon)
    if effect is None:
        return np.ones(shape)
    series = np.broadcast_to(np.arange(len(panel))[:, None], shape)
    return effect.factors(panel.axis, panel.ends[:, None] + np.arange(horizon), series)


def effects_table(effect: CalendarEffect | None) -> pd.DataFrame:
    """Return an effect in words, its relative change, and how many series have it."""
    if effect is None:
        return pd.DataFrame({"effect": [], "change": [], "series": []})
    return effect.to_table().assign(series=int(effect.follows.sum()))


def effect_to_dict(effect: CalendarEffect | None) -> dict[str, Any] | None:
    """Return an effect as plain values and arrays."""
    if effect is None:
        return None
    (kind,) = (name for name, of_kind in _KINDS.items() if isinstance(effect, of_kind))
    return {"kind": kind, **asdict(effect)}


def effect_from_dict(written: dict[str, Any] | None, series: int) -> CalendarEffect | None:
    """Rebuild an effect on a number of series from the result of `effect_to_dict`.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is not that of so many series, or is not finite.
    """
    if written is None:
        return None
    values = dict(written)
    effect: CalendarEffect = _KINDS[values.pop("kind")](**values)
    is_complete = effect.follows.shape == (series,) and effect.follows.dtype == bool
    if isinstance(effect, SpecialDays):
        is_complete &= effect.rules.shape == effect.effects.shape
    if not is_complete or not all(np.isfinite(value).all() for value in values.values()):
        raise ValueError(f"the effect of the calendar is not that of {series} series")
    return effect
