"""Read a column of times: dates, dates with a time of day, or integers."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress

import numpy as np
import pandas as pd
from pandas.api import types

from .errors import InputError, quoted

_INTEGER = re.compile(r"[+-]?\d+(\.0+)?")
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", re.ASCII)
_DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}([./-])\d{1,2}[./-](\d{4}|\d{2})(.*)")
_WITH_OFFSET = re.compile(r".*\d:\d\d.*(Z|[+-]\d\d:?\d\d)")
_MAX_LENGTH = 100  # characters of a time: patterns and parsers may take forever on longer text


def read_times(column: pd.Series) -> pd.Series:
    """Convert a column to 64-bit integers or timestamps.

    Times with an offset from UTC are returned in UTC. Eight digits are dates if all values are
    valid dates; other integers count steps.

    Parameters
    ----------
    column : pandas.Series
        Text, numbers or timestamps, indexed from 0. Its name appears in messages.

    Raises
    ------
    InputError
        If a value cannot be read, or can be read in two ways.
    """
    name = quoted(column.name)
    if types.is_datetime64_any_dtype(column.dtype):
        times = column.dt.tz_convert("UTC") if column.dt.tz is not None else column
        return _checked(times, column, name)
    _raise_unreadable(column.isna().to_numpy(), column, name)
    text = column.astype(str).str.strip()
    _raise_unreadable((text.str.len() > _MAX_LENGTH).to_numpy(), text, name)
    if text.map(lambda value: _INTEGER.fullmatch(value) is not None).all():
        days = pd.to_datetime(text, format="%Y%m%d", errors="coerce")
        if text.str.fullmatch(r"\d{8}").all() and days.notna().all():
            return _checked(days, text, name)
        return _read_integers(text, name)
    first = _DAY_OR_MONTH_FIRST.fullmatch(str(text.iloc[0]))
    times = _read_day_and_month(text, first, name) if first else _read_dates(text)
    return _checked(times, text, name)


def _read_integers(text: pd.Series, name: str) -> pd.Series:
    bounds = np.iinfo(np.int64)
    numbers = []
    for row, digits in enumerate(text.str.replace(r"\.0+$", "", regex=True)):
        number = int(digits)
        if not bounds.min <= number <= bounds.max:
            raise InputError(
                f"column {name}: the whole number {quoted(digits)} in row {row + 1} does not fit "
                "into 64 bits: count the steps from 0"
            )
        numbers.append(number)
    return pd.Series(numbers, text.index, dtype="int64")


def _read_dates(text: pd.Series) -> pd.Series:
    """Read dates in any unambiguous format; unreadable values become NaT."""
    utc = _WITH_OFFSET.fullmatch(str(text.iloc[0])) is not None
    times = pd.Series(pd.NaT, text.index, dtype="datetime64[us]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns if it has to guess the format of each value
        for date_format, as_utc in ((None, utc), ("ISO8601", utc), ("ISO8601", True)):
            with suppress(ValueError, OverflowError, UserWarning):
                parsed = pd.to_datetime(text, errors="coerce", format=date_format, utc=as_utc)
                # pandas 2 returns a column of objects for mixed time zones
                if types.is_datetime64_any_dtype(parsed.dtype):
                    times = parsed
                    break
    if times.isna().any() and text.map(lambda value: _ISO.fullmatch(value) is not None).all():
        # pandas 2 reads text as nanoseconds, which end in 2262; NumPy can read microseconds.
        with suppress(ValueError):
            return pd.Series(text.to_numpy("datetime64[us]"), text.index)
    return times


def _read_day_and_month(text: pd.Series, first: re.Match[str], name: str) -> pd.Series:
    """Read 13/02/2024 and the like; raise an error if day and month cannot be told apart."""
    separator, year, clock = first[1], "%Y" if len(first[2]) == 4 else "%y", first[3]
    clock = "" if not clock else " %H:%M" if clock.count(":") == 1 else " %H:%M:%S"
    orders = ["%d{0}%m{0}"] if separator == "." else ["%d{0}%m{0}", "%m{0}%d{0}"]
    readings = [
        pd.to_datetime(text, format=order.format(separator) + year + clock, errors="coerce")
        for order in orders
    ]
    complete = [times for times in readings if times.notna().all()]
    if len(complete) == 2 and not complete[0].equals(complete[1]):
        raise InputError(
            f"column {name}: {quoted(text.iloc[0])} and the like can be read with the day or the "
            "month first: write them as YYYY-MM-DD"
        )
    return complete[0] if complete else max(readings, key=lambda times: times.notna().sum())


def _checked(times: pd.Series, text: pd.Series, name: str) -> pd.Series:
    """Reject missing times and those outside the calendar; convert the others to microseconds.

    Nanoseconds, which end in 2262, are kept only if a time needs them.
    """
    _raise_unreadable(times.isna().to_numpy(), text, name)
    beyond = ((times.dt.year < 1) | (times.dt.year > 9999)).to_numpy().nonzero()[0]
    if len(beyond):
        raise InputError(
            f"column {name}: {quoted(times.iloc[beyond[0]])} in row {beyond[0] + 1} is not between "
            "the years 1 and 9999: correct it, or count steps by whole numbers"
        )
    return times if (times.dt.nanosecond != 0).any() else times.dt.as_unit("us")


def _raise_unreadable(failed: np.ndarray, text: pd.Series, name: str) -> None:
    if failed.any():
        first = int(failed.argmax())
        more = f" and {failed.sum() - 1} more" if failed.sum() > 1 else ""
        raise InputError(
            f"column {name}: cannot read {quoted(text.iloc[first])} in row {first + 1}{more} "
            "as a date or whole number: write dates as YYYY-MM-DD or YYYY-MM-DD HH:MM"
        )
