"""Time zones: their names, and times by their clocks over clock changes."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from dateutil.tz import gettz as dateutil_zone

from ..errors import Argument, InputError, quoted

_FIXED = re.compile(r"(?:UTC)?([+-])(\d\d):(\d\d)(?::(\d\d))?")
# Types of pandas differ by the library of their zone.
_PYTZ, _DATEUTIL = _LIBRARIES = ("pytz/", "dateutil/")
#: What to do with a wall clock that a clock change skips: stay on its first moment, or add an hour.
SHIFTS: dict[str, Any] = {"to the change": "shift_forward", "by an hour": pd.Timedelta(hours=1)}


def read_zone(name: str) -> tzinfo:
    """Return the zone of a name such as "Europe/Berlin" or "+02:00".

    Raises
    ------
    InputError
        If there is no such zone.
    """
    if not isinstance(name, str):
        raise InputError(
            Argument("timezone"),
            f" must be the name of a time zone, got {name!r}: write it as Europe/Berlin, UTC or "
            "+02:00",
        )
    fixed = _FIXED.fullmatch(name)
    try:
        if fixed:
            hours, minutes, seconds = (int(part or 0) for part in fixed.groups()[1:])
            distance = timedelta(hours=hours, minutes=minutes, seconds=seconds)
            return timezone(-distance if fixed[1] == "-" else distance)
        if name == "UTC":
            return timezone.utc
        library = next((prefix for prefix in _LIBRARIES if name.startswith(prefix)), "")
        zone = ZoneInfo(name.removeprefix(library))  # refuses paths
        return _of_library(library, zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            Argument("timezone"),
            f" {quoted(name)} is not a time zone: write it as Europe/Berlin, UTC or +02:00",
        ) from error


def _of_library(library: str, zone: ZoneInfo) -> tzinfo:
    """Return the same zone of pytz or dateutil; as it is where the library is missing."""
    if library == _DATEUTIL:
        return dateutil_zone(zone.key) or zone
    if library == _PYTZ:
        with suppress(ImportError):  # pandas 3 does without it
            import pytz

            return pytz.timezone(zone.key)
    return zone


def zone_name(zone: tzinfo) -> str:
    """Return a name for `read_zone`, for zones of the standard library, pytz and dateutil."""
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        return zone.key
    if isinstance(name := getattr(zone, "zone", None), str):
        return name if name == "UTC" else f"{_PYTZ}{name}"
    if isinstance(path := getattr(zone, "_filename", None), str):
        return _DATEUTIL + path.rpartition("zoneinfo/")[2]
    offset = zone.utcoffset(None)
    if offset is None:
        raise InputError(
            f"the time zone {quoted(zone)} has no name: convert the times to one such as "
            "Europe/Berlin or UTC"
        )
    if not offset:
        return "UTC"
    minutes, seconds = divmod(int(abs(offset).total_seconds()), 60)
    text = f"UTC{'-' if offset < timedelta(0) else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{text}:{seconds:02d}" if seconds else text


def is_fixed(zone: tzinfo) -> bool:
    """Whether a zone is a constant offset from UTC."""
    return zone.utcoffset(None) is not None


def to_wall(instants: pd.DatetimeIndex, zone: tzinfo) -> pd.DatetimeIndex:
    """Return times without a zone by the clock of `zone`, from times in UTC without a zone."""
    return instants.tz_localize("UTC").tz_convert(zone).tz_localize(None)


def to_instants(
    walls: pd.DatetimeIndex, zone: tzinfo, *, summer: Any = True, shift: str = "to the change"
) -> pd.DatetimeIndex:
    """Return times in UTC, without a zone, from times by the clock of `zone`.

    Parameters
    ----------
    walls : pandas.DatetimeIndex
        Times by the clock of `zone`, without a zone.
    zone : datetime.tzinfo
        The zone.
    summer : bool or numpy.ndarray, default True
        Whether a time that occurs twice in autumn is the first one.
    shift : str, default "to the change"
        A key of `SHIFTS`: what becomes of times that a clock change skips. "NaT" makes them NaT.
    """
    first = np.broadcast_to(summer, len(walls))
    aware = walls.tz_localize(zone, ambiguous=first, nonexistent=SHIFTS.get(shift, shift))
    return aware.tz_convert("UTC").tz_localize(None)


def localize_in_order(
    walls: pd.Series, zone: tzinfo, series: np.ndarray, name: str
) -> pd.DatetimeIndex:
    """Return times in UTC, without a zone; the repeated hour of autumn follows from the order.

    Parameters
    ----------
    walls : pandas.Series
        Times by the clock of `zone`.
    zone : datetime.tzinfo
        The zone.
    series : numpy.ndarray
        Number of the series of each row.
    name : str
        The column in messages.

    Raises
    ------
    InputError
        If a clock change skips a time, or rows of the repeated hour are not in order of time.
    """
    index = pd.DatetimeIndex(walls)
    first = to_instants(index, zone, summer=True, shift="NaT")
    if first.isna().any():
        row = int(first.isna().argmax())
        raise InputError(
            f"column {name}: {index[row]} in row {row + 1} does not exist in {zone_name(zone)}, "
            "where the clock skips it: correct the time, or choose another ",
            Argument("timezone"),
        )
    second = to_instants(index, zone, summer=False)
    twice = np.asarray(first != second)
    if not twice.any():
        return first
    table = pd.DataFrame({"series": series, "wall": index, "row": np.arange(len(index))})
    is_second = np.zeros(len(index), dtype=bool)
    affected = table["series"].isin(table["series"][twice])
    for _, rows in table[affected].groupby("series", sort=False):
        numbers = rows["row"].to_numpy()
        if rows["wall"].iloc[-1] < rows["wall"].iloc[0]:
            numbers = numbers[::-1]  # newest first
        is_second[numbers] = _occurs_again(index.asi8[numbers], twice[numbers], numbers, name)
    return pd.DatetimeIndex(np.where(is_second, second, first))


def _occurs_again(walls: np.ndarray, twice: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """Whether each time of one series is the second of its kind, by the order of the rows."""
    repeats = pd.Series(walls).duplicated().to_numpy()
    again = repeats & twice
    # In order of time, the clock runs back where the second hour begins.
    latest = np.maximum.accumulate(walls)
    single = twice & ~pd.Series(walls).duplicated(keep=False).to_numpy()
    unordered = (~twice & (walls < latest)).any()
    if not unordered:
        again |= single & (walls < latest)
    elif again.any():
        row = rows[np.flatnonzero(again)[0]]
        raise InputError(
            f"column {name}: row {row + 1} repeats an hour of autumn, and the rows are not in "
            "order of time: sort them by time, or write times in UTC or with their offset"
        )
    return again
