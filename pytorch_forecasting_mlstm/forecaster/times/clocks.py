"""Choose the clock by which times are evenly spaced: the local one, or UTC."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

import numpy as np
import pandas as pd

from .time_zones import SHIFTS, is_fixed, localize_in_order, read_zone, to_instants, to_wall

_HOUR, _DAY = 3600 * 10**6, 86_400 * 10**6  # microseconds


def follow_clock(
    stamps: pd.DatetimeIndex, zone: str | None, clock: str, series: np.ndarray, name: str
) -> tuple[pd.DatetimeIndex, dict[str, Any]]:
    """Return times by the local clock if they are evenly spaced by it, in UTC otherwise.

    Parameters
    ----------
    stamps : pandas.DatetimeIndex
        (rows,) without a zone: in UTC if the column has a zone, by the clock of `clock` otherwise.
    zone : str, optional
        Zone of the column.
    clock : str
        Zone whose clock the times follow.
    series : numpy.ndarray
        (rows,) number of the series of each row.
    name : str
        The column in messages.

    Returns
    -------
    pandas.DatetimeIndex
        (rows,) without a zone.
    dict
        Values of `TimeFormat` for the clock.
    """
    place = read_zone(clock)
    form = {"clock": clock, "local": True, "summer": True, "shift": "to the change"}
    if zone is None:
        if len((stamps - stamps.normalize()).unique()) == 1:
            return stamps, form  # days and months: no hours to tell apart
        stamps = localize_in_order(pd.Series(stamps), place, series, name)
    codes, unique = pd.factorize(stamps)
    found = find_even_clock(pd.DatetimeIndex(unique), place, naive=zone is None)
    if found is None:
        return stamps, {**form, "local": False}
    walls, form["summer"], form["shift"] = found
    return walls.take(codes), form


def find_even_clock(
    instants: pd.DatetimeIndex, zone: tzinfo, naive: bool = False
) -> tuple[pd.DatetimeIndex, bool, str] | None:
    """Return the times by the clock of `zone` if they are evenly spaced by it, else None.

    Days are even by the local clock, while hours are even in UTC.

    Parameters
    ----------
    instants : pandas.DatetimeIndex
        Times in UTC, without a zone.
    zone : datetime.tzinfo
        The zone.
    naive : bool, default False
        Whether the times came by the local clock.

    Returns
    -------
    tuple, optional
        The times by the local clock, and the arguments `summer` and `shift` of `to_instants` that
        give back the instants.
    """
    walls = to_wall(instants, zone)
    if is_fixed(zone):
        return walls, True, "to the change"
    clocks = walls - walls.normalize()
    counts = clocks.value_counts()
    # Where midnight is skipped, a day begins at one o'clock.
    shared = walls.normalize() + counts.index[0]
    if 2 * counts.iloc[0] > len(walls):
        for shift in SHIFTS:
            for summer in (True, False):
                if to_instants(shared, zone, summer=summer, shift=shift).equals(instants):
                    return shared, summer, shift
    if not _is_even(walls, instants, naive):
        return None
    for summer in (True, False):
        if to_instants(walls, zone, summer=summer).equals(instants):
            return walls, summer, "to the change"
    return None


def _is_even(walls: pd.DatetimeIndex, instants: pd.DatetimeIndex, naive: bool) -> bool:
    """Whether steps of several hours follow the local clock rather than UTC."""
    local, utc = _common_step(walls), _common_step(instants)
    if local != utc:
        return local > utc
    if local <= _HOUR or _DAY % local:
        return False
    by_wall, by_utc = (
        bool((times.as_unit("us").asi8 % local == 0).all()) for times in (walls, instants)
    )
    return by_wall and (naive or not by_utc)


def _common_step(times: pd.DatetimeIndex) -> int:
    """Return the greatest common divisor of the distances, in microseconds."""
    return int(np.gcd.reduce(np.diff(np.unique(times.as_unit("us").asi8)))) if len(times) else 0
