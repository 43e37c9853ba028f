"""Arithmetic that neither overflows nor divides by zero; all forms share it."""

import torch
from torch import Tensor

__all__ = [
    "LOG_EMPTY",
    "clamp_denominator",
    "denominator",
    "divide_by_normalizer",
    "one_at_scale",
    "segsum",
]

LOG_EMPTY = -1e30  # stands for m = -inf, the logarithmic scale of an empty memory


def segsum(x: Tensor) -> Tensor:
    """Sum over segments: ``out[..., j, l] = x[l+1] + ... + x[j]``, and ``-inf`` where l > j.

    Each segment is summed separately. The difference of two long sums would lose short segments, or
    be ``inf - inf`` where a gate is closed.
    """
    length = x.shape[-1]
    below = torch.ones(length, length, dtype=torch.bool, device=x.device).tril(-1)
    columns = x[..., None].expand(*x.shape, length).masked_fill(~below, 0)
    above = below.mT
    return columns.cumsum(-2).masked_fill(above, -torch.inf)


def divide_by_normalizer(numerator: Tensor, normalizer: Tensor, m: Tensor) -> Tensor:
    """``C q / max(|nᵀq|, 1)`` of quantities divided by exp(m), for m of at least 0."""
    return numerator / denominator(normalizer, one_at_scale(m))[..., None]


def denominator(normalizer: Tensor, floor: Tensor) -> Tensor:
    """Return ``max(|nᵀq|, floor)``, NaN where nᵀq overflows: a quotient of 0 would hide that."""
    return torch.maximum(normalizer.abs(), floor) + (normalizer - normalizer)


def one_at_scale(m: Tensor) -> Tensor:
    """Return 1 divided by exp(m)."""
    return clamp_denominator(torch.exp(-m))


def clamp_denominator(floor: Tensor) -> Tensor:
    """Clamp the floor of a denominator to avoid 0 / 0.

    In float32, that changes a read only if nᵀq vanishes and the scale of the memory exceeds
    exp(43). Input gates of layers are at most exp(15).
    """
    return floor.clamp_min(torch.finfo(floor.dtype).tiny ** 0.5)
