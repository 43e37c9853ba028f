"""Evenly spaced times: convert steps to times, and times to steps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..errors import Argument, InputError
from .spacing import describe, spacing_from_dict, spacing_to_dict
from .steps import OFF_AXIS, PER_DAY, Stepper, fixed_width, months_of, stepper

_TYPICAL = 100  # steps; their median length is the typical one
_WHOLE_WEEKS = 420  # steps, a multiple of any number of days per week
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")
_EVERY_DAY, _MONDAY_TO_FRIDAY = "1111111", "1111100"


@dataclass(frozen=True)
class TimeAxis:
    """Evenly spaced times, counted from 0.

    Only the requested times are computed: series may lie a billion steps apart.

    Attributes
    ----------
    start
        Time 0: an integer or a timestamp without a zone.
    step
        The distance between two times: an integer, or a Timedelta or DateOffset of pandas.
    holidays
        Days without times, as ISO dates, sorted.
    week
        The days that have times, as seven digits from Monday, such as "1111100". None, the default,
        stands for all days, or for Monday to Friday if the step is a number of business days.
    name
        The spacing in words, such as "daily" or "30 minutes".
    seasons
        Steps per season, by name, longest first; empty if no season is expected.

    Examples
    --------
    >>> axis = TimeAxis(pd.Timestamp("2024-12-23"), pd.offsets.BusinessDay(), ("2024-12-25",))
    >>> axis.at(np.array([0, 1, 2])).day.tolist(), axis.name
    ([23, 24, 26], 'business days without holidays')
    >>> axis.place(pd.Series(pd.to_datetime(["2024-12-27", "2024-12-20"]))).tolist()
    [3, -1]
    """

    start: Any
    step: Any
    holidays: tuple[str, ...] = ()
    week: str | None = None
    name: str = field(init=False)
    seasons: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        week = self.week or (
            _MONDAY_TO_FRIDAY if isinstance(self.step, pd.offsets.BusinessDay) else _EVERY_DAY
        )
        name, seasons = describe(self.step, self.spacing, self.unit, week, bool(self.holidays))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "seasons", seasons)

    @property
    def is_integer(self) -> bool:
        """Whether the times are integers."""
        return isinstance(self.step, int)

    @property
    def is_daily(self) -> bool:
        """Whether every day has one time."""
        width = fixed_width(self.step, self.unit)
        return not self.is_integer and width == PER_DAY[self.unit] and self._calendar is None

    @property
    def is_monthly(self) -> bool:
        """Whether every step is one month."""
        return months_of(self.step) == 1

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
            times = self._stepper.times(np.asarray(positions))
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
        return pd.DatetimeIndex(times.view(f"datetime64[{self.unit}]"))

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
        return np.maximum(self._count(times), -1)

    def place(self, times: pd.Series) -> np.ndarray:
        """Count the steps from the start to the times of another table.

        Parameters
        ----------
        times : pandas.Series
            Times from `read_times`, indexed by row from 0.

        Returns
        -------
        numpy.ndarray
            (rows,) int64; negative before the start.

        Raises
        ------
        InputError
            If a time is not on the axis, or of another kind. The message names the row.
        """
        if (times.dtype.kind == "i") != self.is_integer:
            kinds = ["dates", "whole numbers"]
            raise InputError(
                f"column {times.name!r}: the times are {kinds[not self.is_integer]}, but were "
                f"{kinds[self.is_integer]} in the fitted table: write them as before"
            )
        try:
            positions = self._count(times)
        except OverflowError as error:
            raise InputError(
                f"column {times.name!r}: the times are too far from {self.start}, the first time "
                "of the fitted table, to be counted: correct them"
            ) from error
        off_axis = np.flatnonzero(positions == OFF_AXIS)
        if len(off_axis):
            first = off_axis[0]
            more = f"; {len(off_axis)} such rows" if len(off_axis) > 1 else ""
            raise InputError(
                f"column {times.name!r}: {times.iloc[first]} in row {times.index[first] + 1} does "
                f"not fit the spacing of the fitted table ({self.name}, from {self.start}){more}: "
                "correct or remove such rows"
            )
        return positions

    @property
    def spacing(self) -> int:
        """The typical length of a step, in units of time."""
        width = fixed_width(self.step, self.unit)
        return int(np.median(self._lengths)) if width is None else width

    @property
    def mean_spacing(self) -> float:
        """The mean length of a step, in units of time; days that are left out count."""
        if fixed_width(self.step, self.unit) is not None and self._calendar is None:
            return float(self.spacing)
        with suppress(OverflowError):
            first, last = self._stepper.times(np.array([0, _WHOLE_WEEKS]))
            return int(last - first) / _WHOLE_WEEKS
        return float(np.mean(self._lengths))

    def to_dict(self) -> dict[str, Any]:
        """Return the axis as plain values for JSON."""
        return {
            "start": self.start if self.is_integer else self.start.isoformat(),
            "step": spacing_to_dict(self.step),
            "holidays": list(self.holidays),
            "week": self.week,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TimeAxis:
        """Rebuild the axis from the result of `to_dict`."""
        step = spacing_from_dict(state["step"])
        start = state["start"]
        if not isinstance(step, int):
            start = pd.Timestamp(start)
        return cls(start, step, tuple(state["holidays"]), state["week"])

    @property
    def _lengths(self) -> np.ndarray:
        for steps in (_TYPICAL, 2):  # two must suffice near the end of the calendar
            with suppress(OverflowError):
                return np.diff(self._stepper.times(np.arange(steps)))
        return np.array([PER_DAY[self.unit]])

    def _count(self, times: pd.Series) -> np.ndarray:
        return self._stepper.positions(as_integers(times, self.unit))

    @property
    def _first(self) -> int:
        if self.is_integer:
            return int(self.start)
        return int(self.start.to_datetime64().astype(f"datetime64[{self.unit}]").astype(np.int64))

    @property
    def _calendar(self) -> np.busdaycalendar | None:
        if not self.holidays and self.week is None:
            return None
        is_business = isinstance(self.step, pd.offsets.BusinessDay | pd.offsets.BusinessHour)
        week = self.week or (_MONDAY_TO_FRIDAY if is_business else _EVERY_DAY)
        return np.busdaycalendar(week, np.array(self.holidays, dtype="datetime64[D]"))

    @property
    def _stepper(self) -> Stepper:
        return stepper(self._first, self.step, self.unit, self._calendar)

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
    return times.dt.as_unit(unit).to_numpy().view(np.int64)
