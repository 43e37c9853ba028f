"""The chunkwise form as one function to autograd: the fast path of ``mlstm_chunkwise``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ._blocks import by_blocks, samples_per_block
from ._causality import read_causally
from ._chunkwise import chunkwise
from ._derivatives import gradients
from ._passes import backward_pass, forward_pass
from ._precision import full_precision
from ._scale_gradients import scale_gradients
from ._spans import (
    PieceJoiner,
    Saved,
    Span,
    carry_backward,
    carry_forward,
)

__all__ = ["Chunkwise", "backward_by_blocks", "forward_by_blocks", "gradients_to_differentiate"]


class Chunkwise(torch.autograd.Function):
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
        return forward_by_blocks(q, k, v, log_i, log_f, c, n, m, L, factored)

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
        with full_precision(saved[0].device):
            if torch.is_grad_enabled():
                return *gradients_to_differentiate(saved[:8], grads, L), None, None
            return *backward_by_blocks(saved, grads, L, ctx.factored), None, None


def gradients_to_differentiate(
    inputs: Sequence[Tensor], grads: Sequence[Tensor | None], L: int
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the eight inputs by the plain form, which autograd can follow."""
    q, k, v, log_i, log_f, c, n, m = inputs
    outputs = chunkwise(q, k, v, log_i, log_f, c, n, m, L)
    return gradients(outputs, tuple(grads), tuple(inputs))


def forward_by_blocks(
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
    return by_blocks(partial(_forward, L, factored), inputs, _samples(q, L))


def backward_by_blocks(
    saved: Sequence[Tensor], grads: Sequence[Tensor | None], L: int, factored: bool
) -> tuple[Tensor, ...]:
    """Return the gradients of the eight inputs, from these, h, the last c and n, and the three."""
    function = partial(_backward, L, factored)
    return by_blocks(function, (*saved, *grads), _samples(saved[0], L))


def _forward(L: int, factored: bool, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run samples span by span."""
    sequences, first = inputs[:5], inputs[5:]
    T = sequences[0].shape[2]
    read = partial(forward_pass, L, factored)

    def run(span: Span, *state: Tensor) -> Any:
        results = read_causally(read, *(x[:, :, span.steps] for x in sequences), *state)
        h, c, n, m, normalizer, states = results
        return (h,), (c, n, m), normalizer, states

    h = PieceJoiner(2, T)
    last, saved = carry_forward(run, first, T, L, [h])
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
    joiners = [PieceJoiner(2, T) for _ in sequences]

    def run(
        span: Span, part: Saved, grad_c: Tensor | None, grad_n: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        *inputs, read = (x[:, :, span.steps] for x in (*sequences, h))
        of_read = None if grad_h is None else grad_h[:, :, span.steps]
        *grads, of_c, of_n, of_m = backward_pass(
            L, factored, inputs, read, part, of_read, grad_c, grad_n
        )
        for joiner, grad in zip(joiners, grads, strict=True):
            joiner.put(span.steps.start, grad)
        return of_c, of_n, of_m

    saved = Saved(normalizer, states, scales)
    of_c, of_n, of_m = carry_backward(run, saved, T, L, *grad_state[:2])
    of_q, of_k, of_v, of_i, of_f = (joiner.result() for joiner in joiners)
    through_scale = scale_gradients(log_i, log_f, m, last_c, last_n, *grad_state)
    if through_scale is not None:
        to_i, to_f, to_m = through_scale
        of_i, of_f, of_m = of_i + to_i, of_f + to_f, of_m + to_m
    return of_q, of_k, of_v, of_i, of_f, of_c, of_n, of_m


def _samples(q: Tensor, L: int) -> int:
    B, NH, T, _ = q.shape
    return samples_per_block(q, B, 2 * NH * T * L)  # an L×L product is read and written
