"""Recognize local times over a clock change, whose zone the table does not say."""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from ..errors import Argument, InputError

_HOUR = 3600 * 10**6  # microseconds
_MAX_TIMES = 200  # that are repeated or follow a gap, to compare with clock changes
#: One zone, or two, for each way of changing the clock that is or was common.
_ZONES = (
    "Europe/Berlin",
    "Europe/London",
    "Europe/Helsinki",
    "America/New_York",
    "America/Chicago",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Havana",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Africa/Cairo",
    "Asia/Jerusalem",
    "Asia/Tehran",
    "Asia/Beirut",
)


def raise_clock_changes(times: pd.Series, series: np.ndarray, name: str) -> None:
    """Raise an error if times without a zone repeat or skip the hour of a clock change.

    A repeated hour counts if at least half of all repeated times agree with one zone; a missing
    hour if at least half of the gaps of the table do.

    Parameters
    ----------
    times : pandas.Series
        (rows,) timestamps without a zone.
    series : numpy.ndarray
        (rows,) number of the series of each row.
    name : str
        The column in messages.

    Raises
    ------
    InputError
        If the times look like local times with summer time.
    """
    values = times.dt.as_unit("us").to_numpy().view(np.int64)
    order = np.lexsort((values, series))
    values, same = values[order], np.diff(series[order]) == 0
    steps = np.diff(values)[same]
    positive = steps[steps > 0]
    if not len(positive):
        return
    lengths, counts = np.unique(positive, return_counts=True)
    step = int(lengths[counts.argmax()])
    if step > _HOUR:
        return  # a clock change does not make a gap
    is_last = np.append(same, False)
    following = np.append(values[1:], 0)
    repeated = np.unique(values[is_last & (following == values)])
    before = is_last & (following > values + step)
    gaps = np.unique(np.stack([values[before], following[before]], axis=1), axis=0)
    if len(repeated):
        for zone in _zones():
            twice = [time for time in repeated[:_MAX_TIMES] if _occurs_twice(time, zone)]
            if 2 * len(twice) >= min(len(repeated), _MAX_TIMES):
                _raise(f"{_stamp(twice[0])} occurs twice in a series", zone, name)
    # Without the clock change, the clock would have gone on by one step.
    short = gaps[gaps[:, 1] - gaps[:, 0] <= step + _HOUR]
    if 0 < len(gaps) <= 2 * len(short) and len(short) <= _MAX_TIMES:
        for zone in _zones():
            skipped = [gap[0] + step for gap in short if _is_skipped(gap, step, zone)]
            if 2 * len(skipped) >= len(gaps) and not _skips_any(values, zone):
                _raise(f"there is no row for {_stamp(skipped[0])}", zone, name)


def _raise(found: str, zone: ZoneInfo, name: str) -> None:
    raise InputError(
        f"column {name}: {found}, when summer time changes the clock in {zone.key} and elsewhere: "
        "give the zone of local times as ",
        Argument("timezone"),
        ', such as "Europe/Berlin", or "UTC" if they are not local',
    )


def _zones() -> Iterator[ZoneInfo]:
    for name in _ZONES:
        try:
            yield ZoneInfo(name)
        except ZoneInfoNotFoundError:  # a system without this zone
            continue


def _stamp(time: int) -> pd.Timestamp:
    return pd.DatetimeIndex(np.array([time]).view("datetime64[us]"))[0]


def _utc_offset(time: int, zone: ZoneInfo, fold: int) -> float:
    wall = _stamp(time).to_pydatetime().replace(tzinfo=zone, fold=fold)
    return wall.utcoffset().total_seconds()


def _occurs_twice(time: int, zone: ZoneInfo) -> bool:
    return _utc_offset(time, zone, 0) > _utc_offset(time, zone, 1)


def _is_skipped(gap: np.ndarray, step: int, zone: ZoneInfo) -> bool:
    """Whether the times of the gap are just those that the zone's clock skips."""
    before, after = gap.tolist()
    missing = range(before + step, after, step)
    return all(_does_not_exist(time, zone) for time in missing) and not (
        _does_not_exist(before, zone) or _does_not_exist(after, zone)
    )


def _does_not_exist(time: int, zone: ZoneInfo) -> bool:
    return _utc_offset(time, zone, 0) < _utc_offset(time, zone, 1)


def _skips_any(values: np.ndarray, zone: ZoneInfo) -> bool:
    """Whether the zone's clock skips any of the times, so that they are not of this zone."""
    times = pd.DatetimeIndex(np.unique(values).view("datetime64[us]"))
    ambiguous = np.ones(len(times), dtype=bool)
    return bool(times.tz_localize(zone, ambiguous=ambiguous, nonexistent="NaT").isna().any())
