"""How a sequence is divided into chunks of steps, and the chunks into spans.

Inside a chunk, every step is compared with every other. Inside a span, one matrix product carries
the memory from chunk to chunk, at a cost quadratic in the number of chunks. Both are bounded, so
the cost of a sequence is linear in its length, and the temporaries of a span fit a cache.

Dimensions: T time, L steps of a chunk, K key.
"""

from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "Span",
    "compiled_chunk_size",
    "count_spans",
    "default_chunk_size",
    "split_spans",
]

_CHUNKS_PER_SPAN = 64  # by measurement


class Span(NamedTuple):
    """The position of a span.

    Attributes
    ----------
    number : int
        The number of spans before it.
    steps : slice
        Its steps, of T.
    padded_steps : slice
        Its steps in whole chunks, of T rounded up to a multiple of L.
    states : slice
        Its rows among the saved states: the state that enters it, and one state per chunk.
    """

    number: int
    steps: slice
    padded_steps: slice
    states: slice


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


def split_spans(T: int, L: int) -> Iterator[Span]:
    """Split T steps, at least 1, into spans of chunks of L steps."""
    chunks = -(-T // L)
    for number, first in enumerate(range(0, chunks, _CHUNKS_PER_SPAN)):
        last = min(first + _CHUNKS_PER_SPAN, chunks)
        yield Span(
            number,
            slice(first * L, min(last * L, T)),
            slice(first * L, last * L),
            slice(first + number, last + number + 1),
        )


def count_spans(chunks: int) -> int:
    """Return the number of spans; ``chunks`` may be symbolic under ``torch.compile``."""
    return (chunks + _CHUNKS_PER_SPAN - 1) // _CHUNKS_PER_SPAN
