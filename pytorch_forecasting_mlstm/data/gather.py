"""Batches of windows out of long tensors.

Dimensions: N rows of the data, B samples, C columns, T steps of the longest sample.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .missing_steps import source_of_each_step
from .windows import IntArray, Windows


class Part(NamedTuple):
    """The encoders of a batch, or the decoders.

    Parameters
    ----------
    length : Tensor
        steps of each, shape ``(B,)``
    width : int
        steps that they are padded to
    start : Tensor
        row of the data where each begins, shape ``(B,)``, of no meaning where ``rows`` is given
    rows : Tensor or None
        row of the data for each step, shape ``(B, width)``; None where each is one block of rows
    within : slice or Tensor
        which of the steps of the samples they are; a tensor has shape ``(B, width)``
    padding : Tensor or None
        True after the end of those that are shorter, shape ``(number of short ones, width)``;
        None where all are of one length
    short : Tensor or None
        numbers of those that are shorter
    """

    length: Tensor
    width: int
    start: Tensor
    rows: Tensor | None
    within: slice | Tensor
    padding: Tensor | None
    short: Tensor | None


class Steps(NamedTuple):
    """The steps of a batch: each sample from its first encoder step on, padded at the end.

    Parameters
    ----------
    encoder, decoder : Part
        how samples are split
    first_row : Tensor
        first row of the data that belongs to the sample, shape ``(B,)``
    decoder_time : Tensor
        time index of the first step of the decoder, shape ``(B,)``
    step : Tensor
        0, 1, ..., T - 1
    rows : Tensor or None
        row of the data for each step, shape ``(B, T)``, the last one repeated as padding; None
        where each sample is one block of rows and all are split at the same step
    missing : Tensor or None
        True where the data lack the step, shape ``(B, T)``; None where nothing lacks
    """

    encoder: Part
    decoder: Part
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
        samples of the batch
    times : Tensor
        time index of every row of the data, shape ``(N,)``

    Returns
    -------
    Steps
        tensors on the device of ``times``
    """
    told = [
        windows.first_row,
        windows.first_row + windows.skipped,
        # As in the host, counted from the first step of the sample before any was left out.
        windows.first_time + windows.encoder_length,
        windows.encoder_length,
        windows.decoder_length,
    ]
    if windows.gapped is not None:
        told += [windows.skipped, windows.last_row, windows.gapped.astype(np.int64)]
    # One small copy, whatever the number of steps: all that an accelerator needs to be told.
    table = torch.from_numpy(np.array(told)).to(times.device)
    first_row, start, decoder_time, encoder_length, decoder_length = table[:5]
    step = torch.arange(int(np.maximum.reduce(windows.total)), device=times.device)
    rows = missing = None
    if windows.gapped is not None:
        skipped, last_row, gapped = table[5:].unsqueeze(-1)
        within = skipped + torch.minimum(step, (encoder_length + decoder_length - 1).unsqueeze(1))
        source, lacking = source_of_each_step(
            times,
            first_row.unsqueeze(1),
            last_row,
            most_rows=int(np.maximum.reduce(windows.last_row - windows.first_row)) + 1,
            steps=int(np.maximum.reduce(windows.length)),
        )
        missing = lacking.gather(1, within) & gapped.bool()
        within = torch.where(gapped.bool(), source.gather(1, within), within)
        rows = first_row.unsqueeze(1) + within
    elif not windows.equal:
        last = (encoder_length + decoder_length - 1).unsqueeze(1)
        rows = start.unsqueeze(1) + torch.minimum(step, last)
    encoder = _part(windows.encoder_length, encoder_length, start, rows, None, step)
    decoder = _part(windows.decoder_length, decoder_length, start, rows, encoder, step)
    return Steps(encoder, decoder, first_row, decoder_time, step, rows, missing)


def _part(
    lengths: IntArray,
    length: Tensor,
    start: Tensor,
    rows: Tensor | None,
    before: Part | None,
    step: Tensor,
) -> Part:
    width = int(np.maximum.reduce(lengths))
    within: slice | Tensor
    if before is None:
        within = slice(width)
    elif before.short is None:
        within, start = slice(before.width, None), start + before.width
    else:
        within = (before.length.unsqueeze(1) + step[:width]).clamp(max=len(step) - 1)
    part = Part(length, width, start, None, within, None, None)
    if rows is not None:
        part = part._replace(rows=choose(rows, part))
    if np.minimum.reduce(lengths) < width:
        short = torch.from_numpy(np.flatnonzero(lengths < width)).to(length.device)
        padding = step[:width] >= length[short].unsqueeze(1)
        part = part._replace(short=short, padding=padding)
    return part


def choose(values: Tensor, part: Part) -> Tensor:
    """Choose the steps of encoders or decoders among those of samples.

    Parameters
    ----------
    values : Tensor
        shape ``(B, T)``
    part : Part
        encoders or decoders

    Returns
    -------
    Tensor
        shape ``(B, part.width)``
    """
    return (
        values[:, part.within] if isinstance(part.within, slice) else values.gather(1, part.within)
    )


def cut(values: Tensor, part: Part) -> Tensor:
    """Cut encoders or decoders out of samples.

    Parameters
    ----------
    values : Tensor
        shape ``(B, T)``
    part : Part
        encoders or decoders

    Returns
    -------
    Tensor
        shape ``(B, part.width)``, contiguous, padded with 0
    """
    # A copy in any case: never a view of more than what is handed out.
    return _padded(choose(values, part).clone(memory_format=torch.contiguous_format), part)


def _padded(values: Tensor, part: Part) -> Tensor:
    """Set what comes after the end of encoders or decoders to 0, in place."""
    if part.padding is not None:
        padding = part.padding.view(*part.padding.shape, *(1,) * (values.ndim - 2))
        values[part.short] = values[part.short].masked_fill(padding, 0)
    return values


def take(stored: Tensor, steps: Steps) -> Tensor:
    """Copy one column of the samples of a batch out of the data.

    Parameters
    ----------
    stored : Tensor
        data, shape ``(N,)``
    steps : Steps
        steps of the batch

    Returns
    -------
    Tensor
        shape ``(B, T)``
    """
    if steps.rows is None:
        return stored.unfold(0, len(steps.step), 1).index_select(0, steps.encoder.start)
    return stored.index_select(0, steps.rows.flatten()).view(steps.rows.shape)


class Columns:
    """Columns of the samples of a batch: as they are stored, but for those that are changed.

    Parameters
    ----------
    stored : Tensor
        data, shape ``(N, C)``, stored row by row or column by column
    steps : Steps
        steps of the batch
    """

    def __init__(self, stored: Tensor, steps: Steps):
        self._stored = stored
        self._steps = steps
        self._changed: dict[int, Tensor] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self._stored.dtype

    def read(self, place: int) -> Tensor:
        """Read a column of the samples, shape ``(B, T)``."""
        changed = self._changed.get(place)
        return take(self._stored[:, place], self._steps) if changed is None else changed

    def change(self, place: int, values: Tensor) -> None:
        """Change a column of the samples to values of shape ``(B, T)``."""
        self._changed[place] = values.to(self._stored.dtype)

    def cut(self, part: Part) -> Tensor:
        """Cut out encoders or decoders.

        Parameters
        ----------
        part : Part
            encoders or decoders

        Returns
        -------
        Tensor
            shape ``(B, part.width, C)``, contiguous, padded with 0
        """
        values = _rows(self._stored, part)
        for place, changed in self._changed.items():
            values[..., place] = choose(changed, part)
        return _padded(values, part)


def _rows(stored: Tensor, part: Part) -> Tensor:
    """Copy rows of the data, in whatever order they are stored: shape ``(B, width, C)``."""
    size, width, columns = len(part.length), part.width, stored.shape[1]
    if columns == 0 or width == 0:
        return stored.new_empty(size, width, columns)
    by_row = stored.is_contiguous()
    if part.rows is None:
        if by_row:  # a block of rows is one run of memory
            blocks = stored.view(-1).unfold(0, width * columns, columns)
            return blocks.index_select(0, part.start).view(size, width, columns)
        blocks = stored.unfold(0, width, 1).index_select(0, part.start)
        return blocks.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    rows = part.rows.flatten()
    if by_row:
        return stored.index_select(0, rows).view(size, width, columns)
    taken = [column.index_select(0, rows) for column in stored.unbind(1)]
    return torch.stack(taken, dim=-1).view(size, width, columns)
