"""The chunkwise form as one operator, which ``torch.compile`` takes as a whole.

A trace of what is inside would be some two hundred nodes, nearly each with a division of T in its
shape: with a changing T it took the compiler minutes. As one operator it is computed as it is
without a compiler, blocks and factors included; the compiler joins what stands around it.

h and what is kept for the backward pass are padded to whole chunks, of a length that does not
depend on T.
"""

from typing import Any

import torch
from torch import Tensor

from .autocast import autocast_disabled
from .chunkwise.decay import is_factorable
from .chunkwise.recurrence import (
    tiled_bwd,
    tiled_fwd,
)
from .chunkwise.spans import saved_shapes
from .execution import is_eager_on_cpu
from .overflow import raise_on_overflow

__all__ = ["chunkwise_operator"]


@torch.library.custom_op("pytorch_forecasting_mlstm::chunkwise", mutates_args=())
def chunkwise_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    L: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return h, c, n, m and what the backward pass needs, for a multiple of L steps."""
    with autocast_disabled(q.device):
        factored = _factored(log_i, log_f, L)
        inputs = (q, k, v, log_i, log_f, c, n, m)
        results = tiled_fwd(*inputs, L, factored)
        names = ("q", "k", "v", "log_i", "log_f", "state.c", "state.n", "state.m")
        raise_on_overflow(
            "mlstm_chunkwise", results[:4], lambda: dict(zip(names, inputs, strict=True))
        )
    h, c, n, m, normalizer, states, scales = results
    return (
        h.contiguous(),
        c.contiguous(),
        n.contiguous(),
        m.contiguous(),
        normalizer.contiguous(),
        states.contiguous(),
        scales.contiguous(),
    )


@chunkwise_operator.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    L: int,
) -> tuple[Tensor, ...]:
    shapes = (v.shape, c.shape, n.shape, m.shape, *saved_shapes(c, log_i.shape[2], L))
    return tuple(q.new_empty(shape) for shape in shapes)


@torch.library.custom_op("pytorch_forecasting_mlstm::chunkwise_backward", mutates_args=())
def _backward_operator(
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
    grad_c: Tensor | None,
    grad_n: Tensor | None,
    grad_m: Tensor | None,
    L: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with autocast_disabled(q.device):
        results = (h, last_c, last_n, normalizer, states, scales)
        saved = (q, k, v, log_i, log_f, c, n, m, *results)
        grads = (grad_h, grad_c, grad_n, grad_m)
        found = tiled_bwd(saved, grads, L, _factored(log_i, log_f, L))
    one, two, three, four, five, six, seven, eight = (x.contiguous() for x in found)
    return one, two, three, four, five, six, seven, eight


@_backward_operator.register_fake
def _(q: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(q.new_empty(x.shape) for x in (q, *others[:7]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.L = inputs
    h, c, n, _, *saved = output
    ctx.save_for_backward(*tensors, h, c, n, *saved)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward_operator(*ctx.saved_tensors, *grads[:4], ctx.L), None


chunkwise_operator.register_autograd(_backward, setup_context=_setup_context)


def _factored(log_i: Tensor, log_f: Tensor, L: int) -> bool:
    return is_eager_on_cpu(log_i) and is_factorable(log_i, log_f, L)
