"""How the work is divided: steps of chunks, sides of blocks, warps, and the precision of products.

Most have been chosen by measurement on an NVIDIA H200: see docs/development/decisions.md.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "DIVISION_STEPS",
    "GATE_STEPS",
    "STATE_ELEMENTS",
    "block_side",
    "chunk_options",
    "count_blocks",
    "count_chunks",
    "is_sequential",
    "norm_options",
    "product_precision",
    "row_side",
]

DIVISION_STEPS = 16  # per program, whose rows have all values
GATE_STEPS = 128  # per program
STATE_ELEMENTS = 512  # of c, per program

_NORM_ELEMENTS = 2048  # of a block of rows
_MIN_SIDE, _MAX_SIDE = 16, 64  # of a block in a product

#: One program computes a whole sequence of heads up to this size, from this many sequences on.
_MAX_SEQUENCE_SIDE, _MIN_SEQUENCES = 16, 128
#: From this many sequences on, there are enough programs of a single warp.
_MANY_SEQUENCES = 1024


class _ChunkPlan(NamedTuple):
    """The steps of a chunk, and the warps of a program."""

    steps: int
    warps: int


#: By the side of a head (128 also for larger ones), and by whether products are TF32.
_CHUNKS = {
    (16, False): _ChunkPlan(32, 2),
    (16, True): _ChunkPlan(32, 1),
    (32, False): _ChunkPlan(32, 2),
    (32, True): _ChunkPlan(32, 2),
    (64, False): _ChunkPlan(32, 4),
    (64, True): _ChunkPlan(32, 4),
    (128, False): _ChunkPlan(32, 4),
    (128, True): _ChunkPlan(32, 4),
}
#: By whether there are many sequences, and products are TF32. The steps must not depend on the
#: latter, which may change before the backward pass, for states are saved.
_SEQUENCES = {
    (False, False): _ChunkPlan(32, 2),
    (False, True): _ChunkPlan(32, 1),
    (True, False): _ChunkPlan(16, 1),
    (True, True): _ChunkPlan(16, 1),
}


def is_sequential(sequences: int, K: int, V: int) -> bool:
    """Whether one program computes all chunks of a sequence, with the state in registers."""
    return sequences >= _MIN_SEQUENCES and max(K, V) <= _MAX_SEQUENCE_SIDE


def chunk_options(v: Tensor, K: int, L: int) -> dict[str, Any]:
    """Return the options of kernels over chunks of v (B, NH, T, V), for L proposed steps."""
    precision = product_precision(v.dtype)
    B, NH, _, V = v.shape
    plan = _plan_chunks(B * NH, K, V, precision == "tf32")
    return {
        "BT": _chunk_steps(plan, L),
        "BK": block_side(K),
        "BV": block_side(V),
        "PRECISION": precision,
        "num_warps": plan.warps,
        "num_stages": 2,
    }


def count_chunks(sequences: int, T: int, K: int, V: int, L: int) -> int:
    """Return how many chunks each of some sequences has that one program computes."""
    return count_blocks(T, _chunk_steps(_plan_chunks(sequences, K, V, is_tf32=False), L))


def _plan_chunks(sequences: int, K: int, V: int, is_tf32: bool) -> _ChunkPlan:
    if is_sequential(sequences, K, V):
        is_many = bool(sequences >= _MANY_SEQUENCES)  # under torch.compile, it may be symbolic
        return _SEQUENCES[is_many, is_tf32]
    return _CHUNKS[min(128, row_side(max(K, V))), is_tf32]


def _chunk_steps(plan: _ChunkPlan, L: int) -> int:
    return max(_MIN_SIDE, min(plan.steps, _power_of_2(L)))


def norm_options(width: int) -> dict[str, Any]:
    """Return the options of layer norms of parts of a width: rows and columns of a program."""
    side = _power_of_2(width)
    return {"BR": max(1, _NORM_ELEMENTS // side), "BW": side}


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


def product_precision(dtype: torch.dtype) -> str:
    """Return how products of q, k and v of a dtype are rounded.

    Three products of TF32 give the precision of float32, and use the matrix units. For inputs in 16
    bits, there is one product. TF32 holds all of their digits. States, weights and gradients, by
    which they are multiplied, are float32, and rounded to 10 bits after the leading one.
    """
    if dtype == torch.float64:
        return "ieee"
    if dtype != torch.float32 or _allows_tf32():
        return "tf32"
    return "tf32x3"


def _allows_tf32() -> bool:
    """Whether the user lets torch round products of float32 on CUDA devices."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # since torch 2.9
    return matmul.allow_tf32 if precision is None else precision == "tf32"
