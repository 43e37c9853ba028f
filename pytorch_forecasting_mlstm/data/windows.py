"""The rows and steps that the samples of a batch cover: integer arithmetic, one entry per sample.

A sample is a history followed by a horizon. pytorch-forecasting calls them encoder and decoder;
these names are used here for its lengths and options.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from torch.distributions import Beta

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Windows(NamedTuple):
    """Where the samples of a batch lie in the rows of a dataset.

    A sample spans ``length`` steps of its series. Its first ``skipped`` steps are left out; then
    come ``encoder_length`` steps of history and ``decoder_length`` steps of the horizon. All arrays
    have shape ``(B,)``.

    Parameters
    ----------
    first_row, last_row : ndarray of int
        First and last row of the sample in the data.
    first_time : ndarray of int
        Time index of ``first_row``.
    length : ndarray of int
        Steps from the first to the last row, including those that the data lack.
    has_gap : ndarray of bool, or None
        Whether the data lack steps of the sample; None if no sample lacks any.
    skipped : ndarray of int
        Steps that ``randomize_length`` leaves out at the start.
    encoder_length, decoder_length : ndarray of int
        Steps of the history and of the horizon.
    equal : bool
        Whether all histories have the same length, and all horizons too.
    """

    first_row: IntArray
    last_row: IntArray
    first_time: IntArray
    length: IntArray
    has_gap: BoolArray | None
    skipped: IntArray
    encoder_length: IntArray
    decoder_length: IntArray
    equal: bool

    @property
    def total(self) -> IntArray:
        """Steps that are used: history and horizon."""
        return self.encoder_length + self.decoder_length


def sample_windows(dataset: Any, positions: Sequence[int]) -> Windows:
    """Find the windows of samples, and draw random lengths where the dataset asks for them.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Its index, time index and lengths are read.
    positions : sequence of int
        Positions in ``dataset.index``.

    Returns
    -------
    Windows
        Arrays of shape ``(len(positions),)``.
    """
    rows_of_index = np.asarray(positions)
    first_row, last_row, steps = (
        _column(dataset.index, name)[rows_of_index].astype(np.int64)
        for name in ("index_start", "index_end", "sequence_length")
    )
    times: IntArray = dataset.data["time"].numpy()
    rows = last_row - first_row + 1
    rows_missing = rows < steps
    has_gap = rows_missing if np.logical_or.reduce(rows_missing) else None
    length = np.maximum(rows, steps)
    decoder_length = _decoder_length(dataset, times[last_row], length)
    encoder_length = length - decoder_length

    if (
        np.minimum.reduce(decoder_length) < dataset.min_prediction_length
        or np.minimum.reduce(encoder_length) < dataset.min_encoder_length
        or (has_gap is not None and not dataset.allow_missing_timesteps)
    ):
        for position in positions:
            dataset[int(position)]  # raises pytorch-forecasting's own error

    skipped = np.zeros_like(length)
    if dataset.randomize_length is not None:
        encoder_length, decoder_length, skipped = randomized_lengths(
            encoder_length,
            decoder_length,
            min_encoder_length=dataset.min_encoder_length,
            max_prediction_length=dataset.max_prediction_length,
            concentrations=dataset.randomize_length,
        )
    return Windows(
        first_row=first_row,
        last_row=last_row,
        first_time=times[first_row],
        length=length,
        has_gap=has_gap,
        skipped=skipped,
        encoder_length=encoder_length,
        decoder_length=decoder_length,
        equal=all_equal(encoder_length) and all_equal(decoder_length),
    )


def _decoder_length(dataset: Any, last_time: IntArray, length: IntArray) -> IntArray:
    if type(dataset).calculate_decoder_length is not TimeSeriesDataSet.calculate_decoder_length:
        return np.asarray(dataset.calculate_decoder_length(last_time, length))
    # The rule of pytorch-forecasting, inlined: its method takes a twentieth of the batch's time.
    predictable = last_time - (dataset.min_prediction_idx - 1)
    spare = length - dataset.min_encoder_length
    return np.minimum(np.minimum(predictable, spare), dataset.max_prediction_length)


def all_equal(values: IntArray) -> bool:
    """Return whether all values are the same."""
    return bool(np.minimum.reduce(values) == np.maximum.reduce(values))


def _column(index: pd.DataFrame, name: str) -> npt.NDArray[np.int32]:
    """Read a column without building a Series, which costs more than reading the rows."""
    try:
        values: npt.NDArray[np.int32] = index._get_column_array(index.columns.get_loc(name))
    except AttributeError:  # the method is private
        values = index[name].to_numpy()
    return values


def randomized_lengths(
    encoder_length: IntArray,
    decoder_length: IntArray,
    *,
    min_encoder_length: int,
    max_prediction_length: int,
    concentrations: tuple[float, float],
) -> tuple[IntArray, IntArray, IntArray]:
    """Shorten histories at random, and lengthen horizons by the same steps where they may grow.

    With p ~ Beta(concentrations), drawn per sample, a history keeps
    ``min_encoder_length + round(p * (encoder_length - min_encoder_length))`` steps.

    Parameters
    ----------
    encoder_length, decoder_length : ndarray of int
        Longest possible lengths, shape ``(B,)``.
    min_encoder_length, max_prediction_length : int
        Limits.
    concentrations : tuple of float
        Parameters of the Beta distribution.

    Returns
    -------
    encoder_length, decoder_length, skipped : ndarray of int
        New lengths, and the steps left out before the history, each of shape ``(B,)``.
    """
    spare = torch.from_numpy(encoder_length - min_encoder_length)
    # torch draws a sample of shape (B,) one by one, so its random numbers are those of B draws.
    fraction = Beta(*concentrations).sample(spare.shape)
    shorter = min_encoder_length + (spare * fraction).round().numpy().astype(np.int64)
    longer = np.minimum(decoder_length + encoder_length - shorter, max_prediction_length)
    # If the horizon takes all of the steps, pytorch-forecasting leaves the sample unchanged.
    changed = shorter + longer < encoder_length + decoder_length
    return (
        np.where(changed, shorter, encoder_length),
        np.where(changed, longer, decoder_length),
        np.where(changed, encoder_length - shorter, 0),
    )
