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
#: explains: the first for 10 and 1/10, which true changes come near to, the second for the others.
UNIT_TOLERANCES = (1.2, 2.0)
#: No value lies between the parts within this many powers of ten. It follows from the other limits.
MIN_UNIT_GAP = 0.3
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
    codes, others = np.zeros(len(values), dtype=bool), values
    if values.min() in CODES:
        is_code = np.isin(values, CODES)
        rest = values[~is_code]
        if is_code.mean() <= MAX_CODE_SHARE and rest.min() >= 0:
            codes, others = is_code, rest
    ordered = np.sort(others[others != 0])
    if len(ordered) < MIN_NONZERO:
        return codes
    low, high = _range_of_rest(ordered, has_zeros=len(ordered) < len(others))
    return codes | ((values != 0) & ((values < low) | (values > high)))


def _range_of_rest(ordered: np.ndarray, has_zeros: bool) -> tuple[float, float]:
    """Extend the bulk of the values to the next ones until these are too far away."""
    count = len(ordered)
    few = min(MAX_OUTLIERS, count // ROWS_PER_OUTLIER + 1)
    ends = (
        int(ordered.searchsorted(ordered[0], side="right")),
        count - int(ordered.searchsorted(ordered[-1])),
    )
    start, above = (max(few, rows) if rows <= MAX_CODE_SHARE * count else few for rows in ends)
    stop = count - above
    median = ordered[(start + stop) // 2]
    same = int(ordered.searchsorted(median, side="right") - ordered.searchsorted(median))
    steady = same > (stop - start) / 2
    low, high = float(ordered[start]), float(ordered[stop - 1])
    if has_zeros:
        low, high = min(low, 0.0), max(high, 0.0)
    down = [value for value in ordered[:start][::-1].tolist() if value < low]
    up = [value for value in ordered[stop:].tolist() if value > high]
    few_seen = 1 + MIN_OBSERVATIONS / count  # a short series has shown less of its range
    while down or up:
        largest = max(abs(low), abs(high))
        # An outlier at least doubles the largest value: a steady series may change a little.
        margin = few_seen * max(OUTLIER_RANGES * (high - low), largest)
        if steady:
            margin = OUTLIER_RATIO * largest
        near = [
            (distance, value)
            for value in (*down[:1], *up[:1])
            for distance in [max(low - value, value - high)]
            if distance <= margin or _in_tail(value, float(median), low, high, few_seen)
        ]
        if not near:
            break
        nearest = min(near)[1]
        low, high = min(low, nearest), max(high, nearest)
        down = [value for value in down if value < low]
        up = [value for value in up if value > high]
    return low, high


def _in_tail(value: float, median: float, low: float, high: float, power: float) -> bool:
    """Tell whether a value continues a long tail, as those of insurance claims.

    It does if it exceeds the largest by no greater factor than the largest exceeds the median.
    """
    if low * high < 0 or value * median <= 0:  # both signs, which have no tail towards 0
        return False
    largest = max(abs(low), abs(high))
    return abs(value) / largest <= (largest / abs(median)) ** power


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
    widest = int(gaps.argmax())
    if gaps[widest] < MIN_UNIT_GAP:
        return None
    is_large = logs > ordered[min_rows - 1 + widest]
    changes = np.flatnonzero(is_large[1:] != is_large[:-1]) + 1
    if len(changes) not in (1, 2):
        return None
    start, stop = int(changes[0]), int(changes[1]) if len(changes) == 2 else len(logs)
    part, rest = logs[start:stop], np.append(logs[:start], logs[stop:])
    shift = float(np.median(part) - np.median(rest))
    power = round(shift)
    tolerance = np.log10(UNIT_TOLERANCES[0 if abs(power) == 1 else 1])
    if power == 0 or abs(shift - power) > tolerance:
        return None
    spreads = [float(np.diff(np.percentile(side, [5, 95]))[0]) for side in (part, rest)]
    # The parts must be farther apart than their own values are: else the series grows or swings.
    if gaps.max() < max(spreads) or max(spreads) > SPREAD_TOLERANCE * min(spreads):
        return None
    end = int(nonzero[stop - 1]) + 1 if len(changes) == 2 else len(values)
    return Part(int(nonzero[start]), end, 10.0**power)


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
