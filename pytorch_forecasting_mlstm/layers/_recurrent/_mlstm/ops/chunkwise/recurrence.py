"""The chunkwise form as one function to autograd: the fast path of ``mlstm_chunkwise``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..autocast import autocast_disabled
from ..double_backward import gradients
from ..naive import chunkwise
from ..scale_gradients import scale_gradients
from .causality import propagate_nans_causally
from .passes import span_bwd, span_fwd
from .spans import (
    Saved,
    SegmentWriter,
    Span,
    scan_spans_bwd,
    scan_spans_fwd,
)
from .tiling import batch_tile_size, map_batch_tiles

__all__ = ["ChunkwiseFunction", "tiled_bwd", "tiled_fwd", "differentiable_chunkwise_grad"]


class ChunkwiseFunction(torch.autograd.Function):
    """``chunkwise`` with a backward of its own.

    A second derivative is supported, at the speed of plain autograd: where the backward is itself
    to be differentiated, it goes through the plain form.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_i: Tensor,
        log_f: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
        L: int,
        factored: bool,
    ) -> tuple[Tensor, ...]:
        """Return h, the last c, n and m, and three that only the backward pass needs.

        L is at most T.
        """
        return tiled_fwd(q, k, v, log_i, log_f, c, n, m, L, factored)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass needs."""
        *tensors, ctx.L, ctx.factored = inputs
        h, c, n, _, *saved = output
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(*tensors, h, c, n, *saved)
        ctx.set_materialize_grads(False)  # the last state is rarely part of a loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v, log_i, log_f, c, n and m, and two None."""
        saved, L = ctx.saved_tensors, ctx.L
        grads = grads[:4]
        with autocast_disabled(saved[0].device):
            if torch.is_grad_enabled():
                return *differentiable_chunkwise_grad(saved[:8], grads, L), None, None
            return *tiled_bwd(saved, grads, L, ctx.factored), None, None


def differentiable_chunkwise_grad(
    inputs: Sequence[Tensor], grads: Sequence[Tensor | None], L: int
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the eight inputs by the plain form, which autograd can follow."""
    q, k, v, log_i, log_f, c, n, m = inputs
    outputs = chunkwise(q, k, v, log_i, log_f, c, n, m, L)
    return gradients(outputs, tuple(grads), tuple(inputs))


def tiled_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    L: int,
    factored: bool,
) -> tuple[Tensor, ...]:
    """Return h, the last c, n and m, and three that only the backward pass needs."""
    inputs = (q, k, v, log_i, log_f, c, n, m)
    return map_batch_tiles(partial(_forward, L, factored), inputs, _samples(q, L))


def tiled_bwd(
    saved: Sequence[Tensor], grads: Sequence[Tensor | None], L: int, factored: bool
) -> tuple[Tensor, ...]:
    """Return the gradients of the eight inputs, from these, h, the last c and n, and the three."""
    function = partial(_backward, L, factored)
    return map_batch_tiles(function, (*saved, *grads), _samples(saved[0], L))


def _forward(L: int, factored: bool, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run samples span by span."""
    sequences, first = inputs[:5], inputs[5:]
    T = sequences[0].shape[2]
    read = partial(span_fwd, L, factored)

    def run(span: Span, *state: Tensor) -> Any:
        results = propagate_nans_causally(read, *(x[:, :, span.steps] for x in sequences), *state)
        h, c, n, m, normalizer, states = results
        return (h,), (c, n, m), normalizer, states

    h = SegmentWriter(2, T)
    last, saved = scan_spans_fwd(run, first, T, L, [h])
    return h.result(), *last, *saved


def _backward(
    L: int,
    factored: bool,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    h: Tensor,
    last_c: Tensor,
    last_n: Tensor,
    normalizer: Tensor,
    states: Tensor,
    scales: Tensor,
    grad_h: Tensor | None,
    *grad_state: Tensor | None,
) -> tuple[Tensor, ...]:
    """Go back span by span, for samples."""
    sequences, T = (q, k, v, log_i, log_f), q.shape[2]
    joiners = [SegmentWriter(2, T) for _ in sequences]

    def run(
        span: Span, part: Saved, grad_c: Tensor | None, grad_n: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        *inputs, read = (x[:, :, span.steps] for x in (*sequences, h))
        of_read = None if grad_h is None else grad_h[:, :, span.steps]
        *grads, of_c, of_n, of_m = span_bwd(
            L, factored, inputs, read, part, of_read, grad_c, grad_n
        )
        for joiner, grad in zip(joiners, grads, strict=True):
            joiner.put(span.steps.start, grad)
        return of_c, of_n, of_m

    saved = Saved(normalizer, states, scales)
    of_c, of_n, of_m = scan_spans_bwd(run, saved, T, L, *grad_state[:2])
    of_q, of_k, of_v, of_i, of_f = (joiner.result() for joiner in joiners)
    through_scale = scale_gradients(log_i, log_f, m, last_c, last_n, *grad_state)
    if through_scale is not None:
        to_i, to_f, to_m = through_scale
        of_i, of_f, of_m = of_i + to_i, of_f + to_f, of_m + to_m
    return of_q, of_k, of_v, of_i, of_f, of_c, of_n, of_m


def _samples(q: Tensor, L: int) -> int:
    B, NH, T, _ = q.shape
    return batch_tile_size(q, B, 2 * NH * T * L)  # an L×L product is read and written
