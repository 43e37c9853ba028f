"""Arithmetic of evenly spaced times: the number of steps to a time, and the time of a step.

Times are int64: integers, or microseconds or nanoseconds since 1970. The times between the first
and the last, which may be a billion steps apart, are never enumerated. Positions before the start
are negative.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import offsets

MAX_POSITION = 2**62  # with a horizon added, it still fits into 64 bits
OFF_AXIS = np.iinfo(np.int64).min  # the position of a time between two steps
PER_DAY = {"us": 86_400 * 10**6, "ns": 86_400 * 10**9}

_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")
_FIRST_MONTH, _LAST_MONTH = 12 * (1 - 1970), 12 * (9999 - 1970) + 11  # since January 1970
_STEPS_UNTIL_DAYS_SETTLE = 120  # the shortest month has appeared by then
_OPENS, _HOURS_OPEN = 9, 8  # of pandas' business hours
_QUARTERLY = (
    offsets.QuarterBegin,
    offsets.QuarterEnd,
    offsets.BQuarterBegin,
    offsets.BQuarterEnd,
)
_YEARLY = (offsets.YearBegin, offsets.YearEnd, offsets.BYearBegin, offsets.BYearEnd)


class Stepper(ABC):
    """The arithmetic of evenly spaced times with one kind of spacing."""

    @abstractmethod
    def positions(self, times: np.ndarray) -> np.ndarray:
        """Count the steps from the start to `times`; `OFF_AXIS` between two steps.

        Raises
        ------
        OverflowError
            There are more steps than 64 bits can count.
        """

    @abstractmethod
    def times(self, positions: np.ndarray) -> np.ndarray:
        """Return the times at `positions`.

        Raises
        ------
        OverflowError
            A time does not fit into 64 bits, or lies beyond the calendar.
        """


def stepper(start: int, step: Any, unit: str, calendar: np.busdaycalendar | None = None) -> Stepper:
    """Choose the arithmetic for a spacing.

    Parameters
    ----------
    start : int
        The time at position 0, which fits the spacing.
    step : int, pandas.Timedelta or pandas.DateOffset
        The distance between two times.
    unit : str
        Unit of `start`: "us" or "ns"; not used if `step` is an integer.
    calendar : numpy.busdaycalendar, optional
        The days that have times. Default: all days, or Monday to Friday for business days.
    """
    if isinstance(step, offsets.BusinessHour | offsets.BusinessDay):
        return _OpenDays(start, step, unit, calendar or np.busdaycalendar())
    if calendar is not None:
        return _OpenDays(start, step, unit, calendar)
    width = fixed_width(step, unit)
    return _Monthly(start, step, unit) if width is None else _Even(start, width)


def slots_per_day(step: Any) -> tuple[int, int]:
    """Return the slots of an open day and the slots of a step; a longer step has one slot a day."""
    if isinstance(step, offsets.BusinessHour):
        return _HOURS_OPEN, int(step.n)
    if isinstance(step, offsets.BusinessDay):
        return 1, int(step.n)
    width = fixed_width(step, "ns")
    if width is None or max(width, PER_DAY["ns"]) % min(width, PER_DAY["ns"]):
        raise ValueError("days can be left out of steps that divide a day or are whole days only")
    return max(1, PER_DAY["ns"] // width), max(1, width // PER_DAY["ns"])


def fixed_width(step: Any, unit: str) -> int | None:
    """Return the length of a step in units of time, or None if it varies."""
    if isinstance(step, int):
        return step
    if isinstance(step, offsets.Week | offsets.Day):
        return int(step.n) * PER_DAY[unit] * (7 if isinstance(step, offsets.Week) else 1)
    if isinstance(step, pd.Timedelta):
        return int(step.to_timedelta64().astype(f"timedelta64[{unit}]").astype(np.int64))
    if isinstance(step, offsets.Tick):
        return int(step.nanos) // (1 if unit == "ns" else 1000)
    return None


def months_of(step: Any) -> int:
    """Return how many months a step spans, or 0 if it does not span whole months."""
    if isinstance(step, offsets.BusinessHour | offsets.BusinessDay):
        return 0
    if fixed_width(step, "ns") is not None:
        return 0
    if type(step) is pd.DateOffset:
        return int(step.n * step.kwds.get("months", 0))
    if isinstance(step, _QUARTERLY):
        return int(3 * step.n)
    return int((12 if isinstance(step, _YEARLY) else 1) * step.n)


@dataclass(frozen=True)
class _Even(Stepper):
    """Steps of constant length."""

    start: int
    width: int

    def positions(self, times: np.ndarray) -> np.ndarray:
        start = np.array(self.start).view(np.uint64)
        times = np.ascontiguousarray(times)
        earlier = times < self.start
        # The difference of two int64 always fits into uint64.
        distance = times.view(np.uint64) - start
        distance = np.where(earlier, np.uint64(0) - distance, distance)
        count, remainder = np.divmod(distance, np.uint64(self.width))
        if len(count) and count.max() > MAX_POSITION:
            raise OverflowError
        steps = np.where(earlier, -1, 1) * count.astype(np.int64)
        return np.where(remainder == 0, steps, OFF_AXIS)

    def times(self, positions: np.ndarray) -> np.ndarray:
        bounds = np.iinfo(np.int64)
        for position in (positions.min(), positions.max()) if len(positions) else ():
            if not bounds.min <= self.start + int(position) * self.width <= bounds.max:
                raise OverflowError
        # Unsigned integers wrap around without an error, and the result is known to fit.
        distance = positions.astype(np.int64).view(np.uint64) * np.uint64(self.width)
        return (distance + np.array(self.start).view(np.uint64)).view(np.int64)


class _Monthly(Stepper):
    """Steps of whole months: the start, the end, or a day of months, quarters or years."""

    def __init__(self, start: int, step: Any, unit: str) -> None:
        first = np.array(start).astype(f"datetime64[{unit}]")
        self.unit = unit
        self.months = months_of(step)
        self.month = int(first.astype("datetime64[M]").astype(np.int64))
        self.clock = first - first.astype("datetime64[D]")
        self.rule = None if type(step) is pd.DateOffset else step.base
        # The 31st moves to the last day of the first shorter month and, as in pandas, stays there.
        visited = self.month + self.months * np.arange(_STEPS_UNTIL_DAYS_SETTLE)
        day = (first.astype("datetime64[D]") - first.astype("datetime64[M]")).astype(np.int64)
        self.days = np.minimum(np.minimum.accumulate(_days_in(visited)), day + 1)

    def positions(self, times: np.ndarray) -> np.ndarray:
        months = times.view(f"datetime64[{self.unit}]").astype("datetime64[M]").astype(np.int64)
        count, remainder = np.divmod(months - self.month, self.months)
        count[remainder != 0] = 0
        return np.where((remainder == 0) & (self.times(count) == times), count, OFF_AXIS)

    def times(self, positions: np.ndarray) -> np.ndarray:
        count, inverse = np.unique(positions, return_inverse=True)
        for position in (count[0], count[-1]) if len(count) else ():
            if not _FIRST_MONTH <= self.month + int(position) * self.months <= _LAST_MONTH:
                raise OverflowError
        months = self.month + count * self.months
        begins = months.astype("datetime64[M]").astype("datetime64[D]")
        if self.rule is None:
            day = self.days[np.clip(count, 0, len(self.days) - 1)]
            # Before the start, the 31st is the last day of shorter months.
            days = begins + np.minimum(day, _days_in(months)) - 1
        else:
            dates = [self.rule.rollforward(pd.Timestamp(begin)) for begin in begins]
            days = np.array(dates).astype("datetime64[D]")
        return _in_units(days.astype(np.int64), self.clock.astype(np.int64), self.unit)[inverse]


class _OpenDays(Stepper):
    """Whole days, or times of day, on the open days of a calendar."""

    def __init__(self, start: int, step: Any, unit: str, calendar: np.busdaycalendar) -> None:
        self.unit = unit
        self.calendar = calendar
        self.slots, self.n = slots_per_day(step)
        hourly = isinstance(step, offsets.BusinessHour)
        self.slot_length = PER_DAY[unit] // (24 if hourly else self.slots)
        self.opens = _OPENS * self.slot_length if hourly else 0
        day, clock = divmod(start, PER_DAY[unit])
        self.first = np.datetime64(day, "D")
        self.slot, self.within_slot = divmod(clock - self.opens, self.slot_length)

    def positions(self, times: np.ndarray) -> np.ndarray:
        day, clock = np.divmod(times, PER_DAY[self.unit])
        slot, within_slot = np.divmod(clock - self.opens, self.slot_length)
        days = day.astype("datetime64[D]")
        is_open = np.is_busday(days, busdaycal=self.calendar)
        # Counts between open days are the same in both directions.
        days = np.where(is_open, days, self.first)
        open_days = np.busday_count(self.first, days, busdaycal=self.calendar)
        steps, remainder = np.divmod(open_days * self.slots + slot - self.slot, self.n)
        in_hours = (slot >= 0) & (slot < self.slots) & (within_slot == self.within_slot)
        return np.where(is_open & in_hours & (remainder == 0), steps, OFF_AXIS)

    def times(self, positions: np.ndarray) -> np.ndarray:
        earliest, latest = (
            int(np.busday_count(self.first, day, busdaycal=self.calendar)) * self.slots
            for day in (_FIRST_DAY, _LAST_DAY)
        )
        for position in (positions.min(), positions.max()) if len(positions) else ():
            if not earliest <= int(position) * self.n + self.slot <= latest:
                raise OverflowError
        count, slot = np.divmod(positions * self.n + self.slot, self.slots)
        days = np.busday_offset(self.first, count, busdaycal=self.calendar).astype(np.int64)
        return _in_units(days, self.opens + slot * self.slot_length + self.within_slot, self.unit)


def _in_units(days: Any, clock: Any, unit: str) -> np.ndarray:
    """Combine days since 1970 and a time of day; raise OverflowError beyond 64 bits."""
    if len(days) and abs(days).max() > np.iinfo(np.int64).max // PER_DAY[unit] - 1:
        raise OverflowError
    return days * PER_DAY[unit] + clock


def _days_in(months: np.ndarray) -> np.ndarray:
    begin, end = (
        (months + shift).astype("datetime64[M]").astype("datetime64[D]") for shift in (0, 1)
    )
    return (end - begin).astype(np.int64)
