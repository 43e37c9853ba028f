"""Scan the spans of a sequence, forward and backward, with the state carried from span to span.

Dimensions: B batch, NH heads, T time, L steps of a chunk, K key, V value.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from ..chunks import Span, count_spans, split_spans
from ..tiling import SegmentWriter
from ..types import mLSTMState

__all__ = ["Saved", "saved_shapes", "scan_spans_bwd", "scan_spans_fwd"]


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


def saved_shapes(c: Tensor, T: int, L: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of ``Saved``, for c (B, NH, V, K).

    Plain arithmetic, since T may be symbolic under ``torch.compile``.
    """
    B, NH, V, K = c.shape
    chunks = (T + L - 1) // L
    spans = count_spans(chunks)
    return (B, NH, chunks * L), (B, NH, chunks + spans, (V + 1) * K), (B, NH, spans)


def scan_spans_fwd(
    run: Callable[[Span, mLSTMState], tuple[Sequence[Tensor], mLSTMState, Tensor, Tensor]],
    state: mLSTMState,
    T: int,
    L: int,
    outputs: Sequence[SegmentWriter],
) -> tuple[mLSTMState, Saved]:
    """Run all spans in order, each from the last state of the span before.

    ``run(span, state)`` returns the outputs of the span's steps, its last state, the normalizer and
    the chunk states. This function returns the last state and what the backward pass needs. The
    outputs go to the writers.
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

    ``run(span, saved, grad_c, grad_n)`` gets what was saved of the span, and returns the gradients
    of the c, n and m that entered it. Between spans m is a constant, since no result depends on the
    scale at which the memory is passed on.
    """
    state: Sequence[Tensor | None] = (grad_c, grad_n)
    for span in reversed(list(split_spans(T, L))):
        span_saved = Saved(
            saved.normalizer[:, :, span.padded_steps],
            saved.states[:, :, span.states],
            saved.scales[:, :, span.number],
        )
        first = run(span, span_saved, *state)
        state = first[:2]
    return first
