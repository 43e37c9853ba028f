"""Tiles of samples whose temporaries fit a cache, and tensors written segment by segment."""

from collections.abc import Callable, Sequence

from torch import Tensor

from .execution import is_eager_on_cpu

__all__ = ["SegmentWriter", "batch_tile_size", "map_batch_tiles"]

_TILE_NUMEL = 2**20  # elements of the largest temporary of a tile


def batch_tile_size(x: Tensor, B: int, numel: int) -> int:
    """Return how many of B samples to compute at once, for ``numel`` elements per sample."""
    if not is_eager_on_cpu(x) or not B * numel:
        return B
    tiles = -(-B * numel // _TILE_NUMEL)
    return -(-B // tiles)


def map_batch_tiles(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    tile_size: int,
) -> tuple[Tensor, ...]:
    """Map tensors (B, ...) to tensors (B, ...), in tiles of at most ``tile_size`` samples."""
    B = next(len(x) for x in inputs if x is not None)
    if tile_size >= B:
        return function(*inputs)
    writers: list[SegmentWriter] = []
    for start in range(0, B, tile_size):
        tile = slice(start, start + tile_size)
        results = function(*(None if x is None else x[tile] for x in inputs))
        writers = writers or [SegmentWriter(0, B) for _ in results]
        for writer, result in zip(writers, results, strict=True):
            writer.put(start, result)
    return tuple(writer.result() for writer in writers)


class SegmentWriter:
    """A tensor that is written segment by segment along one dimension."""

    def __init__(self, dim: int, length: int) -> None:
        self._dim, self._length = dim, length
        self._tensor: Tensor | None = None

    def put(self, start: int, segment: Tensor) -> None:
        """Write a segment at an index; a segment that fills the tensor is not copied."""
        size = segment.shape[self._dim]
        if self._tensor is None:
            self._tensor = segment if size == self._length else self._empty_like(segment)
        if self._tensor is not segment:
            self._tensor.narrow(self._dim, start, size).copy_(segment)

    def result(self) -> Tensor:
        """Return the tensor, after all segments have been written."""
        assert self._tensor is not None
        return self._tensor

    def _empty_like(self, segment: Tensor) -> Tensor:
        """Return an empty tensor whose dimensions lie in memory in the order of the segment's."""
        order = sorted(range(segment.dim()), key=segment.stride, reverse=True)
        back = sorted(range(segment.dim()), key=order.__getitem__)
        shape = list(segment.shape)
        shape[self._dim] = self._length
        return segment.new_empty([shape[dim] for dim in order]).permute(back)
