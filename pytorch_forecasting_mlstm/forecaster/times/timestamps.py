"""Read a column of times: dates, stamps with or without a zone, months, quarters or integers."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..errors import Argument, InputError, quoted
from .clock_changes import raise_clock_changes
from .clocks import follow_clock
from .text_times import TextTimes, parse_digits, parse_text
from .time_columns import (
    dtype_name,
    period_starts,
    plain_values,
    read_objects,
    whole_numbers,
    without_zone,
)
from .time_format import TimeFormat
from .time_patterns import learn_pattern
from .time_zones import read_zone, to_wall

_INTEGER = re.compile(r"([+-]?\d+)(\.0+)?")
_MAX_LENGTH = 100  # characters of a time: patterns and parsers may take forever on longer text


def read_times(
    column: pd.Series, timezone: str | None = None, series: np.ndarray | None = None
) -> tuple[pd.Series, TimeFormat]:
    """Convert a column to 64-bit integers or timestamps, and learn to write it back.

    Times with a zone are returned by the local clock if they are evenly spaced by it, as days and
    months are, and in UTC otherwise. Eight digits are dates if all are valid dates; six digits are
    months if all are valid months from 1900 to 2100. Other whole numbers count steps.

    Parameters
    ----------
    column : pandas.Series
        Text, numbers, timestamps, dates, periods or categories of these, indexed from 0. Its name
        appears in messages.
    timezone : str, optional
        Zone whose clock the times follow, such as "Europe/Berlin". Times that have a zone or an
        offset of their own keep it in the output; days are then those of `timezone`.
    series : numpy.ndarray, optional
        (rows,) number of the series of each row. The order of its rows tells the two hours apart
        that have one name in autumn. Default: one series.

    Returns
    -------
    pandas.Series
        (rows,) int64, or datetime64 without a zone in microseconds, or in nanoseconds if needed.
    TimeFormat
        Writes such times as the column does.

    Raises
    ------
    InputError
        If a value cannot be read or can be read in two ways, if a clock change skips it, or if the
        times look like local times over a clock change and no zone is known.

    Examples
    --------
    >>> days = pd.Series(pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin"), name="day")
    >>> times, form = read_times(days)
    >>> times.iloc[-1], form.write(times + pd.Timedelta(days=1)).iloc[-1]
    (Timestamp('2024-04-01 00:00:00'), Timestamp('2024-04-02 00:00:00+0200', tz='Europe/Berlin'))
    """
    name = quoted(column.name)
    if timezone is not None:
        read_zone(timezone)
    if series is None:
        series = np.zeros(len(column), dtype=int)
    values = plain_values(column)
    _raise_unreadable(values.isna().to_numpy(), values, name)
    form: dict[str, Any] = {"dtype": dtype_name(column), "name": column.name}
    if isinstance(values.dtype, pd.PeriodDtype):
        form["kind"], stamps = "periods", period_starts(values)
    elif types.is_datetime64_any_dtype(values.dtype):
        form["kind"] = "timestamps"
        stamps, form["zone"] = without_zone(pd.DatetimeIndex(values))
    elif (objects := read_objects(values)) is not None:
        form["kind"], stamps, form["zone"] = objects
    else:
        numbers = whole_numbers(values)
        raw = (values if numbers is None else numbers).astype(str).astype(object)
        codes, rows = _first_rows(raw)
        texts = raw.iloc[rows]
        unique = texts.str.strip()
        too_long = (unique.str.len() > _MAX_LENGTH).to_numpy()
        _raise_unreadable(too_long[codes], raw, name)
        parsed = parse_digits(unique)
        if parsed is None:
            if unique.map(lambda value: _INTEGER.fullmatch(value) is not None).all():
                pattern = _integer_pattern(texts, name) if numbers is None else None
                times = _read_integers(unique, name).iloc[codes].set_axis(column.index)
                return times, TimeFormat("integers", pattern=pattern, **form)
            if types.is_float_dtype(values.dtype):
                _raise_unreadable(np.ones(len(values), dtype=bool), raw, name)
            parsed = parse_text(unique, name)
        times = parsed.times.iloc[codes].reset_index(drop=True)
        _raise_unreadable(times.isna().to_numpy(), raw, name)
        form["kind"] = "text" if numbers is None else "digits"
        stamps = _finish_text(texts, parsed, form, timezone, name)[codes]
    _raise_out_of_range(stamps, values, name)
    clock = timezone or form.get("zone")
    if clock is not None:
        stamps, clock_form = follow_clock(stamps, form.get("zone"), clock, series, name)
        form |= clock_form
    times = pd.Series(stamps, column.index, name=column.name)
    if (times.dt.nanosecond == 0).all():
        times = times.dt.as_unit("us")
    if clock is None:
        raise_clock_changes(times, series, name)
    return times, TimeFormat(**form)


def _first_rows(text: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the value of each row, and the first row of each value."""
    codes, _ = pd.factorize(text)
    return codes, np.unique(codes, return_index=True)[1]


def _integer_pattern(texts: pd.Series, name: str) -> str:
    """Return the width and the end of whole numbers written as text."""
    first = _INTEGER.fullmatch(str(texts.iloc[0]).strip())
    end = (first and first[2]) or ""
    for width in (0, len(texts.iloc[0]) - len(end)):
        if [f"{int(t.split('.')[0]):0{width}d}{end}" for t in texts] == texts.tolist():
            return f"{width}|{end}"
    _warn_mixed(name, f"{int(texts.iloc[0].split('.')[0])}")
    return "0|"


def _read_integers(texts: pd.Series, name: str) -> pd.Series:
    bounds = np.iinfo(np.int64)
    numbers = []
    for row, digits in texts.str.replace(r"\.0+$", "", regex=True).items():
        number = int(digits)
        if not bounds.min <= number <= bounds.max:
            raise InputError(
                f"column {name}: the whole number {quoted(digits)} in row {row + 1} does not fit "
                "into 64 bits: count the steps from 0"
            )
        numbers.append(number)
    return pd.Series(numbers, texts.index, dtype="int64")


def _finish_text(
    texts: pd.Series, parsed: TextTimes, form: dict[str, Any], timezone: str | None, name: str
) -> pd.DatetimeIndex:
    """Learn the pattern and the zone of text; return its times, in UTC if it has offsets."""
    walls = pd.DatetimeIndex(parsed.times)
    offsets = np.zeros(len(walls), dtype=int) if parsed.offsets is None else parsed.offsets
    pattern = learn_pattern(texts.tolist(), walls, offsets, parsed.patterns)
    if pattern is None:
        pattern = learn_pattern(texts.tolist()[:1], walls[:1], offsets[:1], parsed.patterns)
        pattern = pattern or "%Y-%m-%d %H:%M:%S" + ("" if parsed.offsets is None else "%:z")
        _warn_mixed(name, texts.iloc[0])
    form["pattern"] = pattern
    if parsed.offsets is None:
        return walls
    instants = walls - pd.to_timedelta(offsets, unit="min")
    form["zone"] = _zone_of_offsets(walls, instants, offsets, pattern, timezone, name)
    return instants


def _zone_of_offsets(
    walls: pd.DatetimeIndex,
    instants: pd.DatetimeIndex,
    offsets: np.ndarray,
    pattern: str,
    timezone: str | None,
    name: str,
) -> str:
    """Return the zone in which to write text with offsets."""
    if "z" not in pattern:
        return "UTC"  # Z, UTC or GMT
    if timezone is not None and to_wall(instants, read_zone(timezone)).equals(walls):
        return timezone
    unique = np.unique(offsets)
    if len(unique) == 1:
        hours, minutes = divmod(abs(int(unique[0])), 60)
        return (
            f"UTC{'-' if unique[0] < 0 else '+'}{hours:02d}:{minutes:02d}" if unique[0] else "UTC"
        )
    if timezone is None and len((walls - walls.normalize()).unique()) == 1:
        raise InputError(
            f"column {name}: the offset from UTC changes, as with summer time: give the zone of "
            "the times as ",
            Argument("timezone"),
            ', such as "Europe/Berlin"',
        )
    warnings.warn(
        f"column {name} has several offsets from UTC, so that the forecast is written in UTC: give "
        'the zone of the times, such as timezone="Europe/Berlin", to have it in local time',
        stacklevel=4,
    )
    return "UTC"


def _warn_mixed(name: str, example: str) -> None:
    warnings.warn(
        f"column {name} writes times in several ways, so that the forecast, written like "
        f"{quoted(example)}, may not match its rows: write all times alike",
        stacklevel=4,
    )


def _raise_out_of_range(stamps: pd.DatetimeIndex, values: pd.Series, name: str) -> None:
    beyond = ((stamps.year < 1) | (stamps.year > 9999)).nonzero()[0]
    if len(beyond):
        raise InputError(
            f"column {name}: {quoted(values.iloc[beyond[0]])} in row {beyond[0] + 1} is not "
            "between the years 1 and 9999: correct it, or count steps by whole numbers"
        )


def _raise_unreadable(failed: np.ndarray, text: pd.Series, name: str) -> None:
    if failed.any():
        first = int(failed.argmax())
        more = f" and {failed.sum() - 1} more" if failed.sum() > 1 else ""
        raise InputError(
            f"column {name}: cannot read {quoted(text.iloc[first])} in row {first + 1}{more} "
            "as a date or whole number: write dates as YYYY-MM-DD or YYYY-MM-DD HH:MM"
        )
