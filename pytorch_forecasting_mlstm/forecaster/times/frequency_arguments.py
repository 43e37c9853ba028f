"""Read the arguments `frequency` and `holidays`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import frequencies, offsets

from ..errors import Argument, InputError, quoted
from .timestamps import read_times

_YEARS_AHEAD = 20  # of a country's holidays after the last time, for forecasts
_RULES = (
    offsets.BusinessDay,
    offsets.BusinessHour,
    offsets.MonthBegin,
    offsets.MonthEnd,
    offsets.BMonthBegin,
    offsets.BMonthEnd,
    offsets.QuarterBegin,
    offsets.QuarterEnd,
    offsets.BQuarterBegin,
    offsets.BQuarterEnd,
    offsets.YearBegin,
    offsets.YearEnd,
    offsets.BYearBegin,
    offsets.BYearEnd,
    offsets.Week,
    offsets.WeekOfMonth,
    offsets.LastWeekOfMonth,
)
_EXAMPLES = "use for example D, B, W-SUN, MS, QS, h or 15min"


def read_frequency(frequency: Any, is_integer: bool) -> tuple[Any, str | None, tuple[str, ...]]:
    """Return the step, the open days of the week, and the holidays that a frequency names.

    Parameters
    ----------
    frequency : str, int, timedelta or pandas.DateOffset
        An alias of pandas, a distance, or a whole number for times that are whole numbers.
    is_integer : bool
        Whether the times are whole numbers.

    Raises
    ------
    InputError
        If it is none of these, or does not suit the times.
    """
    if isinstance(frequency, str) and is_integer and frequency.strip().isdigit():
        frequency = int(frequency)
    is_number = isinstance(frequency, int | np.integer) and not isinstance(
        frequency, bool | np.timedelta64
    )
    if is_integer != is_number:
        needed = "a whole number, as the times are" if is_integer else f"for dates: {_EXAMPLES}"
        raise InputError(Argument("frequency"), f" must be {needed}; it is {quoted(frequency)}")
    if is_number:
        _check_positive(int(frequency), frequency)
        return int(frequency), None, ()
    offset = _to_offset(frequency)
    if isinstance(offset, pd.Timedelta):
        _check_positive(int(offset.to_timedelta64().astype(np.int64)), frequency)
        return offset, None, ()
    _check_positive(offset.n, frequency)
    if isinstance(offset, offsets.CDay):
        week = np.busdaycalendar(offset.weekmask).weekmask
        open_days = "".join("1" if is_open else "0" for is_open in week)
        days = tuple(str(np.datetime64(day, "D")) for day in offset.holidays)
        return offsets.BusinessDay(offset.n), open_days, tuple(sorted(days))
    return offset, None, ()


def _to_offset(frequency: Any) -> Any:
    """Return a Timedelta, or an offset of pandas whose steps can be counted."""
    if isinstance(frequency, timedelta | np.timedelta64):
        return pd.Timedelta(frequency)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # old aliases
            offset = frequencies.to_offset(frequency)
    except (ValueError, TypeError, Warning) as error:
        raise InputError(
            Argument("frequency"),
            f" {quoted(frequency)} is not known to this version of pandas: {_EXAMPLES}",
        ) from error
    if type(offset) is pd.DateOffset:
        parts = dict(offset.kwds) or {"days": 1}
        months = 12 * parts.pop("years", 0) + parts.pop("months", 0)
        if months and not parts:
            return pd.DateOffset(months=months * offset.n)
        if not months and set(parts) <= {"weeks", "days", "hours", "minutes", "seconds"}:
            return pd.Timedelta(**parts) * offset.n
    elif isinstance(offset, offsets.Week) and offset.weekday is None:
        return pd.Timedelta(days=7 * offset.n)
    elif isinstance(offset, offsets.Day):
        return pd.Timedelta(days=offset.n)
    elif isinstance(offset, offsets.Tick):
        return pd.Timedelta(offset.nanos, unit="ns")
    elif isinstance(offset, offsets.BusinessHour):
        if offset == offsets.BusinessHour(offset.n):
            return offset
    elif isinstance(offset, _RULES) and offset.freqstr[-3:-2] != "+":
        return offset
    raise InputError(Argument("frequency"), f" {quoted(frequency)} is not supported: {_EXAMPLES}")


def _check_positive(count: int, frequency: Any) -> None:
    if count <= 0:
        raise InputError(Argument("frequency"), f" must be positive; it is {quoted(frequency)}")


def read_holidays(holidays: Any, times: pd.Series) -> tuple[str, ...]:
    """Return holidays as ISO dates, sorted.

    Parameters
    ----------
    holidays : str or iterable
        Dates, or a code of the package `holidays`: a country such as "DE", a part of it such as
        "DE-BY", or a stock exchange such as "NYSE".
    times : pandas.Series
        Timestamps. Holidays of a country reach from the first of them to 20 years after the last.

    Raises
    ------
    InputError
        If a date cannot be read, the code is unknown, or the package is missing.
    """
    if isinstance(holidays, str):
        years = range(times.min().year, min(times.max().year + _YEARS_AHEAD, 9999) + 1)
        return tuple(sorted(day.isoformat() for day in _calendar_of(holidays, years)))
    if not isinstance(holidays, Iterable):
        raise InputError(
            Argument("holidays"),
            f" must be dates or the code of a country such as DE; it is {quoted(holidays)}",
        )
    column = pd.Series(list(holidays), name="holidays")
    if column.empty:
        return ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the form in which times would be written
        days, form = read_times(column)
    if form.kind == "integers":
        raise InputError(
            Argument("holidays"),
            f" must be dates; it has {quoted(column.iloc[0])}: write them as YYYY-MM-DD",
        )
    return tuple(sorted(set(form.local_times(days).strftime("%Y-%m-%d"))))


def _calendar_of(code: str, years: range) -> Iterable[Any]:
    try:
        import holidays as package
    except ImportError as error:
        raise InputError(
            Argument("holidays"),
            f" {quoted(code)} needs the package holidays: run pip install "
            '"pytorch-forecasting-mlstm[holidays]", or list the dates',
        ) from error
    try:
        country, _, part = code.partition("-")
        if country in package.list_supported_countries():
            return package.country_holidays(country, subdiv=part or None, years=years)
        return package.financial_holidays(code, years=years)
    except NotImplementedError as error:
        raise InputError(
            Argument("holidays"),
            f" {quoted(code)} is not a country, a part of one, or a stock exchange that the "
            "package holidays knows: write it as DE, DE-BY or NYSE, or list the dates",
        ) from error
