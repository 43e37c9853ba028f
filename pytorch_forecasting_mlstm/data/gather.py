"""Gather a batch of windows from the long tensors of a dataset.

Dimensions: N rows of the data, B samples, C columns, T steps of the longest sample.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .steps import Segment, Steps, select_steps


def slice_padded(values: Tensor, segment: Segment) -> Tensor:
    """Copy the steps of a segment, padded with 0.

    Parameters
    ----------
    values : Tensor
        Values of whole samples, shape ``(B, T)``.
    segment : Segment
        Histories or horizons.

    Returns
    -------
    Tensor
        Shape ``(B, segment.width)``, contiguous.
    """
    # Always a copy: a view would keep the whole samples in memory.
    selected = select_steps(values, segment).clone(memory_format=torch.contiguous_format)
    return _zero_padding(selected, segment)


def _zero_padding(values: Tensor, segment: Segment) -> Tensor:
    """Set the steps after the end of a history or horizon to 0, in place."""
    if segment.padding is not None:
        padding = segment.padding.view(*segment.padding.shape, *(1,) * (values.ndim - 2))
        values[segment.shorter] = values[segment.shorter].masked_fill(padding, 0)
    return values


def gather_steps(stored: Tensor, steps: Steps) -> Tensor:
    """Gather one column of the data.

    Parameters
    ----------
    stored : Tensor
        Column of the data, shape ``(N,)``.
    steps : Steps
        Steps of the batch.

    Returns
    -------
    Tensor
        Shape ``(B, T)``.
    """
    if steps.rows is None:
        return stored.unfold(0, len(steps.step), 1).index_select(0, steps.encoder.start)
    return stored.index_select(0, steps.rows.flatten()).view(steps.rows.shape)


class Columns:
    """The columns of a batch: those of the data, unless they were changed.

    Parameters
    ----------
    stored : Tensor
        Data, shape ``(N, C)``. Rows that are contiguous in memory are gathered fastest.
    steps : Steps
        Steps of the batch.
    """

    def __init__(self, stored: Tensor, steps: Steps):
        self._stored = stored
        self._steps = steps
        self._changed: dict[int, Tensor] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self._stored.dtype

    def read(self, column: int) -> Tensor:
        """Read a column of whole samples, shape ``(B, T)``."""
        changed = self._changed.get(column)
        return gather_steps(self._stored[:, column], self._steps) if changed is None else changed

    def change(self, column: int, values: Tensor) -> None:
        """Change a column of whole samples to values of shape ``(B, T)``."""
        self._changed[column] = values.to(self._stored.dtype)

    def slice_padded(self, segment: Segment) -> Tensor:
        """Copy the steps of a segment, padded with 0.

        Parameters
        ----------
        segment : Segment
            Histories or horizons.

        Returns
        -------
        Tensor
            Shape ``(B, segment.width, C)``, contiguous.
        """
        values = _gather_rows(self._stored, segment)
        for column, changed in self._changed.items():
            values[..., column] = select_steps(changed, segment)
        return _zero_padding(values, segment)


def _gather_rows(stored: Tensor, segment: Segment) -> Tensor:
    """Copy the rows of a segment, shape ``(B, width, C)``."""
    size, width, columns = len(segment.length), segment.width, stored.shape[1]
    if columns == 0 or width == 0:
        return stored.new_empty(size, width, columns)
    rows = segment.rows
    if rows is None and stored.is_contiguous():  # each block of rows is one run of memory
        blocks = stored.view(-1).unfold(0, width * columns, columns)
        return blocks.index_select(0, segment.start).view(size, width, columns)
    if rows is None:
        rows = segment.start.unsqueeze(1) + torch.arange(width, device=stored.device)
    return stored.index_select(0, rows.flatten()).view(size, width, columns)


class BatchValues(NamedTuple):
    """The variables of a batch while it is prepared.

    Parameters
    ----------
    reals : Columns
        One column for each of ``dataset.reals``.
    categoricals : Columns
        One column for each of ``dataset.flat_categoricals``.
    targets : list of Tensor
        Unscaled targets, each of shape ``(B, T)``.
    """

    reals: Columns
    categoricals: Columns
    targets: list[Tensor]
