"""The sizes of the work: chunks of steps, and blocks of samples whose temporaries fit a cache."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ..execution import is_eager_on_cpu
from .spans import SegmentWriter

__all__ = [
    "map_batch_tiles",
    "default_chunk_size",
    "compiled_chunk_size",
    "batch_tile_size",
]

_TILE_NUMEL = 2**20  # numbers in the largest temporary of one block


def default_chunk_size(T: int, K: int) -> int:
    """Choose the steps of a chunk, by measurement: longer ones for long sequences and wide heads.

    Chunks of equal length leave little padding, multiples of 4 suit the processor.
    """
    most = 64 if T > 1024 else 48 if K > 16 else 32
    chunks = -(-T // most)
    steps = -(-T // chunks)
    return min(T, -(-steps // 4) * 4)


def compiled_chunk_size(K: int) -> int:
    """Choose the steps of a chunk where T is not to be asked."""
    return 48 if K > 16 else 32


def batch_tile_size(x: Tensor, B: int, numbers: int) -> int:
    """Return how many of B samples to compute at once, with so many numbers for each."""
    if not is_eager_on_cpu(x) or not B * numbers:
        return B
    blocks = -(-B * numbers // _TILE_NUMEL)
    return -(-B // blocks)


def map_batch_tiles(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    samples: int,
) -> tuple[Tensor, ...]:
    """Call a function of tensors (B, ...), which returns such, on blocks of so many samples."""
    B = next(len(x) for x in inputs if x is not None)
    if samples >= B:
        return function(*inputs)
    joiners: list[SegmentWriter] = []
    for start in range(0, B, samples):
        block = slice(start, start + samples)
        parts = function(*(None if x is None else x[block] for x in inputs))
        joiners = joiners or [SegmentWriter(0, B) for _ in parts]
        for joiner, part in zip(joiners, parts, strict=True):
            joiner.put(start, part)
    return tuple(joiner.result() for joiner in joiners)
