"""Read a column of times: dates, dates with a time of day, or whole numbers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pandas as pd
from pandas.api import types

from .errors import UserError, quoted

_WHOLE = re.compile(r"[+-]?\d+(\.0+)?")
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", re.ASCII)
_DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}([./-])\d{1,2}[./-](\d{4}|\d{2})(.*)")
_WITH_OFFSET = re.compile(r".*\d:\d\d.*(Z|[+-]\d\d:?\d\d)")
_LONGEST = 100  # characters of a time; patterns and readers may take for ever over more


def read_times(raw: pd.Series, row: Callable[[int], str]) -> pd.Series:
    """Turn `raw` into 64-bit integers or timestamps.

    Times with an offset from UTC come back in UTC. Eight digits that are a date throughout are a
    date, other whole numbers count steps.

    Parameters
    ----------
    raw : pandas.Series
        The column as read: text, numbers or timestamps. Its name goes into messages.
    row : callable
        Says where the n-th value stands, for messages.

    Raises
    ------
    UserError
        A value cannot be read, or could be read in two ways.
    """
    column = quoted(raw.name)
    if types.is_datetime64_any_dtype(raw.dtype):
        times = raw.dt.tz_convert("UTC") if raw.dt.tz is not None else raw
        return _all_read(times, raw, column, row)
    _raise_unread(raw.isna().to_numpy(), raw, column, row)
    text = raw.astype(str).str.strip()
    _raise_unread((text.str.len() > _LONGEST).to_numpy(), text, column, row)
    if text.map(lambda value: _WHOLE.fullmatch(value) is not None).all():
        days = pd.to_datetime(text, format="%Y%m%d", errors="coerce")
        if text.str.fullmatch(r"\d{8}").all() and days.notna().all():
            return _all_read(days, text, column, row)
        return _read_whole_numbers(text, column, row)
    slashed = _DAY_OR_MONTH_FIRST.fullmatch(str(text.iloc[0]))
    if slashed:
        return _read_day_and_month(text, slashed, column, row)
    return _all_read(_read_dates(text), text, column, row)


def _read_whole_numbers(text: pd.Series, column: str, row: Callable[[int], str]) -> pd.Series:
    bounds = np.iinfo(np.int64)
    numbers = []
    for k, digits in enumerate(text.str.replace(r"\.0+$", "", regex=True)):
        number = int(digits)
        if not bounds.min <= number <= bounds.max:
            raise UserError(
                f"column {column}: the whole number {quoted(digits)} in {row(k)} does not fit into "
                "64 bits: count the steps from 0"
            )
        numbers.append(number)
    return pd.Series(numbers, text.index, dtype="int64")


def _read_dates(text: pd.Series) -> pd.Series:
    """Read dates in any form that means one thing only; what cannot be read is left empty."""
    utc = _WITH_OFFSET.fullmatch(str(text.iloc[0])) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns where it would have to guess value by value
        for form, as_utc in ((None, utc), ("ISO8601", utc), ("ISO8601", True)):
            with suppress(ValueError, OverflowError, UserWarning):
                times = pd.to_datetime(text, errors="coerce", format=form, utc=as_utc)
                break
        else:
            return pd.Series(pd.NaT, text.index)
    if times.isna().any() and text.map(lambda value: _ISO.fullmatch(value) is not None).all():
        # pandas 2 reads text as nanoseconds, which end in 2262; NumPy has no such end.
        with suppress(ValueError):
            return pd.Series(text.to_numpy("datetime64[us]"), text.index)
    return times


def _read_day_and_month(
    text: pd.Series, first: re.Match[str], column: str, row: Callable[[int], str]
) -> pd.Series:
    """Read 13/02/2024 and the like; refuse when day and month cannot be told apart."""
    mark, year, clock = first[1], "%Y" if len(first[2]) == 4 else "%y", first[3]
    clock = "" if not clock else " %H:%M" if clock.count(":") == 1 else " %H:%M:%S"
    orders = ["%d{0}%m{0}"] if mark == "." else ["%d{0}%m{0}", "%m{0}%d{0}"]
    readings = [
        pd.to_datetime(text, format=order.format(mark) + year + clock, errors="coerce")
        for order in orders
    ]
    whole = [times for times in readings if times.notna().all()]
    if len(whole) == 2 and not whole[0].equals(whole[1]):
        raise UserError(
            f"column {column}: {quoted(text.iloc[0])} and the like can be read with the day or the "
            "month first: write them as YYYY-MM-DD"
        )
    best = whole[0] if whole else max(readings, key=lambda times: times.notna().sum())
    return _all_read(best, text, column, row)


def _all_read(
    times: pd.Series, text: pd.Series, column: str, row: Callable[[int], str]
) -> pd.Series:
    """Refuse empty times and those outside the calendar; bring the others to microseconds.

    Nanoseconds end in 2262, and are kept only where a time needs them.
    """
    _raise_unread(times.isna().to_numpy(), text, column, row)
    beyond = ((times.dt.year < 1) | (times.dt.year > 9999)).to_numpy().nonzero()[0]
    if len(beyond):
        raise UserError(
            f"column {column}: {quoted(times.iloc[beyond[0]])} in {row(beyond[0])} is not between "
            "the years 1 and 9999: correct it, or count steps by whole numbers"
        )
    return times if (times.dt.nanosecond != 0).any() else times.dt.as_unit("us")


def _raise_unread(
    failed: np.ndarray, text: pd.Series, column: str, row: Callable[[int], str]
) -> None:
    if failed.any():
        first = int(failed.argmax())
        more = f" and {failed.sum() - 1} more" if failed.sum() > 1 else ""
        raise UserError(
            f"column {column}: cannot read {quoted(text.iloc[first])} in {row(first)}{more} "
            "as a date or whole number: write dates as YYYY-MM-DD or YYYY-MM-DD HH:MM"
        )
