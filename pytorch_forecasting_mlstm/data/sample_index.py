"""The index of samples, computed with arrays instead of a loop over the rows of the data."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pytorch_forecasting.data import TimeSeriesDataSet

from .._upstream import stock_find_end_indices
from .windows import IntArray

_COLUMNS = ["index_start", "index_end", "sequence_length", "time", "sequence_id"]
#: Rows whose samples are found at a time: temporary arrays are as long.
_BLOCK = 2**15


def build_sample_index(dataset: Any, data: pd.DataFrame, predict_mode: bool) -> pd.DataFrame:
    """Build the index that ``TimeSeriesDataSet._construct_index`` builds.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Lengths and names of the group ids.
    data : DataFrame
        Preprocessed data, sorted by series and time.
    predict_mode : bool
        Whether to keep the last sample of each series only.

    Returns
    -------
    DataFrame
        One row per sample.
    """
    times = data["__time_idx__"].to_numpy()
    last_rows, numbers = _series_ends(data, dataset._group_ids)
    # within series, since a difference between two of them says nothing
    gaps = np.diff(times) != 1
    gaps[last_rows[:-1]] = False
    if not len(data) or (gaps.any() and not dataset.allow_missing_timesteps):
        return _raise_upstream(dataset, data, predict_mode)
    del gaps

    parts: list[list[IntArray]] = [[] for _ in _COLUMNS]
    shortened_parts: list[list[IntArray]] = [[] for _ in _COLUMNS]
    found = np.zeros(len(last_rows), dtype=bool)
    for block in _blocks_of_series(last_rows):
        first_row = last_rows[block.start - 1] + 1 if block.start else 0
        ends = last_rows[block] - first_row
        rows = slice(first_row, last_rows[block][-1] + 1)
        series = np.arange(block.start, block.stop).repeat(np.diff(ends, prepend=-1))
        for samples, columns in zip(
            _samples_of_block(dataset, times[rows], ends, predict_mode),
            (parts, shortened_parts),
            strict=True,
        ):
            starts, stops, lengths = samples
            found[series[starts]] = True
            values = (
                starts + first_row,
                stops + first_row,
                lengths,
                times[rows][starts],
                numbers[series[starts]],
            )
            for column, value in zip(columns, values, strict=True):
                column.append(value.astype(np.int32))
    count = sum(map(len, parts[0])) + sum(map(len, shortened_parts[0]))
    if not count:
        return _raise_upstream(dataset, data, predict_mode)

    table = np.empty((len(_COLUMNS), count), dtype=np.int32)
    for row in table:  # parts are freed one by one, while the table fills
        np.concatenate(parts.pop(0) + shortened_parts.pop(0), out=row)
    index = pd.DataFrame(table.T, columns=_COLUMNS, copy=False)
    if not found.all():
        _warn_missing_series(dataset, data.iloc[last_rows[~found]])
    if predict_mode:
        index = index.loc[index.groupby("sequence_id")["sequence_length"].idxmax()]
        # In prediction mode, the index of pytorch-forecasting has its last column twice.
        index = index[[*_COLUMNS, "sequence_id"]].reset_index(drop=True)
    return index


def _series_ends(data: pd.DataFrame, group_ids: list[str]) -> tuple[IntArray, IntArray]:
    """Return the last row of every series, and its number among the sorted series."""
    is_last = np.ones(len(data), dtype=bool)
    is_last[:-1] = False
    for name in group_ids:
        codes = data[name].to_numpy()
        is_last[:-1] |= codes[1:] != codes[:-1]
    last_rows = np.flatnonzero(is_last)
    groups = data[group_ids].iloc[last_rows]
    return last_rows, groups.groupby(group_ids, observed=True).ngroup().to_numpy()


def _blocks_of_series(last_rows: IntArray) -> Iterator[slice]:
    """Divide the series into blocks of at least ``_BLOCK`` rows each, but for the last."""
    start = 0
    while start < len(last_rows):
        first_row = last_rows[start - 1] + 1 if start else 0
        stop = min(np.searchsorted(last_rows, first_row + _BLOCK - 1) + 1, len(last_rows))
        yield slice(start, int(stop))
        start = int(stop)


def _samples_of_block(
    dataset: Any, times: IntArray, last_rows: IntArray, predict_mode: bool
) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Yield first row, last row and length: of samples as long as possible, and of shorter ones."""
    steps = np.diff(times, append=0)
    steps[last_rows] = 1
    shortest = dataset.min_encoder_length + dataset.min_prediction_length
    longest = dataset.max_encoder_length + dataset.max_prediction_length
    last_times = np.repeat(times[last_rows], np.diff(last_rows, prepend=-1))
    ends, shortened = find_end_indices(
        steps, np.minimum(longest, last_times - times + 1), min_length=shortest
    )
    earliest_end = dataset.min_prediction_idx + dataset.min_prediction_length - 1
    for starts, stops in ((np.arange(len(times)), ends), (shortened[:, 0], shortened[:, 1])):
        lengths = times[stops] - times[starts] + 1
        valid = (lengths >= shortest) & (times[stops] >= earliest_end)
        if predict_mode:
            valid &= last_times[starts] - times[starts] < longest
        yield starts[valid], stops[valid], lengths[valid]


def _raise_upstream(dataset: Any, data: pd.DataFrame, predict_mode: bool) -> pd.DataFrame:
    """Let pytorch-forecasting raise its own error for data without a valid sample."""
    return TimeSeriesDataSet._construct_index(dataset, data, predict_mode)


def _warn_missing_series(dataset: Any, data: pd.DataFrame) -> None:
    """Warn about series without any sample, with the message of pytorch-forecasting.

    ``data`` has one row for each of them.
    """
    groups = data[dataset._group_ids].drop_duplicates()
    for name, column in dataset._group_ids_mapping.items():
        groups[column] = dataset.transform_values(name, groups[column], inverse=True, group_id=True)
    warnings.warn(
        "Min encoder length and/or min_prediction_idx and/or min prediction length and/or lags are "
        f"too large for {len(groups)} series/groups which therefore are not present in the dataset "
        "index. This means no predictions can be made for those series. First 10 removed groups: "
        f"{list(groups.iloc[:10].to_dict(orient='index').values())}",
        UserWarning,
        stacklevel=2,
    )


def find_end_indices(
    diffs: npt.NDArray[Any], max_lengths: npt.NDArray[Any], min_length: int
) -> tuple[IntArray, IntArray]:
    """Find the last row of the sample that starts at each row.

    The results are those of pytorch-forecasting's ``_find_end_indices``. With T the running sum of
    ``diffs``, the sample that starts at row s ends at the last row with a time of at most
    T[s] + max_lengths[s] - 1. A row at which no sample ends gets a sample of its own if that has
    ``min_length`` steps: it starts together with the first sample that ends later.

    Parameters
    ----------
    diffs : ndarray of int
        Time steps from each row to the next, 1 at the end of a series, shape ``(N,)``.
    max_lengths : ndarray of int
        Maximal steps of the sample that starts at each row, within its series, shape ``(N,)``.
    min_length : int
        Minimal steps of a sample.

    Returns
    -------
    ends : ndarray of int
        Last row of each sample, shape ``(N,)``.
    shortened : ndarray of int
        First and last row of samples that are shorter than possible, shape ``(M, 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> find_end_indices(np.array([1, 3, 1, 1]), np.array([3, 3, 2, 1]), 2)
    (array([1, 1, 3, 3]), array([[0, 1]]))
    """
    times = np.concatenate([[0], np.cumsum(diffs[:-1])])
    latest = times + max_lengths - 1
    if (diffs < 1).any() or latest[-1] > times[-1] or (np.diff(latest) < 0).any():
        return stock_find_end_indices(diffs, max_lengths, min_length)  # times that repeat
    reached = np.searchsorted(times, latest)
    ends = np.where(times[reached] == latest, reached, reached - 1)
    rows = np.arange(len(times))
    # For each row, the first sample that has not ended before.
    starts = np.concatenate([[0], np.bincount(reached, minlength=len(times)).cumsum()[:-1]])
    lengths = times - times[starts] + 1
    uncovered = (lengths < max_lengths[starts]) & (lengths >= min_length)
    return ends, np.stack([starts[uncovered], rows[uncovered]], axis=1)
