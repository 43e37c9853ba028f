"""A whole cell for autograd: projection, layer norms and recurrence as one operation."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast import autocast_disabled
from .cell_op import cell_compiled
from .dispatch import BACKENDS
from .double_backward import differentiable_grad, is_batch
from .dropout_draw import DropoutDraw, dropout_mask
from .execution import is_compiling
from .layer_norm import LayerNormParams
from .naive import naive_gated, rescale_state
from .protocol import CellInputs
from .types import OutputGrads, mLSTMState

__all__ = ["CellFunction", "whole_cell"]


def whole_cell(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: mLSTMState,
    padding: Tensor | None,
    norms: Sequence[Any],
    backend: str,
    dropout: DropoutDraw | None = None,
) -> tuple[Tensor, Tensor | None, mLSTMState]:
    """Return the gated h (B, T, H), its last valid step and the last state.

    The arguments are those of ``CellFunction``. The step is None in eager mode.
    """
    if is_compiling():  # dropout, if there is any, is compiled
        h, last_h, c, n = cell_compiled(x, weight, bias, state, padding, norms, backend)
        return h, last_h, mLSTMState(c, n, state.m)
    drawn = dropout or (None, None, 0.0)
    h, c, n = CellFunction.apply(x, weight, bias, *state, padding, *drawn, backend, *norms)
    return h, None, mLSTMState(c, n, state.m)


class CellFunction(torch.autograd.Function):
    """A whole cell in eager mode.

    It maps (x, weight, bias, c, n, m, padding, x_bits, h_bits, p, backend, *norms) to (h, the last
    c and n), for m of 0. Bits and p are those of ``DropoutDraw``; bits of None drop nothing. The
    norms are the arguments of ``LayerNormParams.of``, or nothing. h (B, T, H) lies in memory in the
    order of x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
        padding: Tensor | None,
        x_bits: Tensor | None,
        h_bits: Tensor | None,
        p: float,
        backend: str,
        *norms: Any,
    ) -> tuple[Tensor, ...]:
        ctx.backend, ctx.eps, ctx.p = backend, norms[:1], p
        tensors = (x, weight, bias, c, n, m, padding, x_bits, h_bits)
        ctx.save_for_backward(*tensors, *norms[1:])
        ctx.set_materialize_grads(False)  # the last state is rarely part of a loss
        h, last = _forms(backend).forward(_inputs(norms, p, *tensors))
        return h, last.c, last.n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # unpacked only once
        x, weight, bias, c, n, m, padding, x_bits, h_bits, *affine = saved
        tensors, norms = (x, weight, bias, c, n, m), (*ctx.eps, *affine)
        inputs = _inputs(norms, ctx.p, *tensors, padding, x_bits, h_bits)
        # padding, both bits, p, backend, eps
        constants = (None, None, None, None, None, *(None for _ in ctx.eps))
        if torch.is_grad_enabled() or any(map(is_batch, grads)):

            def naive(*tensors: Tensor) -> tuple[Tensor, ...]:
                x, weight, bias, c, n, m, *affine = tensors
                p = F.linear(_drop(x, x_bits, ctx.p), weight, bias)
                h, last = naive_gated(p, mLSTMState(c, n, m), padding, *ctx.eps, *affine)
                return _drop(h, h_bits, ctx.p), *rescale_state(last, m)[:2]

            with torch.enable_grad(), autocast_disabled(x.device):
                x, weight, bias, c, n, m, *affine_grads = differentiable_grad(
                    naive, (*tensors, *affine), grads
                )
            return x, weight, bias, c, n, m, *constants, *affine_grads
        output_grads = OutputGrads(grads[0], grads[1], grads[2], None)
        result = _forms(ctx.backend).backward(inputs, output_grads, ctx.needs_input_grad[0])
        return *result[:3], result.c, result.n, None, *constants, *result.norms


def _forms(backend: str) -> Any:
    return BACKENDS[backend].cell


def _drop(x: Tensor, bits: Tensor | None, p: float) -> Tensor:
    return x if bits is None else x * dropout_mask(bits, p, x.dtype)


def _inputs(
    norms: Sequence[Any],
    p: float,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    padding: Tensor | None,
    x_bits: Tensor | None,
    h_bits: Tensor | None,
) -> CellInputs:
    params = LayerNormParams.of(*norms) if norms else None
    drawn = None if x_bits is None or h_bits is None else DropoutDraw(x_bits, h_bits, p)
    return CellInputs(x, weight, bias, params, mLSTMState(c, n, m), padding, drawn)
