"""The even spacing of a table's times: find it, count along it, and go on beyond its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import frequencies, offsets

from .errors import UserError
from .steps import PER_DAY, Stepper, fixed_width, stepper

_LONGEST_GRID = 20  # times the rows of the table: beyond that, the times have no common step
_TYPICAL = 100  # steps that tell the typical length of one
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")


@dataclass(frozen=True)
class TimeAxis:
    """Evenly spaced times, counted from 0.

    Only the times that are asked for are worked out: series may lie a billion steps apart.

    Attributes
    ----------
    start
        Time 0: a whole number or a timestamp.
    step
        From one time to the next: a whole number, or a Timedelta or offset of pandas.
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

    @property
    def unit(self) -> str:
        """Unit of the times: microseconds, or nanoseconds where they need them."""
        fine = not self.counts and (
            self.start.nanosecond or (fixed_width(self.step, "ns") or 0) % 1000
        )
        return "ns" if fine else "us"

    def at(self, positions: np.ndarray) -> pd.Index:
        """List the times at `positions`, beyond the end of the table too.

        Raises
        ------
        UserError
            There is no such time: 64 bits or the calendar end before.
        """
        first, last = self._bounds
        try:
            times = self._stepper.times(positions)
        except OverflowError:
            times = None
        if times is None or (len(times) and not first <= times.min() <= times.max() <= last):
            raise UserError(
                f"the forecast would go on beyond {self._written(last)}, the last time there is: "
                "choose a smaller --horizon, or earlier times"
            )
        if self.counts:
            return pd.Index(times)
        dates = pd.DatetimeIndex(times.view(f"datetime64[{self.unit}]"))
        return dates if self.start.tz is None else dates.tz_localize("UTC")

    def check(self, position: int) -> None:
        """Raise a UserError unless there is a time at `position`, of any size."""
        self.at(np.array([min(position, np.iinfo(np.int64).max)]))

    def positions(self, times: pd.Series) -> np.ndarray:
        """Count the steps from the start to `times`; -1 for those that fall beside the axis.

        Raises
        ------
        OverflowError
            There are more steps than can be counted.
        """
        values = as_integers(times, self.unit)
        start = self._first
        return np.where(values < start, -1, self._stepper.positions(np.maximum(values, start)))

    @property
    def spacing(self) -> int:
        """The typical length of a step, in units of time."""
        width = fixed_width(self.step, self.unit)
        if width is not None:
            return width
        for steps in (_TYPICAL, 2):  # two must do where the calendar ends
            with suppress(OverflowError):
                return int(np.median(np.diff(self._stepper.times(np.arange(steps)))))
        return PER_DAY[self.unit]

    @property
    def _first(self) -> int:
        return (
            self.start if self.counts else int(as_integers(pd.Series([self.start]), self.unit)[0])
        )

    @property
    def _stepper(self) -> Stepper:
        return stepper(self._first, self.step, self.unit)

    @property
    def _bounds(self) -> tuple[int, int]:
        bounds = np.iinfo(np.int64)
        if self.counts:
            return bounds.min, bounds.max
        if self.unit == "ns":
            return bounds.min + 1, bounds.max
        first, last = (int(day.astype(np.int64)) for day in (_FIRST_DAY, _LAST_DAY))
        return first * PER_DAY["us"], (last + 1) * PER_DAY["us"] - 1

    def _written(self, time: int) -> object:
        return time if self.counts else pd.Timestamp(time, unit=self.unit)


def as_integers(times: pd.Series, unit: str) -> np.ndarray:
    """Write times as integers: whole numbers as they are, timestamps in units since 1970."""
    if times.dtype.kind == "i":
        return times.to_numpy(np.int64)
    if getattr(times.dtype, "tz", None) is not None:
        times = times.dt.tz_localize(None)
    return times.dt.as_unit(unit).to_numpy().view(np.int64)


def _describe(axis: TimeAxis) -> tuple[str, dict[str, int]]:
    """Name the spacing, and the seasons worth expecting at it."""
    if axis.counts:
        return "1 step" if axis.step == 1 else f"{axis.step} steps", {}
    spacing, day = axis.spacing, PER_DAY[axis.unit]
    if spacing < day:
        seasons = {
            name: length // spacing
            for name, length in (("1 week", 7 * day), ("1 day", day))
            if length % spacing == 0
        }
        minutes = spacing / (day // 1440)
        if minutes == 60:
            return "hourly", seasons
        return (f"{minutes:g} minutes" if minutes < 60 else f"{minutes / 60:g} hours"), seasons
    days = spacing / day
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
    unit = "us" if times.dtype.kind == "i" else times.dt.unit
    # Without a sign: from one end of 64 bits to the other, too.
    steps = np.diff(as_integers(times, unit).view(np.uint64))[same]
    if not len(steps):
        hint = ": does --group name too many columns?" if series[-1] else ""
        raise UserError(
            f"{label(0)}: a single row is too short to forecast from{hint or ': add rows'}"
        )
    values, counts = np.unique(steps, return_counts=True)
    common = int(values[counts.argmax()])
    if times.dtype.kind == "i":
        candidates: list[Any] = [common]
    else:
        candidates = _candidates(times, series, steps, common)
    best = None
    for step in candidates:
        axis, positions = _lay(times, step)
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


def _candidates(times: pd.Series, series: np.ndarray, steps: np.ndarray, common: int) -> list[Any]:
    """List steps worth trying: what pandas infers from the longest series, then the common step."""
    found = {}
    numbers, starts, lengths = np.unique(series, return_index=True, return_counts=True)
    for k in np.argsort(-lengths, kind="stable")[:20]:
        if lengths[k] >= 3:
            alias = frequencies.infer_freq(
                pd.DatetimeIndex(times.iloc[starts[k] : starts[k] + lengths[k]])
            )
            if alias is not None:
                found[alias] = frequencies.to_offset(alias)
    every = list(found.values())
    unit = times.dt.unit
    days, rest = divmod(common, PER_DAY[unit])
    months = {28: 1, 29: 1, 30: 1, 31: 1, 90: 3, 91: 3, 92: 3, 89: 3, 365: 12, 366: 12}.get(days)
    if months is not None and not rest:
        ends = bool(times.dt.is_month_end.all())
        every.append(offsets.MonthEnd(months) if ends else pd.DateOffset(months=months))
        return every
    if days == 1 and not rest and times.dt.dayofweek.max() < 5:
        every.append(offsets.BusinessDay())
    if common > np.iinfo(np.int64).max:
        raise UserError("the times lie further apart than can be counted: add the times between")
    every.append(pd.Timedelta(np.timedelta64(common, unit)))
    span = sum(map(int, steps)) / common
    if not found and span > _LONGEST_GRID * len(times) + 1000:
        raise UserError(
            f"the times have no common step (most often {every[-1]}, over {span:,.0f} steps for "
            f"{len(times):,} rows): add them up to hours, days or months first"
        )
    return every


def _lay(times: pd.Series, step: Any) -> tuple[TimeAxis, np.ndarray]:
    """Lay `times` along an axis of the given step, from the first that it has a place for."""
    start = times.min()
    try:
        if isinstance(step, int):
            start = int(start)
        elif not isinstance(step, pd.Timedelta):
            start = step.rollforward(start)
        axis = TimeAxis(start, step)
        return axis, axis.positions(times)
    except (OverflowError, pd.errors.OutOfBoundsDatetime) as error:
        raise UserError(
            "the times lie further apart than can be counted: forecast the series in several tables"
        ) from error


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
