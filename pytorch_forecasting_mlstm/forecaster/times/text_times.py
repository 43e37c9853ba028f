"""Read times from text."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

from ..errors import InputError, quoted

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", re.ASCII)
_DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}([./-])\d{1,2}[./-](\d{4}|\d{2})(.*)")
_OFFSET = r"(?<=[:T \d]\d)(\s?(?:Z|UTC|GMT)|[+-]\d\d(?::?\d\d)?)$"
_HAS_CLOCK = r"\d[T ]\s*\d\d?:?\d\d"
_QUARTER = r"(?P<year>\d{4})[ -]?[Qq](?P<quarter>[1-4])"
_QUARTER_FIRST = r"[Qq](?P<quarter>[1-4])[ /-]?(?P<year>\d{4})"
_WEEK = r"(?P<year>\d{4})-?W(?P<week>\d\d)(?:-?(?P<day>[1-7]))?"
_MONTHS = {
    r"\d{4}-\d\d?": "%Y-%m",
    r"\d{4}/\d\d?": "%Y/%m",
    r"\d{4}\.\d\d": "%Y.%m",
    r"\d\d?/\d{4}": "%m/%Y",
    r"\d\d?\.\d{4}": "%m.%Y",
    r"\d\d?-\d{4}": "%m-%Y",
    r"[A-Za-z]{3} \d{4}": "%b %Y",
    r"[A-Za-z]{3}-\d{4}": "%b-%Y",
    r"[A-Za-z]+ \d{4}": "%B %Y",
    r"\d{4} [A-Za-z]{3}": "%Y %b",
    r"\d{4}-[A-Za-z]{3}": "%Y-%b",
}
#: Formats of times written in digits alone, by their number of digits.
DIGITS = {8: "%Y%m%d", 6: "%Y%m", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_YEARS = (1900, 2100)  # of times in 6, 12 or 14 digits; others count steps


@dataclass(frozen=True)
class TextTimes:
    """Times read from text.

    Attributes
    ----------
    times
        (N,) by the clock that is written; NaT where the text cannot be read.
    offsets
        (N,) minutes that this clock is ahead of UTC, or None without offsets.
    patterns
        Patterns that the text may have, as in `write_pattern`.
    """

    times: pd.Series
    offsets: np.ndarray | None = None
    patterns: tuple[str, ...] = ()


def parse_digits(text: pd.Series) -> TextTimes | None:
    """Read dates and months written in digits alone; None if the text holds other numbers.

    Eight digits are dates if all are valid. Six digits are months if all are valid and in the years
    from 1900 to 2100.
    """
    lengths = text.str.len().unique()
    if len(lengths) != 1 or lengths[0] not in DIGITS or not text.str.isdigit().all():
        return None
    pattern = DIGITS[lengths[0]]
    times = pd.to_datetime(text, format=pattern, errors="coerce")
    years = times.dt.year
    if times.isna().any() or (lengths[0] != 8 and not years.between(*_YEARS).all()):
        return None
    return TextTimes(times, None, (pattern,))


def parse_text(text: pd.Series, name: str) -> TextTimes:
    """Read dates, times of day with or without an offset, months, quarters and ISO weeks.

    Parameters
    ----------
    text : pandas.Series
        Stripped text, not empty, indexed by row from 0.
    name : str
        The column in messages.

    Raises
    ------
    InputError
        If the text can be read in two ways.
    """
    for read in (_read_quarters, _read_weeks, _read_months):
        result = read(text)
        if result is not None:
            return result
    has_clock = text.str.contains(_HAS_CLOCK, regex=True)
    ends = text.str.extract(_OFFSET, expand=False).where(has_clock)
    with_offset = ends.notna().to_numpy()
    offsets = None
    if with_offset.any():
        if not with_offset.all():
            row, other = int((~with_offset).argmax()), int(with_offset.argmax())
            raise InputError(
                f"column {name}: {quoted(text.iloc[row])} in row {text.index[row] + 1} has no "
                f"offset from UTC, but {quoted(text.iloc[other])} in row {text.index[other] + 1} "
                "has one: write all times alike"
            )
        text = text.str.replace(_OFFSET, "", regex=True)
        offsets = ends.map({end: _minutes(end) for end in ends.unique()}).to_numpy(float)
    first = _DAY_OR_MONTH_FIRST.fullmatch(str(text.iloc[0]))
    patterns: tuple[str, ...] = ()
    if first:
        times, pattern = _read_day_and_month(text, first, name)
        patterns = (pattern, pattern.replace("%d", "%-d").replace("%m", "%-m"))
    else:
        times = _read_dates(text)
    if offsets is not None:
        times = times.mask(np.isnan(offsets))
        offsets = np.nan_to_num(offsets).astype(int)
    return TextTimes(times, offsets, patterns)


def _minutes(end: str) -> float:
    """Return the minutes of an offset such as +02:00; NaN if it is longer than a day."""
    if end.strip() in ("Z", "UTC", "GMT"):
        return 0.0
    hours, minutes = int(end[1:3]), int(end[-2:]) if len(end) > 3 else 0
    if hours > 23 or minutes > 59:
        return np.nan
    return (60.0 * hours + minutes) * (-1 if end[0] == "-" else 1)


def _read_quarters(text: pd.Series) -> TextTimes | None:
    for expression in (_QUARTER, _QUARTER_FIRST):
        if text.str.fullmatch(expression).all():
            parts = text.str.extract(expression)
            months = 12 * (parts["year"].astype(int) - 1970) + 3 * parts["quarter"].astype(int) - 3
            times = months.to_numpy().astype("datetime64[M]").astype("datetime64[us]")
            return TextTimes(pd.Series(times, text.index))
    return None


def _read_weeks(text: pd.Series) -> TextTimes | None:
    if not text.str.fullmatch(_WEEK).all():
        return None
    parts = text.str.extract(_WEEK)
    years, weeks = parts["year"].astype(int), parts["week"].astype(int)
    fourth = (years - 1970).to_numpy().astype("datetime64[Y]").astype("datetime64[D]") + 3
    monday = (
        fourth - (fourth.astype(int) + 3) % 7
    )  # of the week with January 4; 1970 began Thursday
    days = parts["day"].fillna("1").astype(int).to_numpy()
    times = pd.Series((monday + 7 * (weeks.to_numpy() - 1) + days - 1).astype("datetime64[us]"))
    times.index = text.index
    # A year has week 53 only if its last Thursday falls into it.
    iso = times.dt.isocalendar()
    valid = (iso["year"] == years) & (iso["week"] == weeks)
    return TextTimes(times.where(valid.astype(bool)))


def _read_months(text: pd.Series) -> TextTimes | None:
    for expression, pattern in _MONTHS.items():
        if text.str.fullmatch(expression).all():
            times = pd.to_datetime(text, format=pattern, errors="coerce")
            return TextTimes(times, None, (pattern, pattern.replace("%m", "%-m")))
    return None


def _read_dates(text: pd.Series) -> pd.Series:
    """Read dates in any unambiguous format; unreadable values become NaT."""
    times = pd.Series(pd.NaT, text.index, dtype="datetime64[us]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns if it has to guess the format of each value
        for date_format in (None, "ISO8601"):
            with suppress(ValueError, OverflowError, UserWarning):
                parsed = pd.to_datetime(text, errors="coerce", format=date_format)
                # pandas 2 returns a column of objects for mixed time zones
                if types.is_datetime64_dtype(parsed.dtype):
                    times = parsed
                    if times.notna().all():
                        break
    if times.isna().any() and text.map(lambda value: _ISO.fullmatch(value) is not None).all():
        # pandas 2 reads text as nanoseconds, which end in 2262; NumPy can read microseconds.
        with suppress(ValueError):
            return pd.Series(text.to_numpy("datetime64[us]"), text.index)
    return times


def _read_day_and_month(text: pd.Series, first: re.Match[str], name: str) -> tuple[pd.Series, str]:
    """Read 13/02/2024 and the like; raise an error if day and month cannot be told apart."""
    separator, year, clock = first[1], "%Y" if len(first[2]) == 4 else "%y", first[3]
    between = "T" if clock.startswith("T") else ", " if clock.startswith(", ") else " "
    half = " %p" if clock[-2:].upper() in ("AM", "PM") else ""
    seconds = ("" if clock.count(":") == 1 else ":%S") + (".%f" if "." in clock else "")
    clock = f"{between}{'%I' if half else '%H'}:%M{seconds}{half}" if clock else ""
    orders = ["%d{0}%m{0}"] if separator == "." else ["%d{0}%m{0}", "%m{0}%d{0}"]
    patterns = [order.format(separator) + year + clock for order in orders]
    readings = [pd.to_datetime(text, format=pattern, errors="coerce") for pattern in patterns]
    complete = [number for number, times in enumerate(readings) if times.notna().all()]
    if len(complete) == 2 and not readings[0].equals(readings[1]):
        raise InputError(
            f"column {name}: {quoted(text.iloc[0])} and the like can be read with the day or the "
            "month first: write them as YYYY-MM-DD"
        )
    best = complete[0] if complete else int(np.argmax([t.notna().sum() for t in readings]))
    return readings[best], patterns[best]
