"""Sequences of different lengths in one tensor: masks and alignment."""

import torch
from torch import Tensor

from ...layers._recurrent._mlstm.ops.execution import is_eager_on_cpu

__all__ = ["align_right", "pad_steps", "partial_mask", "valid_steps", "zero_outside"]


def valid_steps(lengths: Tensor, size: int, *, right: bool = False) -> Tensor:
    """Return a mask (B, size) of the valid steps: the first ``lengths``, or the last if ``right``.

    Examples
    --------
    >>> valid_steps(torch.tensor([1, 3]), 3)
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    steps = torch.arange(size, device=lengths.device)
    return steps >= size - lengths[:, None] if right else steps < lengths[:, None]


def partial_mask(lengths: Tensor, size: int, *, right: bool = False) -> Tensor | None:
    """Return the mask of :func:`valid_steps`, or None if it is known that all steps are valid."""
    if is_eager_on_cpu(lengths) and bool((lengths >= size).all()):
        return None  # which spares several passes over the history
    return valid_steps(lengths, size, right=right)


def zero_outside(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x with 0 where a mask is False; None is a mask that is True everywhere."""
    return x if mask is None else x.masked_fill(~mask, 0)


def align_right(x: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Move the valid steps of x (B, T, ...), its first ``lengths``, to the end of ``size`` steps.

    The values in front of them are arbitrary: mask them.
    """
    if x.shape[1] == size and is_eager_on_cpu(lengths) and bool((lengths == size).all()):
        return x  # which spares a gather of the whole history
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], size, *x.shape[2:])
    steps = torch.arange(size, device=x.device) - size + lengths[:, None]
    batch = torch.arange(x.shape[0], device=x.device)[:, None]
    return x[batch, steps.clamp(0, x.shape[1] - 1)]


def pad_steps(x: Tensor, size: int) -> Tensor:
    """Pad x (B, T, F) with zeros to ``size`` steps."""
    if x.shape[1] == size and is_eager_on_cpu(x):
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], size - x.shape[1], x.shape[2])], dim=1)
