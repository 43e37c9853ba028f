"""``mlstm_chunkwise`` by the kernel: without an output gate, and with gates of any size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...preactivations import Projections
from ..autocast import autocast_disabled
from ..chunkwise.recurrence import (
    differentiable_chunkwise_grad,
)
from ..chunkwise.tiling import default_chunk_size
from ..scale_gradients import scale_gradients
from .bindings import (
    Gradients,
    RecurrenceInputs,
    kernel_backward,
    kernel_forward,
    stabilize,
)
from .gated import (
    dense_rows,
    own,
    own_gradient,
)

__all__ = ["ChunkwiseKernel"]


class ChunkwiseKernel(torch.autograd.Function):
    """q, k, v (B, NH, T, d), log_i, log_f (B, NH, T), c, n, m: h, and the last c, n and m.

    A second derivative is supported, at the speed of plain autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_i: Tensor,
        log_f: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
    ) -> tuple[Tensor, ...]:
        i, f, e, last_m = stabilize(log_i, log_f, m)
        last_c, last_n = own(c), own(n)
        h = v.new_empty(v.shape)
        kernel_forward(_steps(q, k, v, i, f, e), _rows(h)[:, :, 0], *_heads(last_c, last_n))
        ctx.save_for_backward(q, k, v, log_i, log_f, c, n, m, last_c, last_n)
        ctx.set_materialize_grads(False)
        return h, last_c, last_n, last_m

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, last_c, last_n = ctx.saved_tensors
        with autocast_disabled(inputs[0].device):
            if torch.is_grad_enabled():
                L = default_chunk_size(*inputs[0].shape[2:])
                return differentiable_chunkwise_grad(inputs, grads, L)
            return _backward(inputs, (last_c, last_n), grads)


def _backward(
    inputs: Sequence[Tensor], last: tuple[Tensor, Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Return the gradients of the eight inputs, given those of the results."""
    q, k, v, log_i, log_f, c, n, m = inputs
    grad_h, grad_c, grad_n, grad_m = grads
    i, f, e, _ = stabilize(log_i, log_f, m)
    of_h = dense_rows(v.new_zeros(v.shape) if grad_h is None else grad_h)
    of_c, of_n = own_gradient(grad_c, c), own_gradient(grad_n, n)
    of_q, of_k, of_v = (v.new_empty(v.shape) for _ in range(3))
    of_i, of_f = torch.empty_like(i), torch.empty_like(f)
    no_gate = _rows(of_q)  # not written to
    into = Projections(_rows(of_q), _rows(of_k), _rows(of_v), _gate(of_i), _gate(of_f), no_gate)
    kernel_backward(
        _steps(q, k, v, i, f, e),
        *_heads(c.contiguous(), n.contiguous()),
        Gradients(_rows(of_h)[:, :, 0], *_heads(of_c, of_n)),
        into,
    )
    # m is a constant to h, and scales the states
    of_m = (of_c * c).sum((-2, -1)) + (of_n * n).sum(-1)
    through_scale = scale_gradients(log_i, log_f, m, *last, grad_c, grad_n, grad_m)
    if through_scale is not None:
        to_i, to_f, to_m = through_scale
        of_i, of_f, of_m = of_i + to_i, of_f + to_f, of_m + to_m
    return of_q, of_k, of_v, of_i, of_f, of_c, of_n, of_m


def _steps(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, e: Tensor) -> RecurrenceInputs:
    q, k, v = (_rows(dense_rows(x)) for x in (q, k, v))
    return RecurrenceInputs(q, k, v, None, _gate(i), _gate(f), _gate(e), 1.0)


# To the kernel every head is a sample with one head.


def _rows(x: Tensor) -> Tensor:
    """View (B, NH, T, d) as (B NH, T, 1, d), or copy what cannot be."""
    return x.flatten(0, 1)[:, :, None]


def _gate(x: Tensor) -> Tensor:
    """View dense (B, NH, T) as (B NH, T, 1)."""
    return x.view(-1, x.shape[-1], 1)


def _heads(c: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """View dense (B, NH, d, d) and (B, NH, d) as (B NH, 1, ...)."""
    return c.view(-1, 1, *c.shape[2:]), n.view(-1, 1, n.shape[-1])
