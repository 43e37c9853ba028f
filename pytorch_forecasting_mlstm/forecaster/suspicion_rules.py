"""Rules for rows of one series that look like faults.

They leave alone what is rare but true: records, floods, closed days, counts that are mostly zero,
prices that change in steps, and lasting changes of the level.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Fewer observations, or fewer other than 0, do not show what is usual.
MIN_OBSERVATIONS, MIN_NONZERO = 20, 10
#: An outlier is this many times the range of the rest away from it. Peaks and floods of real series
#: stay below 10, since lower peaks belong to the rest; a slip by three digits gives hundreds.
OUTLIER_RANGES = 30.0
#: If most of the rest has one value, its range says little: then an outlier is this many times as
#: far from the rest as the rest from 0. A bulk order among single pieces stays below.
OUTLIER_RATIO = 1000.0
#: Up to 5 rows can be slips; in short series fewer, at most one of 25 and one more.
MAX_OUTLIERS, ROWS_PER_OUTLIER = 5, 25
#: More rows, up to this share, can be one code for a missing value, such as -9999.
MAX_CODE_SHARE = 0.05
#: Such codes are clear in series without other negative values, even close to them.
CODES = (-999.0, -9999.0, -99999.0, -999999.0)
#: A part in another unit has at least this many rows: fewer may be chance.
MIN_UNIT_ROWS = 8
#: The medians of the parts differ by a power of ten times at most this factor, which their noise
#: explains. Sales that double, or fall by 95 %, are not near a power of ten.
UNIT_TOLERANCE = 1.2
#: The values of both parts spread alike, up to this factor, since only the unit differs. A true
#: change of the level usually changes the spread, too.
SPREAD_TOLERANCE = 2.0
#: A constant stretch is this many times as long as any other run of equal values. Prices, rounded
#: measurements and counts have several long runs.
RUN_RATIO = 10.0
#: A constant stretch is longer than this many steps, since short ones are chance.
MIN_RUN = 10


class Part(NamedTuple):
    """Consecutive observations of a series, and what is suspicious about them.

    Attributes
    ----------
    start, stop
        The observations, from `start` to before `stop`.
    value
        Their value, or the factor of the unit.
    """

    start: int
    stop: int
    value: float


def find_outliers(values: np.ndarray) -> np.ndarray:
    """Mark values far outside of the range of all others; never zeros.

    Parameters
    ----------
    values : numpy.ndarray
        (N,), finite.

    Returns
    -------
    numpy.ndarray
        (N,) of bool: a few rows, or more if all have one value.
    """
    codes = np.isin(values, CODES)
    others = values[~codes]
    if not len(others) or others.min() < 0 or codes.mean() > MAX_CODE_SHARE:
        codes, others = np.zeros(len(values), dtype=bool), values
    ordered = np.sort(others[others != 0])
    if len(ordered) < MIN_NONZERO:
        return codes
    few = min(MAX_OUTLIERS, len(ordered) // ROWS_PER_OUTLIER + 1)
    most = MAX_CODE_SHARE * len(ordered)
    ends = [
        np.searchsorted(ordered, ordered[0], side="right"),
        len(ordered) - np.searchsorted(ordered, ordered[-1], side="left"),
    ]
    below, above = (max(few, int(rows)) if rows <= most else few for rows in ends)
    low, high = _range_of_rest(ordered, below, above, has_zeros=len(ordered) < len(others))
    return codes | ((values != 0) & ((values < low) | (values > high)))


def _range_of_rest(
    ordered: np.ndarray, below: int, above: int, has_zeros: bool
) -> tuple[float, float]:
    """Extend the bulk of the values to the next ones until these are too far away."""
    stop = len(ordered) - above
    bulk = ordered[below:stop]
    median = float(np.median(bulk))
    steady = (bulk == median).mean() > 0.5
    low, high = float(bulk[0]), float(bulk[-1])
    if has_zeros:
        low, high = min(low, 0.0), max(high, 0.0)
    down = [float(value) for value in ordered[:below][::-1] if value < low]
    up = [float(value) for value in ordered[stop:] if value > high]
    while down or up:
        largest = max(abs(low), abs(high))
        # An outlier at least doubles the largest value: a steady series may change a little.
        margin = OUTLIER_RATIO * largest if steady else max(OUTLIER_RANGES * (high - low), largest)
        near = [
            (distance, value)
            for value in (*down[:1], *up[:1])
            for distance in [max(low - value, value - high)]
            if distance <= margin or _in_tail(value, median, low, high)
        ]
        if not near:
            break
        nearest = min(near)[1]
        low, high = min(low, nearest), max(high, nearest)
        down = [value for value in down if value < low]
        up = [value for value in up if value > high]
    return low, high


def _in_tail(value: float, median: float, low: float, high: float) -> bool:
    """Tell whether a value continues a long tail, as those of insurance claims.

    It does if it exceeds the largest value by no greater factor than that exceeds the median.
    """
    one_sign = low * high >= 0 and value * median > 0
    return one_sign and value * median <= max(low**2, high**2)


def find_unit_change(values: np.ndarray, season: int) -> Part | None:
    """Find a part that is a power of ten times as large as the rest, up to noise.

    It reaches from the change to the end of the series, or to a second change back.
    """
    min_rows = max(MIN_UNIT_ROWS, season)
    nonzero = np.flatnonzero(values)
    if len(nonzero) < 2 * min_rows:
        return None
    logs = np.log10(np.abs(values[nonzero]))
    ordered = np.sort(logs)
    gaps = np.diff(ordered)[min_rows - 1 : len(ordered) - min_rows]
    below = min_rows - 1 + int(gaps.argmax())  # the last value below the largest gap
    is_large = logs > ordered[below]
    changes = np.flatnonzero(is_large[1:] != is_large[:-1]) + 1
    if len(changes) not in (1, 2):
        return None
    start, stop = int(changes[0]), int(changes[1]) if len(changes) == 2 else len(logs)
    part, rest = logs[start:stop], np.append(logs[:start], logs[stop:])
    shift = float(np.median(part) - np.median(rest))
    if round(shift) == 0 or abs(shift - round(shift)) > np.log10(UNIT_TOLERANCE):
        return None
    spreads = [float(np.diff(np.percentile(side, [5, 95]))[0]) for side in (part, rest)]
    # The parts must be farther apart than their own values are: else the series grows or swings.
    if gaps.max() < max(spreads) or max(spreads) > SPREAD_TOLERANCE * min(spreads):
        return None
    end = int(nonzero[stop - 1]) + 1 if len(changes) == 2 else len(values)
    return Part(int(nonzero[start]), end, 10.0 ** round(shift))


def find_constant_stretch(values: np.ndarray, horizon: int, season: int) -> Part | None:
    """Find a run of equal values that is much longer than all others.

    A run of zeros counts only in the midst or at the end of a series that is never 0 otherwise: at
    its start, the product may not have been sold yet.
    """
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    lengths = np.diff(np.append(starts, len(values)))
    longest = int(lengths.argmax())
    length, start = int(lengths[longest]), int(starts[longest])
    value = float(values[start])
    if length <= max(MIN_RUN, horizon, season) or len(values) - length < MIN_OBSERVATIONS:
        return None
    if length < RUN_RATIO * np.delete(lengths, longest).max():
        return None
    if value == 0 and (start == 0 or np.count_nonzero(values) < len(values) - length):
        return None
    return Part(start, start + length, value)
