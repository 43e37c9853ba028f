"""Long sequences are computed in spans of chunks, with the state carried from span to span.

Inside a span, one matrix product carries the memory from chunk to chunk, at a cost quadratic in the
number of chunks. That number is bounded, so the cost of a sequence is linear in its length, and the
temporaries of a span fit a cache.

Dimensions: B batch, NH heads, T time, L steps of a chunk, K key, V value.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from ..types import mLSTMState

__all__ = [
    "SegmentWriter",
    "Saved",
    "Span",
    "scan_spans_bwd",
    "scan_spans_fwd",
    "split_spans",
    "saved_shapes",
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
        Its rows of ``Saved.states``: the state that enters it, and one state per chunk.
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
        Span by span, the state that enters it and one state per chunk, (B, NH, ..., (V + 1)·K).
    scales : Tensor
        m of the state that enters each span, (B, NH, ...).
    """

    normalizer: Tensor
    states: Tensor
    scales: Tensor


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


def saved_shapes(c: Tensor, T: int, L: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of ``Saved``, for c (B, NH, V, K).

    Plain arithmetic, since T may be symbolic under ``torch.compile``.
    """
    B, NH, V, K = c.shape
    chunks = (T + L - 1) // L
    spans = (chunks + _CHUNKS_PER_SPAN - 1) // _CHUNKS_PER_SPAN
    return (B, NH, chunks * L), (B, NH, chunks + spans, (V + 1) * K), (B, NH, spans)


def scan_spans_fwd(
    run: Callable[[Span, mLSTMState], tuple[Sequence[Tensor], mLSTMState, Tensor, Tensor]],
    state: mLSTMState,
    T: int,
    L: int,
    outputs: Sequence["SegmentWriter"],
) -> tuple[mLSTMState, Saved]:
    """Run all spans in order, each from the last state of the span before.

    ``run(span, state)`` returns the outputs of its steps, its last state, the normalizer and the
    chunk states. Returns the last state, and what the backward pass needs; the outputs
    go to the writers.
    """
    saved = [SegmentWriter(2, shape[2]) for shape in saved_shapes(state.c, T, L)]
    for span in split_spans(T, L):
        scale = state.m[..., None].clone()
        segments, state, normalizer, states = run(span, state)
        for writer, segment in zip(outputs, segments, strict=True):
            writer.put(span.steps.start, segment)
        starts = (span.padded_steps.start, span.states.start, span.number)
        for writer, start, segment in zip(saved, starts, (normalizer, states, scale), strict=True):
            writer.put(start, segment)
    return state, Saved(*(writer.result() for writer in saved))


def scan_spans_bwd(
    run: Callable[..., tuple[Tensor, Tensor, Tensor]],
    saved: Saved,
    T: int,
    L: int,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all spans in reverse order; return the gradients of the first c, n and m.

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
    """A tensor that is written segment by segment along one dimension."""

    def __init__(self, dim: int, length: int) -> None:
        self._dim, self._length = dim, length
        self._whole: Tensor | None = None

    def put(self, start: int, segment: Tensor) -> None:
        """Write a segment at an index; one that is the whole tensor is taken without a copy."""
        size = segment.shape[self._dim]
        if self._whole is None:
            self._whole = segment if size == self._length else self._empty_like(segment)
        if self._whole is not segment:
            self._whole.narrow(self._dim, start, size).copy_(segment)

    def result(self) -> Tensor:
        """Return the tensor, after all segments have been written."""
        assert self._whole is not None
        return self._whole

    def _empty_like(self, segment: Tensor) -> Tensor:
        """Return an empty tensor whose dimensions lie in memory in the order of the segment's."""
        order = sorted(range(segment.dim()), key=segment.stride, reverse=True)
        back = sorted(range(segment.dim()), key=order.__getitem__)
        shape = list(segment.shape)
        shape[self._dim] = self._length
        return segment.new_empty([shape[dim] for dim in order]).permute(back)
