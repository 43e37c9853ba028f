"""Which rows and steps the samples of a batch cover: integer arithmetic, one entry a sample."""

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
    """Where the samples of one batch lie in the rows of a dataset.

    A sample spans ``length`` steps of its series. It is used from step ``skipped`` on: first
    ``encoder_length`` steps, then ``decoder_length``. All arrays have shape ``(B,)``.

    Parameters
    ----------
    first_row, last_row : ndarray of int
        first and last row of the data that belong to the sample
    first_time : ndarray of int
        time index of ``first_row``
    length : ndarray of int
        steps from first to last row, those that are missing in the data included
    gapped : ndarray of bool, or None
        whether steps are missing; None where they are in no sample
    skipped : ndarray of int
        steps that ``randomize_length`` leaves out at the start
    encoder_length, decoder_length : ndarray of int
        steps of the encoder and of the decoder
    equal : bool
        whether encoders are of one length, and decoders too
    """

    first_row: IntArray
    last_row: IntArray
    first_time: IntArray
    length: IntArray
    gapped: BoolArray | None
    skipped: IntArray
    encoder_length: IntArray
    decoder_length: IntArray
    equal: bool

    @property
    def total(self) -> IntArray:
        """Steps that are used: encoder and decoder."""
        return self.encoder_length + self.decoder_length


def sample_windows(dataset: Any, numbers: Sequence[int]) -> Windows:
    """Find the windows of samples, and draw their lengths anew where the dataset asks for it.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        read only: its index, time index and lengths
    numbers : sequence of int
        positions in ``dataset.index``

    Returns
    -------
    Windows
        arrays of shape ``(len(numbers),)``
    """
    chosen = np.asarray(numbers)
    first_row, last_row, steps = (
        _column(dataset.index, name)[chosen].astype(np.int64)
        for name in ("index_start", "index_end", "sequence_length")
    )
    times: IntArray = dataset.data["time"].numpy()
    rows = last_row - first_row + 1
    has_gaps = rows < steps
    gapped = has_gaps if np.logical_or.reduce(has_gaps) else None
    length = np.maximum(rows, steps)
    decoder_length = _decoder_length(dataset, times[last_row], length)
    encoder_length = length - decoder_length

    if (
        np.minimum.reduce(decoder_length) < dataset.min_prediction_length
        or np.minimum.reduce(encoder_length) < dataset.min_encoder_length
        or (gapped is not None and not dataset.allow_missing_timesteps)
    ):
        for number in numbers:
            dataset[int(number)]  # raises the host's own error

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
        gapped=gapped,
        skipped=skipped,
        encoder_length=encoder_length,
        decoder_length=decoder_length,
        equal=all_equal(encoder_length) and all_equal(decoder_length),
    )


def _decoder_length(dataset: Any, last_time: IntArray, length: IntArray) -> IntArray:
    if type(dataset).calculate_decoder_length is not TimeSeriesDataSet.calculate_decoder_length:
        return np.asarray(dataset.calculate_decoder_length(last_time, length))
    # The host's rule; its own implementation costs a twentieth of the batch.
    predictable = last_time - (dataset.min_prediction_idx - 1)
    spare = length - dataset.min_encoder_length
    return np.minimum(np.minimum(predictable, spare), dataset.max_prediction_length)


def all_equal(values: IntArray) -> bool:
    """Tell whether there is one value only."""
    return bool(np.minimum.reduce(values) == np.maximum.reduce(values))


def _column(index: pd.DataFrame, name: str) -> npt.NDArray[np.int32]:
    """Read a column without the Series around it, which costs more than the rows."""
    try:
        values: npt.NDArray[np.int32] = index._get_column_array(index.columns.get_loc(name))
    except AttributeError:  # it is not public
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
    """Shorten encoders at random, and hand the steps to the decoder as far as it has room.

    With p ~ Beta(concentrations), drawn per sample, the encoder keeps
    ``min_encoder_length + round(p * (encoder_length - min_encoder_length))`` steps.

    Parameters
    ----------
    encoder_length, decoder_length : ndarray of int
        longest possible lengths, shape ``(B,)``
    min_encoder_length, max_prediction_length : int
        limits
    concentrations : tuple of float
        parameters of the Beta distribution

    Returns
    -------
    encoder_length, decoder_length, skipped : ndarray of int
        new lengths, and steps left out before the encoder, each of shape ``(B,)``
    """
    spare = torch.from_numpy(encoder_length - min_encoder_length)
    # torch fills a sample of (B,) from its generator one by one, as B single draws would.
    kept = Beta(*concentrations).sample(spare.shape)
    shorter = min_encoder_length + (spare * kept).round().numpy().astype(np.int64)
    longer = np.minimum(decoder_length + encoder_length - shorter, max_prediction_length)
    # Where the decoder has room for all of them, the host leaves the sample as it was.
    changed = shorter + longer < encoder_length + decoder_length
    return (
        np.where(changed, shorter, encoder_length),
        np.where(changed, longer, decoder_length),
        np.where(changed, encoder_length - shorter, 0),
    )
