"""Sequences of different lengths side by side: moved to one end, masked, folded into patches."""

import torch
from torch import Tensor

__all__ = ["align_right", "fold", "pad_steps", "unfold", "valid_steps"]


def valid_steps(lengths: Tensor, size: int, *, right: bool = False) -> Tensor:
    """Mark the valid ones of ``size`` steps, (B, size): the first, or the last if ``right``."""
    steps = torch.arange(size, device=lengths.device)
    return steps >= size - lengths[:, None] if right else steps < lengths[:, None]


def align_right(x: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Move the valid steps of x (B, T, ...), its first ``lengths``, to the end of ``size`` steps.

    What stands before them is arbitrary.
    """
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], size, *x.shape[2:])
    steps = torch.arange(size, device=x.device) - size + lengths[:, None]
    batch = torch.arange(x.shape[0], device=x.device)[:, None]
    return x[batch, steps.clamp(0, x.shape[1] - 1)]


def pad_steps(x: Tensor, size: int) -> Tensor:
    """Append steps of zeros to x (B, T, F), up to ``size``."""
    return torch.cat([x, x.new_zeros(x.shape[0], size - x.shape[1], x.shape[2])], dim=1)


def fold(x: Tensor, patch_length: int) -> Tensor:
    """Fold steps into patches: (B, N * P, F) to (B, N, P * F)."""
    return x.unflatten(1, (-1, patch_length)).flatten(2)


def unfold(x: Tensor, patch_length: int) -> Tensor:
    """Undo :func:`fold`: (B, N, P * F) to (B, N * P, F)."""
    return x.unflatten(2, (patch_length, -1)).flatten(1, 2)
