"""Which effect a table has: of trading days on months, of special days on days; or none."""

from __future__ import annotations

from dataclasses import asdict
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


def factors_of(effect: CalendarEffect | None, panel: Panel) -> np.ndarray:
    """Return the factor of every row of a panel, (N,)."""
    if effect is None:
        return np.ones(len(panel.target))
    series = panel.series
    return effect.factors(panel.axis, panel.starts[series] + panel.steps, series)


def future_factors(effect: CalendarEffect | None, panel: Panel, horizon: int) -> np.ndarray:
    """Return the factors of the steps after the last observed target of every series, (S, h)."""
    shape = (len(panel), horizon)
    if effect is None:
        return np.ones(shape)
    series = np.broadcast_to(np.arange(len(panel))[:, None], shape)
    return effect.factors(panel.axis, panel.ends[:, None] + np.arange(horizon), series)


def effects_table(effect: CalendarEffect | None) -> pd.DataFrame:
    """Return an effect in words, with the columns "effect" and "change"; no rows for None."""
    if effect is None:
        return pd.DataFrame({"effect": pd.Series(dtype=str), "change": pd.Series(dtype=float)})
    return effect.to_table()


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
    if not is_complete or not all(np.isfinite(value).all() for value in values.values()):
        raise ValueError(f"the effect of the calendar is not that of {series} series")
    return effect
