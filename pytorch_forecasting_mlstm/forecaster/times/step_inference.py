"""Find the common step of times, with any number of gaps between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import frequencies, offsets

from ..errors import InputError
from .steps import PER_DAY
from .time_axis import TimeAxis, as_integers

_MAX_INFERRED = 20  # series, the longest, whose spacing pandas infers
_REGULAR = 0.9  # of the steps or rows; the others do not fit, and are errors
_SHORTEST_MONTH, _TWO_WEEKS = 28, 14  # days


def infer_step(times: pd.Series, series: np.ndarray, steps: np.ndarray) -> Any:
    """Return the step that all times are multiples of, apart from a few that do not fit.

    Parameters
    ----------
    times : pandas.Series
        Integers or timestamps, sorted within each series.
    series : numpy.ndarray
        Number of the series that each time belongs to.
    steps : numpy.ndarray
        Distances of consecutive times of one series, uint64; at least one.

    Returns
    -------
    int, pandas.Timedelta or pandas.DateOffset
        Whole numbers have an integer.
    """
    if times.dtype.kind == "i":
        return _even_step(as_integers(times, "us"), steps)
    rule = _infer_with_pandas(times, series)
    if rule is None:
        rule = _infer_months(times, series, steps)
    if rule is not None:
        return rule
    unit = times.dt.unit
    width = _even_step(as_integers(times, unit), steps)
    if width > np.iinfo(np.int64).max:
        raise InputError("the times are too far apart to be counted: add the times between them")
    if width == PER_DAY[unit] and times.dt.dayofweek.max() < 5:
        values = as_integers(times, unit)
        if int(values.max()) - int(values.min()) >= _TWO_WEEKS * PER_DAY[unit]:
            return offsets.BusinessDay()
    return pd.Timedelta(np.timedelta64(width, unit))


def _infer_with_pandas(times: pd.Series, series: np.ndarray) -> Any:
    """Return a rule of pandas, such as each second Monday, that holds in all rows, else None."""
    _, starts, lengths = np.unique(series, return_index=True, return_counts=True)
    rules = {}
    for k in np.argsort(-lengths, kind="stable")[:_MAX_INFERRED]:
        if lengths[k] >= 3:
            rows = times.iloc[starts[k] : starts[k] + lengths[k]]
            alias = frequencies.infer_freq(pd.DatetimeIndex(rows))
            if alias is not None:
                rules[alias] = frequencies.to_offset(alias)
    same_series = series[1:] == series[:-1]
    for rule in rules.values():
        try:
            axis = TimeAxis(rule.rollforward(times.min()), rule)
            positions = axis.positions(times)
        except (OverflowError, pd.errors.OutOfBoundsDatetime):
            continue
        even = isinstance(rule, offsets.Tick | offsets.Day | offsets.Week)
        gaps = same_series & (np.diff(positions) != 1)
        # Even steps may be too long or too short where there are gaps.
        if (positions >= 0).all() and not (even and gaps.any()):
            return rule
    return None


def _infer_months(times: pd.Series, series: np.ndarray, steps: np.ndarray) -> Any:
    """Return a step of months if most rows are on one day of the month, else None."""
    unit = times.dt.unit
    if np.median(steps) < _SHORTEST_MONTH * PER_DAY[unit]:
        return None
    months = times.to_numpy().astype("datetime64[M]").astype(np.int64)
    distances = np.diff(months)[series[1:] == series[:-1]]
    if (distances <= 0).any():
        return None
    count = _even_step(months, distances.astype(np.uint64))
    stamps = pd.DatetimeIndex(times)
    clock = stamps - stamps.normalize()
    for rule, day in (
        (offsets.MonthEnd(count), stamps.is_month_end),
        (pd.DateOffset(months=count), stamps.day == pd.Series(stamps.day).mode()[0]),
        (offsets.BMonthBegin(count), _is_on(stamps, offsets.BMonthBegin())),
        (offsets.BMonthEnd(count), _is_on(stamps, offsets.BMonthEnd())),
    ):
        fits = np.asarray(day) & np.asarray(clock == clock[0])
        if fits.mean() >= _REGULAR:
            return rule
    return None


def _is_on(stamps: pd.DatetimeIndex, rule: Any) -> np.ndarray:
    return np.array([rule.is_on_offset(stamp) for stamp in stamps])


def _even_step(values: np.ndarray, steps: np.ndarray) -> int:
    """Return the step that most values are multiples of, from any one of them.

    Starting from the most common distance, the algorithm of Euclid shortens it as long as more than
    a tenth of the values are not multiples.
    """
    lengths, counts = np.unique(steps, return_counts=True)
    width = int(lengths[counts.argmax()])
    if counts.max() >= _REGULAR * len(steps):
        return width
    # Unsigned differences cannot overflow, even from one end of 64 bits to the other.
    distances = values.view(np.uint64) - values.min(keepdims=True).view(np.uint64)
    while True:
        remainders, counts = np.unique(distances % np.uint64(width), return_counts=True)
        first, *others = remainders[np.argsort(-counts, kind="stable")][:2].tolist()
        if not others or counts.max() >= _REGULAR * len(values):
            return width
        width = math.gcd(width, abs(others[0] - first))
