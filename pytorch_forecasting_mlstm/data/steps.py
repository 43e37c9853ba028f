"""The steps of a batch, laid out on the device of the data.

Dimensions: N rows of the data, B samples, T steps of the longest sample.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .missing_steps import forward_fill_index
from .windows import IntArray, Windows


class Segment(NamedTuple):
    """The histories of a batch, or its horizons.

    Parameters
    ----------
    length : Tensor
        Number of steps of each sample, shape ``(B,)``.
    width : int
        Number of steps after padding.
    start : Tensor
        Row of the data at which each sample begins, shape ``(B,)``; meaningless if ``rows`` is
        given.
    rows : Tensor or None
        Row of the data for each step, shape ``(B, width)``; None if each sample is one block of
        rows.
    within : slice or Tensor
        Which steps of the samples belong to the segment; a tensor has shape ``(B, width)``.
    padding : Tensor or None
        True after the end of the shorter samples, shape ``(number of shorter samples, width)``;
        None if all have the same length.
    shorter : Tensor or None
        Which samples are shorter than ``width``.
    """

    length: Tensor
    width: int
    start: Tensor
    rows: Tensor | None
    within: slice | Tensor
    padding: Tensor | None
    shorter: Tensor | None


class Steps(NamedTuple):
    """The steps of a batch: each sample from its first step of history on, padded at the end.

    Parameters
    ----------
    encoder, decoder : Segment
        Histories and horizons.
    first_row : Tensor
        First row of each sample in the data, shape ``(B,)``.
    decoder_time : Tensor
        Time index of the first step of the horizon, shape ``(B,)``.
    step : Tensor
        0, 1, ..., T - 1.
    rows : Tensor or None
        Row of the data for each step, shape ``(B, T)``, the last one repeated as padding; None if
        each sample is one block of rows and all samples have the same lengths.
    missing : Tensor or None
        True where the data lack the step, shape ``(B, T)``; None if they lack none.
    """

    encoder: Segment
    decoder: Segment
    first_row: Tensor
    decoder_time: Tensor
    step: Tensor
    rows: Tensor | None
    missing: Tensor | None


def padded_steps(windows: Windows, times: Tensor) -> Steps:
    """Lay out the steps of a batch on the device of the data.

    Parameters
    ----------
    windows : Windows
        Samples of the batch.
    times : Tensor
        Time index of every row of the data, shape ``(N,)``.

    Returns
    -------
    Steps
        Tensors on the device of ``times``.
    """
    columns = [
        windows.first_row,
        windows.first_row + windows.skipped,
        # Like pytorch-forecasting, count from the first step of the sample, before any is skipped.
        windows.first_time + windows.encoder_length,
        windows.encoder_length,
        windows.decoder_length,
    ]
    if windows.has_gap is not None:
        columns += [windows.skipped, windows.last_row, windows.has_gap.astype(np.int64)]
    # One small copy to an accelerator, whatever the number of steps.
    table = torch.from_numpy(np.array(columns)).to(times.device)
    first_row, start, decoder_time, encoder_length, decoder_length = table[:5]
    step = torch.arange(int(np.maximum.reduce(windows.total)), device=times.device)
    rows = missing = None
    if windows.has_gap is not None:
        skipped, last_row, gap_flags = table[5:].unsqueeze(-1)
        has_gap = gap_flags.bool()
        within = skipped + torch.minimum(step, (encoder_length + decoder_length - 1).unsqueeze(1))
        source, missing = forward_fill_index(
            times,
            first_row.unsqueeze(1),
            last_row,
            max_rows=int(np.maximum.reduce(windows.last_row - windows.first_row)) + 1,
            steps=int(np.maximum.reduce(windows.length)),
        )
        missing = missing.gather(1, within) & has_gap
        rows = first_row.unsqueeze(1) + torch.where(has_gap, source.gather(1, within), within)
    elif not windows.equal:
        last = (encoder_length + decoder_length - 1).unsqueeze(1)
        rows = start.unsqueeze(1) + torch.minimum(step, last)
    encoder = _segment(windows.encoder_length, encoder_length, start, rows, None, step)
    decoder = _segment(windows.decoder_length, decoder_length, start, rows, encoder, step)
    return Steps(encoder, decoder, first_row, decoder_time, step, rows, missing)


def _segment(
    lengths: IntArray,
    length: Tensor,
    start: Tensor,
    rows: Tensor | None,
    previous: Segment | None,
    step: Tensor,
) -> Segment:
    """Describe the segment that follows ``previous``, or the first one."""
    width = int(np.maximum.reduce(lengths))
    within: slice | Tensor
    if previous is None:
        within = slice(width)
    elif previous.shorter is None:
        within, start = slice(previous.width, None), start + previous.width
    else:
        within = (previous.length.unsqueeze(1) + step[:width]).clamp(max=len(step) - 1)
    segment = Segment(length, width, start, None, within, None, None)
    if rows is not None:
        segment = segment._replace(rows=select_steps(rows, segment))
    if np.minimum.reduce(lengths) < width:
        shorter = torch.from_numpy(np.flatnonzero(lengths < width)).to(length.device)
        padding = step[:width] >= length[shorter].unsqueeze(1)
        segment = segment._replace(shorter=shorter, padding=padding)
    return segment


def select_steps(values: Tensor, segment: Segment) -> Tensor:
    """Select the steps of a segment.

    Parameters
    ----------
    values : Tensor
        Values of whole samples, shape ``(B, T)``.
    segment : Segment
        Histories or horizons.

    Returns
    -------
    Tensor
        Shape ``(B, segment.width)``.
    """
    if isinstance(segment.within, slice):
        return values[:, segment.within]
    return values.gather(1, segment.within)
