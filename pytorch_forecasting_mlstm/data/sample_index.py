"""The index of samples, without a loop over the rows of the data."""

from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.timeseries import _timeseries as host

from .windows import IntArray


def find_end_indices(
    diffs: npt.NDArray[Any], max_lengths: npt.NDArray[Any], min_length: int
) -> tuple[IntArray, IntArray]:
    """Find the last row of the sample that starts at each row, as the host's function does.

    With T the running sum of ``diffs``, the sample from row s ends at the last row that is not
    later than T[s] + max_lengths[s] - 1. A row at which no sample ends gets one of its own, from
    the first row whose sample ends later, if that makes ``min_length`` steps.

    Parameters
    ----------
    diffs : ndarray of int
        time steps from each row to the next, 1 at the end of a series, shape ``(N,)``
    max_lengths : ndarray of int
        most steps of a sample that starts at each row, within its series, shape ``(N,)``
    min_length : int
        least steps of a sample

    Returns
    -------
    ends : ndarray of int
        last row of each sample, shape ``(N,)``
    shortened : ndarray of int
        first and last row of samples that are shorter than possible, shape ``(M, 2)``

    Examples
    --------
    >>> import numpy as np
    >>> find_end_indices(np.array([1, 3, 1, 1]), np.array([3, 3, 2, 1]), 2)
    (array([1, 1, 3, 3]), array([[0, 1]]))
    """
    if not len(diffs):
        return host._find_end_indices(diffs, max_lengths, min_length)  # raises
    times = np.concatenate([[0], np.cumsum(diffs[:-1])])
    latest = times + max_lengths - 1
    if (diffs < 1).any() or latest[-1] > times[-1] or (np.diff(latest) < 0).any():
        return host._find_end_indices(diffs, max_lengths, min_length)  # times that repeat
    reached = np.searchsorted(times, latest)
    ends = np.where(times[reached] == latest, reached, reached - 1)
    rows = np.arange(len(times))
    # At each row, the first sample that has not ended before.
    starts = np.concatenate([[0], np.bincount(reached, minlength=len(times)).cumsum()[:-1]])
    lengths = times - times[starts] + 1
    alone = (lengths < max_lengths[starts]) & (lengths >= min_length)
    return ends, np.stack([starts[alone], rows[alone]], axis=1)


# The host's method, code and all, but for the one name that it looks up among its globals.
construct_index = FunctionType(
    TimeSeriesDataSet._construct_index.__code__,
    {**TimeSeriesDataSet._construct_index.__globals__, "_find_end_indices": find_end_indices},
    "_construct_index",
)
