"""The chunkwise form as one function to autograd: the fast path of ``mlstm_chunkwise``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ._blocks import by_blocks, samples_per_block
from ._chunkwise import chunkwise
from ._derivatives import gradients
from ._passes import backward_pass, forward_pass
from ._precision import full_precision

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
        """Return h, the last c, n and m, and two that only the backward pass needs.

        L is at most T.
        """
        return forward_by_blocks(q, k, v, log_i, log_f, c, n, m, L, factored)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass needs."""
        *tensors, ctx.L, ctx.factored = inputs
        h, _, _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*tensors, h, *kept)
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
    """Return h, the last c, n and m, and two that only the backward pass needs."""
    inputs = (q, k, v, log_i, log_f, c, n, m)
    return by_blocks(partial(forward_pass, L, factored), inputs, _samples(q, L))


def backward_by_blocks(
    saved: Sequence[Tensor], grads: Sequence[Tensor | None], L: int, factored: bool
) -> tuple[Tensor, ...]:
    """Return the gradients of the eight inputs, from these, h and the two that were kept."""
    function = partial(backward_pass, L, factored)
    return by_blocks(function, (*saved, *grads), _samples(saved[0], L))


def _samples(q: Tensor, L: int) -> int:
    B, NH, T, _ = q.shape
    return samples_per_block(q, B, 2 * NH * T * L)  # an L×L product is read and written
