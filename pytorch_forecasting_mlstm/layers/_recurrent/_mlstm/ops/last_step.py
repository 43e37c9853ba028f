"""The last step of every sample that is not padding."""

import torch
from torch import Tensor

__all__ = ["count_to_last", "index_last", "select_last"]


def count_to_last(padding: Tensor) -> Tensor:
    """Return the number of the last valid step (B), counted from 1; 0 if there is none."""
    steps = torch.arange(1, padding.shape[1] + 1, device=padding.device)
    return (~padding[..., 0] * steps).amax(1)


def index_last(padding: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the last valid steps, or of the first steps where there is none."""
    samples = torch.arange(padding.shape[0], device=padding.device)
    return samples, (count_to_last(padding) - 1).clamp_min(0)


def select_last(hidden: Tensor, padding: Tensor | None) -> Tensor:
    """Return these steps of hidden (B, T, H), for padding (B, T, 1)."""
    return hidden[:, -1] if padding is None else hidden[index_last(padding)]
