"""Infer the spacing of times, or report which times are missing or do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import frequencies, offsets

from .errors import Argument, InputError
from .steps import PER_DAY
from .time_axis import TimeAxis, as_integers

_MAX_STEPS_PER_ROW = 20  # with more, the times have no common step
_MAX_INFERRED = 20  # series, the longest, whose spacing pandas infers
_MONTHS = {28: 1, 29: 1, 30: 1, 31: 1, 89: 3, 90: 3, 91: 3, 92: 3, 365: 12, 366: 12}  # by days


def infer_frequency(
    times: pd.Series, series: np.ndarray, label: Callable[[int], str]
) -> tuple[TimeAxis, np.ndarray]:
    """Infer the spacing of `times`, and their positions along it.

    Parameters
    ----------
    times : pandas.Series
        Integers or timestamps, sorted within each series and without duplicates.
    series : numpy.ndarray
        Number of the series that each time belongs to, sorted.
    label : callable
        Function that names a series in messages.

    Raises
    ------
    InputError
        If there is no common spacing, or times are missing.
    """
    is_integer = times.dtype.kind == "i"
    same_series = series[1:] == series[:-1]
    # Unsigned differences cannot overflow, even from one end of 64 bits to the other.
    integers = as_integers(times, "us" if is_integer else times.dt.unit).view(np.uint64)
    steps = np.diff(integers)[same_series]
    if not len(steps):
        hint = (": does ", Argument("group"), " name too many columns?")
        raise InputError(
            f"{label(0)}: a single row is too short to forecast from",
            *(hint if series[-1] else (": add rows",)),
        )
    values, counts = np.unique(steps, return_counts=True)
    most_common = int(values[counts.argmax()])
    candidates = [most_common] if is_integer else _candidates(times, series, steps, most_common)
    fewest_faults = None
    for step in candidates:
        axis, positions = _positions_along(times, step)
        off_axis = positions < 0
        gaps = same_series & (np.diff(positions) != 1)
        faults = int(off_axis.sum() + gaps.sum())
        if fewest_faults is None or faults < fewest_faults:
            fewest_faults, best = faults, (axis, positions, off_axis, gaps)
        if faults == 0:
            break
    axis, positions, off_axis, gaps = best
    if off_axis.any():
        _raise_off_axis(axis, times, series, off_axis, label)
    if gaps.any():
        _raise_gap(axis, positions, series, gaps, label)
    return axis, positions


def _candidates(
    times: pd.Series, series: np.ndarray, steps: np.ndarray, most_common: int
) -> list[Any]:
    """List steps to try: what pandas infers from the longest series, then the most common step."""
    inferred = {}
    _, starts, lengths = np.unique(series, return_index=True, return_counts=True)
    for k in np.argsort(-lengths, kind="stable")[:_MAX_INFERRED]:
        if lengths[k] >= 3:
            alias = frequencies.infer_freq(
                pd.DatetimeIndex(times.iloc[starts[k] : starts[k] + lengths[k]])
            )
            if alias is not None:
                inferred[alias] = frequencies.to_offset(alias)
    candidates = list(inferred.values())
    unit = times.dt.unit
    days, remainder = divmod(most_common, PER_DAY[unit])
    if days in _MONTHS and not remainder:
        months, ends = _MONTHS[days], bool(times.dt.is_month_end.all())
        candidates.append(offsets.MonthEnd(months) if ends else pd.DateOffset(months=months))
        return candidates
    if days == 1 and not remainder and times.dt.dayofweek.max() < 5:
        candidates.append(offsets.BusinessDay())
    if most_common > np.iinfo(np.int64).max:
        raise InputError("the times are too far apart to be counted: add the times between them")
    candidates.append(pd.Timedelta(np.timedelta64(most_common, unit)))
    span = sum(map(int, steps)) / most_common
    if not inferred and span > _MAX_STEPS_PER_ROW * len(times) + 1000:
        raise InputError(
            f"the times have no common step (most often {candidates[-1]}, over {span:,.0f} steps "
            f"for {len(times):,} rows): aggregate them to hours, days or months first"
        )
    return candidates


def _positions_along(times: pd.Series, step: Any) -> tuple[TimeAxis, np.ndarray]:
    """Count `times` along an axis of the given step, from the first time that lies on it."""
    start = times.min()
    try:
        if isinstance(step, int):
            start = int(start)
        elif not isinstance(step, pd.Timedelta):
            start = step.rollforward(start)
        axis = TimeAxis(start, step)
        return axis, axis.positions(times)
    except (OverflowError, pd.errors.OutOfBoundsDatetime) as error:
        raise InputError(
            "the times are too far apart to be counted: forecast the series in separate tables"
        ) from error


def _raise_off_axis(
    axis: TimeAxis,
    times: pd.Series,
    series: np.ndarray,
    off_axis: np.ndarray,
    label: Callable[[int], str],
) -> None:
    first = off_axis.nonzero()[0][0]
    raise InputError(
        f"{label(series[first])}: {times.iloc[first]} does not fit the spacing of the other times "
        f"({axis.name}, from {axis.start}); {off_axis.sum()} such rows: correct them, or bring all "
        "times to one spacing"
    )


def _raise_gap(
    axis: TimeAxis,
    positions: np.ndarray,
    series: np.ndarray,
    gaps: np.ndarray,
    label: Callable[[int], str],
) -> None:
    first = gaps.nonzero()[0][0]
    missing = int(positions[first + 1] - positions[first] - 1)
    begin, end = axis.at(positions[first : first + 2] + [1, -1])
    groups = len(np.unique(series[1:][gaps]))
    total = int((np.diff(positions)[gaps] - 1).sum())
    times = f"{begin}" if missing == 1 else f"{begin} to {end} ({missing} times)"
    totals = f"; {total} missing in all" if total > missing else ""
    totals += f", in {groups} groups" if groups > 1 else ""
    raise InputError(
        f"{label(series[first])}: no row for {times}{totals} (spacing: {axis.name}): add the "
        "missing rows, for example with the value 0 or the one before"
    )
