"""Sizes of chunks of steps, and of tiles of samples whose temporaries fit a cache."""

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

_TILE_NUMEL = 2**20  # numbers in the largest temporary of a tile


def default_chunk_size(T: int, K: int) -> int:
    """Choose the steps of a chunk, by measurement: more for long sequences and wide heads.

    Chunks of equal length leave little padding. Multiples of 4 suit the processor.
    """
    maximum = 64 if T > 1024 else 48 if K > 16 else 32
    chunks = -(-T // maximum)
    steps = -(-T // chunks)
    return min(T, -(-steps // 4) * 4)


def compiled_chunk_size(K: int) -> int:
    """Choose the steps of a chunk independently of T, so that a new T needs no recompilation."""
    return 48 if K > 16 else 32


def batch_tile_size(x: Tensor, B: int, numel: int) -> int:
    """Return how many of B samples to compute at once, for ``numel`` numbers per sample."""
    if not is_eager_on_cpu(x) or not B * numel:
        return B
    tiles = -(-B * numel // _TILE_NUMEL)
    return -(-B // tiles)


def map_batch_tiles(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    samples: int,
) -> tuple[Tensor, ...]:
    """Map tensors (B, ...) to tensors (B, ...), in tiles of at most ``samples`` samples."""
    B = next(len(x) for x in inputs if x is not None)
    if samples >= B:
        return function(*inputs)
    writers: list[SegmentWriter] = []
    for start in range(0, B, samples):
        tile = slice(start, start + samples)
        parts = function(*(None if x is None else x[tile] for x in inputs))
        writers = writers or [SegmentWriter(0, B) for _ in parts]
        for writer, part in zip(writers, parts, strict=True):
            writer.put(start, part)
    return tuple(writer.result() for writer in writers)
