"""Read a column of times: dates, dates with a time of day, or whole numbers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import pandas as pd
from pandas.api import types

from .errors import UserError

_WHOLE = re.compile(r"[+-]?\d+(\.0+)?")
_DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}([./-])\d{1,2}[./-](\d{4}|\d{2})(.*)")
_WITH_OFFSET = re.compile(r".*\d:\d\d.*(Z|[+-]\d\d:?\d\d)")


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
    column = repr(raw.name)
    if types.is_datetime64_any_dtype(raw.dtype):
        times = raw.dt.tz_convert("UTC") if raw.dt.tz is not None else raw
        return _all_read(times, raw.astype(str), column, row)
    text = raw.astype(str).str.strip()
    if text.map(lambda value: _WHOLE.fullmatch(value) is not None).all():
        days = pd.to_datetime(text, format="%Y%m%d", errors="coerce")
        if text.str.fullmatch(r"\d{8}").all() and days.notna().all():
            return days
        return text.str.replace(r"\.0+$", "", regex=True).astype("int64")
    slashed = _DAY_OR_MONTH_FIRST.fullmatch(str(text.iloc[0]))
    if slashed:
        return _read_day_and_month(text, slashed, column, row)
    utc = _WITH_OFFSET.fullmatch(str(text.iloc[0])) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns where it would have to guess value by value
        try:
            times = pd.to_datetime(text, errors="coerce", utc=utc)
        except (ValueError, UserWarning):
            times = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
    return _all_read(times, text, column, row)


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
            f"column {column}: {text.iloc[0]!r} and the like can be read with the day or the "
            "month first: write them as YYYY-MM-DD"
        )
    best = whole[0] if whole else max(readings, key=lambda times: times.notna().sum())
    return _all_read(best, text, column, row)


def _all_read(
    times: pd.Series, text: pd.Series, column: str, row: Callable[[int], str]
) -> pd.Series:
    failed = times.isna().to_numpy().nonzero()[0]
    if len(failed):
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise UserError(
            f"column {column}: cannot read {str(text.iloc[failed[0]])!r} in {row(failed[0])}{more} "
            "as a date or whole number: write dates as YYYY-MM-DD or YYYY-MM-DD HH:MM"
        )
    return times
