"""Sides of blocks, warps and precision of products of a launch.

They have been chosen by what the compiler reports for compute capability 8.0 and 9.0: registers,
spills, and shared memory, of which the least of these devices have 100 KB. Nothing is measured.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = [
    "DIVISION_STEPS",
    "GATE_STEPS",
    "block_side",
    "chunk_options",
    "count_blocks",
    "row_side",
]

DIVISION_STEPS = 16  # per program, whose rows have all values
GATE_STEPS = 128  # per program

_MAX_CHUNK = 64  # steps
_MIN_SIDE, _MAX_SIDE = 16, 64  # of a block in a product


def chunk_options(v: Tensor, K: int, L: int) -> dict[str, Any]:
    """Return the options of kernels over chunks, for L proposed steps."""
    sides = (block_side(K), block_side(v.shape[-1]))
    # With blocks of 64 by 64, or of float64, chunks of 64 steps would not fit the registers.
    is_large = max(sides) == _MAX_SIDE
    longest = _MAX_CHUNK // 2 if is_large or v.dtype == torch.float64 else _MAX_CHUNK
    return {
        "BT": max(_MIN_SIDE, min(longest, _power_of_2(L))),
        "BK": sides[0],
        "BV": sides[1],
        "PRECISION": _precision(v),
        "num_warps": 8 if is_large else 4,
        "num_stages": 2,
    }


def block_side(width: int) -> int:
    """Return the side of the blocks that cover a width."""
    return max(_MIN_SIDE, min(_MAX_SIDE, _power_of_2(width)))


def row_side(width: int) -> int:
    """Return the side of one block that covers a width."""
    return max(_MIN_SIDE, _power_of_2(width))


def count_blocks(size: int, side: int) -> int:
    """Return how many blocks cover a size."""
    return -(-size // side)


def _power_of_2(size: int) -> int:
    """Return the least power of 2 that is not below a size."""
    return 1 << (size - 1).bit_length()


def _precision(v: Tensor) -> str:
    """Return how products are rounded.

    Three products of TF32 give the precision of float32, and use the matrix units. For inputs in 16
    bits, there is one product. TF32 holds all of their digits. States, weights and gradients, by
    which they are multiplied, are float32, and rounded to 10 bits after the leading one.
    """
    if v.dtype == torch.float64:
        return "ieee"
    if v.dtype != torch.float32 or _allows_tf32():
        return "tf32"
    return "tf32x3"


def _allows_tf32() -> bool:
    """Whether the user lets torch round products of float32 on CUDA devices."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # since torch 2.9
    return matmul.allow_tf32 if precision is None else precision == "tf32"
