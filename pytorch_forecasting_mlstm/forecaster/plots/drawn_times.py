"""Times as numbers on the axis of a plot, and the ticks that suit them."""

from __future__ import annotations

import datetime
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..errors import InputError
from ..times.timestamps import read_times

_QUARTER = re.compile(r"(\d{4})[- ]?Q([1-4])", re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})-?W(\d\d)", re.IGNORECASE)
_MONTH = re.compile(r"\d{4}-\d\d")
_MAX_DRAWN_INTEGER = 10**9  # longer ones do not fit below the axis
_FEW_POINTS = 40
_FIRST_DAY, _LAST_DAY = -719162.0, 2932896.0  # years 1 and 9999, in days since 1970


@dataclass(frozen=True)
class DrawnTimes:
    """The times of one panel, as matplotlib counts them.

    Attributes
    ----------
    numbers : numpy.ndarray
        (N,): days since 1970, or integer times.
    zone : datetime.tzinfo, optional
        Time zone in which dates are shown.
    is_date : bool
        Whether `numbers` are days.
    origin : int
        What was subtracted from integers too long to be written.
    texts : dict
        By number, how the user writes quarters and weeks; empty for other times.
    """

    numbers: np.ndarray
    zone: Any = None
    is_date: bool = True
    origin: int = 0
    texts: dict[float, str] = field(default_factory=dict)

    def axis_label(self, name: str) -> str:
        """Name the axis: the column, and the zone or the origin of its times."""
        if self.zone is not None:
            return f"{name} ({_name_of(self.zone)})"
        return f"{name}, counted from {self.origin}" if self.origin else name

    def set_ticks(self, axes: Any, drawn: np.ndarray, max_ticks: int) -> None:
        """Set the time axis to the `drawn` numbers, with at most about `max_ticks` ticks."""
        from matplotlib import dates, ticker

        points = np.unique(drawn)
        span = points[-1] - points[0]
        margin = 0.015 * span or 1.0
        end = margin
        if 1 < len(points) <= _FEW_POINTS:  # room for the band of a single step
            end = max(margin, 0.4 * (points[-1] - points[-2]))
        first, last = points[0] - margin, points[-1] + end
        if not self.is_date:
            axes.set_xlim(first, last)
            digits = len(f"{max(abs(points[0]), abs(points[-1])):.0f}")
            bins = max_ticks if digits < 6 else max(3, max_ticks * 2 // 3)
            axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=bins))
            axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.0f}"))
            return
        axes.set_xlim(max(first, _FIRST_DAY), min(last, _LAST_DAY))
        if self.texts:
            every, most = 1, max(3, max_ticks * 2 // 3)
            while len(points) > every * most:
                every += every if every < 4 else 4  # 1, 2, 4, 8, 12: a year has four quarters
            ones = [k for k, point in enumerate(points.tolist()) if self.texts[point][-1] == "1"]
            shown = points[ones[0] % every if ones else 0 :: every]
            axes.set_xticks(shown, [self.texts[point] for point in shown.tolist()])
            return
        locator = self._date_locator(points, max_ticks)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=self.zone))

    def _date_locator(self, points: np.ndarray, max_ticks: int) -> Any:
        from matplotlib import dates, ticker

        if len(points) <= max_ticks:  # few enough for one tick each: no hours between days
            return ticker.FixedLocator(points.tolist())
        hours = 24 * (points[-1] - points[0])
        if np.diff(points).min() < 1 and max_ticks <= hours <= 12 * max_ticks:
            every = next(step for step in (1, 2, 3, 4, 6, 12) if hours <= step * max_ticks)
            return dates.HourLocator(range(0, 24, every), tz=self.zone)
        fewest = max(2, (max_ticks - 1) // 2)  # with more, it would find no interval for some spans
        most = max(max_ticks, 2 * fewest + 1)
        return dates.AutoDateLocator(tz=self.zone, minticks=fewest, maxticks=most)


def drawn_times(times: pd.Series, origin: int = -1) -> DrawnTimes:
    """Convert times in the user's form to numbers for a plot.

    Parameters
    ----------
    times : pandas.Series
        All times of a panel: timestamps with or without a zone, periods, dates, text, or numbers.
    origin : int, default -1
        Row of the time from which integers of ten digits and more are counted.

    Raises
    ------
    InputError
        If a text cannot be read as a time.

    Examples
    --------
    >>> drawn_times(pd.Series(["1970-Q1", "1970-Q2"])).numbers.tolist()
    [0.0, 90.0]
    """
    times = times.reset_index(drop=True)
    texts: pd.Series | None = None
    if isinstance(times.dtype, pd.PeriodDtype):
        texts = times.astype(str) if times.dtype.freq.name.startswith("Q") else None
        times = times.dt.to_timestamp()
    elif types.is_numeric_dtype(times.dtype):
        times = read_times(times)[0]
    elif not types.is_datetime64_any_dtype(times.dtype):
        first = times.iloc[0]
        if isinstance(first, pd.Period):
            return drawn_times(pd.Series(pd.PeriodIndex(times)), origin)
        if isinstance(first, datetime.date | np.datetime64):
            times = _read_dates(times)
        else:
            texts = times.astype(str).str.strip()
            times, texts = _read_text(texts.rename(times.name))
    if times.dtype.kind == "i":
        return _drawn_numbers(times, origin)
    zone = times.dt.tz
    if zone is not None:
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    from matplotlib import dates

    numbers = dates.date2num(times.to_numpy("datetime64[us]"))
    named = {} if texts is None else dict(zip(numbers.tolist(), texts, strict=True))
    return DrawnTimes(numbers, zone, texts=named)


def _drawn_numbers(times: pd.Series, origin: int) -> DrawnTimes:
    values, start = times.to_numpy(), 0
    if max(abs(int(values.min())), abs(int(values.max()))) > _MAX_DRAWN_INTEGER:
        start = int(values[origin])
        values = np.array([int(value) - start for value in values.tolist()])
    return DrawnTimes(values.astype(float), is_date=False, origin=start)


def _read_dates(times: pd.Series) -> pd.Series:
    """Read a column of date or datetime objects, of which pandas takes only one kind of zone."""
    zones = {getattr(time, "tzinfo", None) for time in times}
    if zones == {None}:
        return pd.Series(times.to_numpy("datetime64[us]"))
    read = pd.Series(pd.DatetimeIndex(pd.to_datetime(times, utc=True)))
    zone = zones.pop() if len(zones) == 1 else None
    return read if zone is None else read.dt.tz_convert(zone)


def _read_text(texts: pd.Series) -> tuple[pd.Series, pd.Series | None]:
    """Return times, and the texts to show for quarters and weeks."""
    quarters = [_QUARTER.fullmatch(text) for text in texts]
    if all(quarters):
        days = [f"{match[1]}-{3 * int(match[2]) - 2:02d}-01" for match in quarters if match]
        return pd.Series(np.array(days, "datetime64[us]")), texts
    weeks = [_WEEK.fullmatch(text) for text in texts]
    if all(weeks):
        mondays = [
            datetime.date.fromisocalendar(int(match[1]), int(match[2]), 1)
            for match in weeks
            if match
        ]
        return pd.Series(np.array(mondays, "datetime64[us]")), texts
    if all(_MONTH.fullmatch(text) for text in texts):
        return pd.Series(texts.to_numpy("datetime64[us]")), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a table has been read before it is drawn
            return read_times(texts)[0], None
    except InputError:  # local times over a clock change, whose zone the text does not say
        return read_times(texts, "UTC")[0], None


def _name_of(zone: Any) -> str:
    """Name a zone: Europe/Berlin, UTC, or UTC+01:00 for a fixed offset."""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if name:
        return str(name)
    return str(zone.tzname(None) or zone)
