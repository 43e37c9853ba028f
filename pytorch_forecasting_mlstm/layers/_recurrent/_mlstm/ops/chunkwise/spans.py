"""Long sequences in spans of chunks, with the state carried from span to span.

Inside a span the memories are carried from chunk to chunk by one matrix product, whose cost is
quadratic in the number of chunks. A span has a bounded number of them, so the cost of a sequence is
linear in its length, and what is computed inside a span fits a cache.

Dimensions: B batch, NH heads, T time, L steps of a chunk, K key, V value.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = [
    "SegmentWriter",
    "Saved",
    "Span",
    "scan_spans_bwd",
    "scan_spans_fwd",
    "split_spans",
    "saved_shapes",
]

_CHUNKS_PER_SPAN = 64  # of a span, by measurement


class Span(NamedTuple):
    """Where a span lies.

    Attributes
    ----------
    number : int
        How many lie before it.
    steps : slice
        Its steps, of T.
    padded_steps : slice
        Its steps in whole chunks, of T rounded up to a multiple of L.
    states : slice
        Its rows of ``states``: the memory that enters it, and one summary per chunk.
    """

    number: int
    steps: slice
    padded_steps: slice
    states: slice


class Saved(NamedTuple):
    """What the backward pass needs of the forward pass, beside inputs and outputs.

    Attributes
    ----------
    normalizer : Tensor
        nᵀq at every step in whole chunks, (B, NH, N·L).
    states : Tensor
        Span by span, the memory that enters it and one summary per chunk, (B, NH, ..., (V + 1)·K).
    scales : Tensor
        m of the memory that enters each span, (B, NH, ...).
    """

    normalizer: Tensor
    states: Tensor
    scales: Tensor


def split_spans(T: int, L: int) -> Iterator[Span]:
    """Cut T steps, at least 1, into spans of chunks of L steps."""
    chunks = -(-T // L)
    for number, first in enumerate(range(0, chunks, _CHUNKS_PER_SPAN)):
        last = min(first + _CHUNKS_PER_SPAN, chunks)
        yield Span(
            number,
            slice(first * L, min(last * L, T)),
            slice(first * L, last * L),
            slice(first + number, last + number + 1),
        )


def saved_shapes(c: Tensor, T: int, L: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of ``Saved``, for a first memory c (B, NH, V, K).

    Plain arithmetic: T may be a symbol of the compiler.
    """
    B, NH, V, K = c.shape
    chunks = (T + L - 1) // L
    spans = (chunks + _CHUNKS_PER_SPAN - 1) // _CHUNKS_PER_SPAN
    return (B, NH, chunks * L), (B, NH, chunks + spans, (V + 1) * K), (B, NH, spans)


def scan_spans_fwd(
    run: Callable[..., tuple[Sequence[Tensor], Sequence[Tensor], Tensor, Tensor]],
    state: Sequence[Tensor],
    T: int,
    L: int,
    outputs: Sequence["SegmentWriter"],
) -> tuple[Sequence[Tensor], Saved]:
    """Run all spans in order, each from the state that the one before it left.

    ``run(span, c, n, m)`` returns the outputs of its steps, its last c, n and m, the normalizer and
    the states. The outputs are put into the joiners; returned are the last state, and what the
    backward pass needs.
    """
    saved = [SegmentWriter(2, shape[2]) for shape in saved_shapes(state[0], T, L)]
    for span in split_spans(T, L):
        scale = state[2][..., None].clone()
        pieces, state, normalizer, states = run(span, *state)
        for joiner, piece in zip(outputs, pieces, strict=True):
            joiner.put(span.steps.start, piece)
        starts = (span.padded_steps.start, span.states.start, span.number)
        for joiner, start, piece in zip(saved, starts, (normalizer, states, scale), strict=True):
            joiner.put(start, piece)
    return state, Saved(*(joiner.result() for joiner in saved))


def scan_spans_bwd(
    run: Callable[..., tuple[Tensor, Tensor, Tensor]],
    saved: Saved,
    T: int,
    L: int,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Go back through all spans; return the gradients of the first c, n and m.

    ``run(span, saved, grad_c, grad_n)``, with what was saved of the span, returns the gradients of
    the c, n and m that entered it. Between spans m is a constant: no result depends on the scale at
    which a memory is handed on.
    """
    state: Sequence[Tensor | None] = (grad_c, grad_n)
    for span in reversed(list(split_spans(T, L))):
        part = Saved(
            saved.normalizer[:, :, span.padded_steps],
            saved.states[:, :, span.states],
            saved.scales[:, :, span.number],
        )
        first = run(span, part, *state)
        state = first[:2]
    return first


class SegmentWriter:
    """A tensor that is written piece by piece along one dimension."""

    def __init__(self, dim: int, length: int) -> None:
        self._dim, self._length = dim, length
        self._whole: Tensor | None = None

    def put(self, start: int, piece: Tensor) -> None:
        """Write a piece from an index on; one that is the whole is taken without a copy."""
        size = piece.shape[self._dim]
        if self._whole is None:
            self._whole = piece if size == self._length else self._empty_like(piece)
        if self._whole is not piece:
            self._whole.narrow(self._dim, start, size).copy_(piece)

    def result(self) -> Tensor:
        """Return the tensor, once all pieces are written."""
        assert self._whole is not None
        return self._whole

    def _empty_like(self, piece: Tensor) -> Tensor:
        """Return an empty tensor, with the dimensions in memory in the order of the piece's."""
        order = sorted(range(piece.dim()), key=piece.stride, reverse=True)
        back = sorted(range(piece.dim()), key=order.__getitem__)
        shape = list(piece.shape)
        shape[self._dim] = self._length
        return piece.new_empty([shape[dim] for dim in order]).permute(back)
