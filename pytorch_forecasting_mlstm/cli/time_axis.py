"""The even spacing of a table's times: find it, count along it, and go on beyond its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import frequencies, offsets

from .errors import UserError

_DAY = pd.Timedelta(days=1)
_LONGEST_GRID = 20  # times the rows of the table: beyond that, the times have no common step


@dataclass(frozen=True)
class TimeAxis:
    """Evenly spaced times, counted from 0.

    Attributes
    ----------
    start
        Time 0: a whole number or a timestamp.
    step
        From one time to the next: a whole number or a pandas offset.
    name
        The spacing in words, such as "daily" or "30 minutes".
    seasons
        Steps per season, by name, longest first; empty where no season is to be expected.
    """

    start: Any
    step: Any
    name: str = field(init=False)
    seasons: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        name, seasons = _describe(self)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "seasons", seasons)

    @property
    def counts(self) -> bool:
        """Whether the times are whole numbers."""
        return isinstance(self.step, int)

    def grid(self, length: int) -> pd.Index:
        """List the first `length` times."""
        if self.counts:
            return pd.RangeIndex(self.start, self.start + length * self.step, self.step)
        return pd.date_range(self.start, periods=length, freq=self.step)

    def at(self, positions: np.ndarray) -> pd.Index:
        """List the times at `positions`, beyond the end of the table too."""
        return self.grid(int(positions.max()) + 1)[positions]

    def spacing(self) -> pd.Timedelta:
        """Take the typical time between two steps; not for axes that count."""
        return pd.Series(self.grid(100)).diff().median()


def _describe(axis: TimeAxis) -> tuple[str, dict[str, int]]:
    """Name the spacing, and the seasons worth expecting at it."""
    if axis.counts:
        return "1 step" if axis.step == 1 else f"{axis.step} steps", {}
    spacing = axis.spacing()
    if spacing < _DAY:
        seasons = {
            name: int(length / spacing)
            for name, length in (("1 week", 7 * _DAY), ("1 day", _DAY))
            if length % spacing == pd.Timedelta(0) and length > spacing
        }
        minutes = spacing / pd.Timedelta(minutes=1)
        if minutes == 60:
            return "hourly", seasons
        return (f"{minutes:g} minutes" if minutes < 60 else f"{minutes / 60:g} hours"), seasons
    days = spacing / _DAY
    if isinstance(axis.step, offsets.BusinessDay):
        return "business days", {"52 weeks": 260, "1 week": 5}
    for name, shortest, longest, seasons in (
        ("daily", 1, 1, {"52 weeks": 364, "1 week": 7}),
        ("weekly", 7, 7, {"52 weeks": 52}),
        ("monthly", 28, 31, {"1 year": 12}),
        ("quarterly", 89, 92, {"1 year": 4}),
        ("yearly", 365, 366, {}),
    ):
        if shortest <= days <= longest:
            return name, seasons
    return f"{days:g} days", {"1 week": int(7 / days)} if 7 % days == 0 else {}


def lay_on_axis(
    times: pd.Series, series: np.ndarray, label: Callable[[int], str]
) -> tuple[TimeAxis, np.ndarray]:
    """Find the spacing of `times` and their positions along it.

    Parameters
    ----------
    times : pandas.Series
        Integers or timestamps, sorted within each series and without duplicates.
    series : numpy.ndarray
        Number of the series each time belongs to, sorted.
    label : callable
        Names a series, for messages.

    Raises
    ------
    UserError
        There is no common spacing, or times are missing.
    """
    same = series[1:] == series[:-1]
    steps = times.diff().iloc[1:][same]
    if steps.empty:
        hint = ": does --group name too many columns?" if series[-1] else ""
        raise UserError(
            f"{label(0)}: a single row is too short to forecast from{hint or ': add rows'}"
        )
    if times.dtype.kind == "i":
        candidates: list[Any] = [int(steps.mode().iloc[0])]
    else:
        candidates = _candidates(times, series, steps)
    best = None
    for step in candidates:
        axis, positions = _positions(times, step)
        off = positions < 0
        gaps = same & (np.diff(positions) != 1)
        faults = int(off.sum() + gaps.sum())
        if best is None or faults < best[0]:
            best = faults, axis, positions, off, gaps
        if faults == 0:
            break
    assert best is not None
    _, axis, positions, off, gaps = best
    if off.any():
        _raise_off_axis(axis, times, series, off, label)
    if gaps.any():
        _raise_gap(axis, positions, series, gaps, label)
    return axis, positions


def _candidates(times: pd.Series, series: np.ndarray, steps: pd.Series) -> list[Any]:
    """Offsets worth trying: what pandas infers from the longest series, then the common step."""
    found = {}
    numbers, starts, lengths = np.unique(series, return_index=True, return_counts=True)
    for k in np.argsort(-lengths, kind="stable")[:20]:
        if lengths[k] >= 3:
            alias = frequencies.infer_freq(
                pd.DatetimeIndex(times.iloc[starts[k] : starts[k] + lengths[k]])
            )
            if alias is not None:
                found[alias] = frequencies.to_offset(alias)
    common = steps.mode().iloc[0]
    days = common / _DAY
    every = list(found.values())
    months = {28: 1, 29: 1, 30: 1, 31: 1, 90: 3, 91: 3, 92: 3, 89: 3, 365: 12, 366: 12}.get(days)
    if months is not None:
        ends = bool(times.dt.is_month_end.all())
        every.append(offsets.MonthEnd(months) if ends else pd.DateOffset(months=months))
    else:
        if days == 1 and times.dt.dayofweek.max() < 5:
            every.append(offsets.BusinessDay())
        every.append(frequencies.to_offset(common))
        span = (times.max() - times.min()) / common
        if not found and span > _LONGEST_GRID * len(times) + 1000:
            raise UserError(
                f"the times have no common step (most often {common}, over {span:,.0f} steps for "
                f"{len(times):,} rows): add them up to hours, days or months first"
            )
    return every


def _positions(times: pd.Series, step: Any) -> tuple[TimeAxis, np.ndarray]:
    """Lay `times` along an axis of the given step; -1 for those that fall beside it."""
    start = times.min()
    if isinstance(step, int):
        away = (times - start).to_numpy()
        return TimeAxis(int(start), step), np.where(away % step == 0, away // step, -1)
    axis = TimeAxis(start, step)
    grid = pd.date_range(start, times.max(), freq=step)
    return axis, grid.get_indexer(pd.DatetimeIndex(times))


def _raise_off_axis(
    axis: TimeAxis,
    times: pd.Series,
    series: np.ndarray,
    off: np.ndarray,
    label: Callable[[int], str],
) -> None:
    first = off.nonzero()[0][0]
    raise UserError(
        f"{label(series[first])}: {times.iloc[first]} does not fit the spacing of the other times "
        f"({axis.name}, from {axis.start}); {off.sum()} such rows: correct them, or bring all "
        "times to one spacing"
    )


def _raise_gap(
    axis: TimeAxis,
    positions: np.ndarray,
    series: np.ndarray,
    gaps: np.ndarray,
    label: Callable[[int], str],
) -> None:
    first = gaps.nonzero()[0][0]
    missing = int(positions[first + 1] - positions[first] - 1)
    begin, end = axis.at(positions[first : first + 2] + [1, -1])
    others = len(np.unique(series[1:][gaps])) - 1
    total = int((np.diff(positions)[gaps] - 1).sum())
    where = f"{begin}" if missing == 1 else f"{begin} to {end} ({missing} times)"
    also = f"; {total} missing in all" if total > missing else ""
    also += f", in {others + 1} groups" if others else ""
    raise UserError(
        f"{label(series[first])}: no row for {where}{also} (spacing: {axis.name}): add the missing "
        "rows, for example with the value 0 or the one before"
    )
