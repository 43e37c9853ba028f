"""Random numbers of dropout, of 16 bits per element."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DropoutDraw", "draw_16_bits", "draw_dense_16_bits", "dropout_mask", "largest_dropped"]


class DropoutDraw(NamedTuple):
    """What dropout before and after a cell has drawn.

    Attributes
    ----------
    x_bits, h_bits : Tensor
        Random numbers for the input and the output of a cell, int16, (B, T, input_size) and
        (B, T, H), with dense rows.
    p : float
        Probability to drop an element.
    """

    x_bits: Tensor
    h_bits: Tensor
    p: float


def largest_dropped(p: float) -> int:
    """Return the largest number of 16 bits that drops its element, with probability p."""
    return round(p * 2**16) - 2**15 - 1


def dropout_mask(bits: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """Return what dropout multiplies elements by: 0, or 1 / (1 - p)."""
    limit = largest_dropped(p)
    # 0 or 1 without a comparison, since torch takes four times as long for booleans
    keep = bits.clamp(limit, limit + 1).sub_(limit)
    return keep.to(dtype).mul_(1 / (1 - p))


def draw_16_bits(like: Tensor) -> Tensor:
    """Draw integers from -2¹⁵ to 2¹⁵ - 1, in the shape of a tensor and in the order of its memory.

    Operations on tensors whose dimensions lie in different orders take several times as long.
    """
    order = sorted(range(like.dim()), key=like.stride, reverse=True)
    back = sorted(range(like.dim()), key=order.__getitem__)
    return draw_dense_16_bits([like.shape[dim] for dim in order]).permute(back)


def draw_dense_16_bits(shape: Sequence[int]) -> Tensor:
    """Draw such integers in a dense tensor on the CPU."""
    n = math.prod(shape)
    bits = torch.empty(-(-n // 4), dtype=torch.int64, device="cpu")
    return bits.random_(-(2**63), None).view(torch.int16)[:n].view(list(shape))
