"""Which effects a table has: trading days, special days, a common season; or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from ...panel.panel import Panel
from .base import CalendarEffect
from .common_season import CommonSeason
from .special_days import SpecialDays
from .trading_days import TradingDays

_KINDS: dict[str, Any] = {
    "trading days": TradingDays,
    "special days": SpecialDays,
    "common season": CommonSeason,
}

#: Each is estimated, and measured in new series, without the ones before it.
Effects = tuple[CalendarEffect, ...]


def fit_effects(panel: Panel, held_out: int) -> Effects:
    """Estimate the effects that the steps of a panel can have."""
    of_days = TradingDays.fit(panel, held_out) or SpecialDays.fit(panel, held_out)
    found = () if of_days is None else (of_days,)
    season = CommonSeason.fit(without_effects(found, panel), held_out)
    return found if season is None else (*found, season)


def match_effects(effects: Effects, panel: Panel, numbers: np.ndarray) -> Effects:
    """Return the effects on the series of another panel, as `CalendarEffect.match` does."""
    matched: list[CalendarEffect] = []
    for effect in effects:
        if matched:
            panel = _without(matched[-1], panel)
        matched.append(effect.match(panel, numbers))
    return tuple(matched)


def select_series(effects: Effects, chosen: np.ndarray) -> Effects:
    """Return the effects on some of their series."""
    return tuple(replace(effect, follows=effect.follows[chosen]) for effect in effects)


def join_series(first: Effects, second: Effects) -> Effects:
    """Return effects on the series of the first, followed by those of the second."""
    return tuple(
        replace(one, follows=np.append(one.follows, other.follows))
        for one, other in zip(first, second, strict=True)
    )


def without_effects(effects: Effects, panel: Panel) -> Panel:
    """Return a panel whose targets are divided by their factors.

    They do not leave the range of the values with a factor of 1 in their series: a shop that was
    closed on every Christmas, and opens on one, has no tenfold day.
    """
    for effect in effects:
        panel = _without(effect, panel)
    return panel


def _without(effect: CalendarEffect, panel: Panel) -> Panel:
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


def future_factors(effects: Effects, panel: Panel, horizon: int) -> np.ndarray:
    """Return the factors of the steps after the last observed target of every series, (S, h)."""
    factors = np.ones((len(panel), horizon))
    series = np.broadcast_to(np.arange(len(panel))[:, None], factors.shape)
    positions = panel.ends[:, None] + np.arange(horizon)
    for effect in effects:
        factors *= effect.factors(panel.axis, positions, series)
    return factors


def effects_table(effects: Effects) -> pd.DataFrame:
    """Return effects in words, their relative changes, and how many series have them."""
    tables = [effect.to_table().assign(series=int(effect.follows.sum())) for effect in effects]
    if not tables:
        return pd.DataFrame({"effect": [], "change": [], "series": []})
    return pd.concat(tables, ignore_index=True)


def write_effects(effects: Effects) -> list[dict[str, Any]]:
    """Return effects as plain values and arrays."""
    return [{"kind": _kind_of(effect), **asdict(effect)} for effect in effects]


def read_effects(written: Sequence[dict[str, Any]], series: int) -> Effects:
    """Rebuild effects on a number of series from the result of `write_effects`.

    Raises
    ------
    ValueError, KeyError, TypeError
        If they are not those of so many series, or are not finite.
    """
    return tuple(_read(written, series))


def _read(written: Sequence[dict[str, Any]], series: int) -> Iterator[CalendarEffect]:
    for one in written:
        values = dict(one)
        effect: CalendarEffect = _KINDS[values.pop("kind")](**values)
        is_complete = effect.follows.shape == (series,) and effect.follows.dtype == bool
        if isinstance(effect, SpecialDays):
            is_complete &= effect.rules.shape == effect.effects.shape
        if isinstance(effect, CommonSeason):
            is_complete &= effect.is_possible
        if not is_complete or not all(np.isfinite(value).all() for value in values.values()):
            raise ValueError(f"the effects of the calendar are not those of {series} series")
        yield effect


def _kind_of(effect: CalendarEffect) -> str:
    (kind,) = (name for name, of_kind in _KINDS.items() if isinstance(effect, of_kind))
    return kind
