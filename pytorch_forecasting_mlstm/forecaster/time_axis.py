"""Evenly spaced times: convert steps to times, and times to steps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import offsets

from .errors import Argument, InputError
from .steps import PER_DAY, Stepper, fixed_width, stepper

_TYPICAL = 100  # steps; their median length is the typical one
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")


@dataclass(frozen=True)
class TimeAxis:
    """Evenly spaced times, counted from 0.

    Only the requested times are computed: series may lie a billion steps apart.

    Attributes
    ----------
    start
        Time 0: an integer or a timestamp.
    step
        The distance between two times: an integer, or a Timedelta or DateOffset of pandas.
    name
        The spacing in words, such as "daily" or "30 minutes".
    seasons
        Steps per season, by name, longest first; empty if no season is expected.
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
    def is_integer(self) -> bool:
        """Whether the times are integers."""
        return isinstance(self.step, int)

    @property
    def unit(self) -> str:
        """Unit of the times: microseconds, or nanoseconds if the times need them."""
        needs_nanoseconds = not self.is_integer and (
            self.start.nanosecond or (fixed_width(self.step, "ns") or 0) % 1000
        )
        return "ns" if needs_nanoseconds else "us"

    def at(self, positions: np.ndarray) -> pd.Index:
        """Return the times at `positions`, which may lie beyond the end of the data.

        Raises
        ------
        InputError
            If the time does not fit into 64 bits or lies beyond the calendar.
        """
        first, last = self._bounds
        try:
            times = self._stepper.times(positions)
        except OverflowError:
            times = None
        if times is None or (len(times) and not first <= times.min() <= times.max() <= last):
            raise InputError(
                f"the forecast would go beyond {self._format_bound(last)}, the last possible time: "
                "choose a smaller ",
                Argument("horizon"),
                ", or earlier times",
            )
        if self.is_integer:
            return pd.Index(times)
        dates = pd.DatetimeIndex(times.view(f"datetime64[{self.unit}]"))
        return dates if self.start.tz is None else dates.tz_localize("UTC")

    def check(self, position: int) -> None:
        """Raise an InputError unless there is a time at `position`, an integer of any size."""
        self.at(np.array([min(position, np.iinfo(np.int64).max)]))

    def positions(self, times: pd.Series) -> np.ndarray:
        """Count the steps from the start to `times`; -1 for times that are not on the axis.

        Raises
        ------
        OverflowError
            If there are more steps than 64 bits can count.
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
        for steps in (_TYPICAL, 2):  # two must suffice near the end of the calendar
            with suppress(OverflowError):
                return int(np.median(np.diff(self._stepper.times(np.arange(steps)))))
        return PER_DAY[self.unit]

    @property
    def _first(self) -> int:
        if self.is_integer:
            return int(self.start)
        start = self.start.tz_localize(None).to_datetime64()
        return int(start.astype(f"datetime64[{self.unit}]").astype(np.int64))

    @property
    def _stepper(self) -> Stepper:
        return stepper(self._first, self.step, self.unit)

    @property
    def _bounds(self) -> tuple[int, int]:
        bounds = np.iinfo(np.int64)
        if self.is_integer:
            return bounds.min, bounds.max
        if self.unit == "ns":
            return bounds.min + 1, bounds.max
        first, last = (int(day.astype(np.int64)) for day in (_FIRST_DAY, _LAST_DAY))
        return first * PER_DAY["us"], (last + 1) * PER_DAY["us"] - 1

    def _format_bound(self, time: int) -> object:
        if self.is_integer:
            return time
        # pandas 2 would read the number as nanoseconds, which end in 2262
        return pd.DatetimeIndex(np.array([time]).view(f"datetime64[{self.unit}]"))[0]


def as_integers(times: pd.Series, unit: str) -> np.ndarray:
    """Return times as int64: integers unchanged, timestamps in units since 1970."""
    if times.dtype.kind == "i":
        return times.to_numpy(np.int64)
    if getattr(times.dtype, "tz", None) is not None:
        times = times.dt.tz_localize(None)
    return times.dt.as_unit(unit).to_numpy().view(np.int64)


def _describe(axis: TimeAxis) -> tuple[str, dict[str, int]]:
    """Name the spacing, and the seasons to expect at it."""
    if axis.is_integer:
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
