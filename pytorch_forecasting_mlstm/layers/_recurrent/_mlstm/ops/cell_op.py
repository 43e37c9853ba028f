"""A whole cell for ``torch.compile``: the custom op that is opaque to it, and its backward pass.

A graph serves any number of samples and steps. So the op decides when it runs whether the form of
the whole cell pays off, as eager code does before it is called. Like the ops of ``autograd.py`` it
is not used eagerly: it supports no dropout, no transforms and no second derivative.

Dimensions: B batch, T time, NH heads, d head size, H = NH·d.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .autocast import autocast_disabled
from .cell_in_parts import cell_in_parts_backward, cell_in_parts_forward
from .dispatch import BACKENDS
from .last_step import index_last, select_last
from .layer_norm import LayerNormParams
from .overflow import raise_on_overflow
from .protocol import CellForms, CellInputs
from .types import OutputGrads, mLSTMState

__all__ = ["cell_compiled", "cell_op"]


def cell_compiled(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: mLSTMState,
    padding: Tensor | None,
    norms: Sequence[Any],
    backend: str,
) -> list[Tensor]:
    """Return the gated h (B, T, H), in the order of x, its last valid step, and the last c and n.

    A graph has a gradient of the last step, usually zeros. If it were selected outside of the op,
    the graph would add them to the gradient of h, in a pass over the sequence.
    """
    # Torch 2.7 traces no bool().
    steps_first = True if x.stride(1) > x.stride(0) else False  # noqa: SIM210
    eps, affine = (norms[0], list(norms[1:])) if norms else (0.0, [])
    result: list[Tensor] = cell_op(
        x, weight, bias, [state.c, state.n], padding, affine, eps, backend, steps_first
    )
    return result


@torch.library.custom_op("pytorch_forecasting_mlstm::cell", mutates_args=())
def cell_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: list[Tensor],
    padding: Tensor | None,
    affine: list[Tensor],
    eps: float,
    backend: str,
    steps_first: bool,
) -> list[Tensor]:
    """Return what ``cell_compiled`` does, for the true c and n before the first step.

    ``affine`` are the weights and biases of the layer norms, if there are any. Of ``steps_first``,
    see ``_ordered``.
    """
    inputs = _inputs(x, weight, bias, state, padding, affine, eps)
    with autocast_disabled(x.device):
        whole = _whole(backend, x, weight)
        if whole is not None:
            h, last = whole.forward(inputs)
        else:
            h, last = cell_in_parts_forward(inputs, BACKENDS[backend])

    def named() -> dict[str, Tensor]:
        norms = {f"layer norm parameter {number}": part for number, part in enumerate(affine)}
        state_c, state_n = state
        parameters = {"projection.weight": weight, "projection.bias": bias, **norms}
        return {"x": x, "state c": state_c, "state n": state_n, **parameters}

    raise_on_overflow("mLSTMLayer", (h, last.c, last.n), named)
    last_h = select_last(h, padding).clone()
    return [_ordered(h, steps_first), last_h, last.c.contiguous(), last.n.contiguous()]


@cell_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: list[Tensor],
    padding: Tensor | None,
    affine: list[Tensor],
    eps: float,
    backend: str,
    steps_first: bool,
) -> list[Tensor]:
    B, NH, d = state[1].shape
    h, last_h = _empty(x, NH * d, steps_first), x.new_empty(B, NH * d)
    return [h, last_h, *(part.new_empty(part.shape) for part in state)]


@torch.library.custom_op("pytorch_forecasting_mlstm::cell_backward", mutates_args=())
def _cell_bwd_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: list[Tensor],
    padding: Tensor | None,
    affine: list[Tensor],
    grads: list[Tensor | None],
    eps: float,
    backend: str,
    steps_first: bool,
    needs_x: bool,
) -> list[Tensor]:
    """Return the gradients of weight, bias, c, n and affine, and of x if it needs one."""
    inputs = _inputs(x, weight, bias, state, padding, affine, eps)
    output_grads = OutputGrads(_join_grads(inputs, grads[0], grads[1]), grads[2], grads[3], None)
    with autocast_disabled(x.device):
        whole = _whole(backend, x, weight)
        if whole is not None:
            result = whole.backward(inputs, output_grads, needs_x)
        else:
            result = cell_in_parts_backward(inputs, output_grads, needs_x, BACKENDS[backend])
    dense = [part.contiguous() for part in (result.weight, result.bias, result.c, result.n)]
    # They are views of one tensor, which an op may not return.
    norms = [part.clone() for part in result.norms]
    return [*dense, *norms, *([] if result.x is None else [_ordered(result.x, steps_first)])]


@_cell_bwd_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: list[Tensor],
    padding: Tensor | None,
    affine: list[Tensor],
    grads: list[Tensor | None],
    eps: float,
    backend: str,
    steps_first: bool,
    needs_x: bool,
) -> list[Tensor]:
    grad_x = [_empty(x, x.shape[-1], steps_first)] if needs_x else []
    return [*(part.new_empty(part.shape) for part in (weight, bias, *state, *affine)), *grad_x]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, weight, bias, state, padding, affine, ctx.eps, ctx.backend, ctx.steps_first = inputs
    ctx.save_for_backward(x, weight, bias, *state, padding, *affine)
    ctx.set_materialize_grads(False)  # the last state is rarely part of a loss


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    x, weight, bias, c, n, padding, *affine = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    constants = (ctx.eps, ctx.backend, ctx.steps_first, needs_x)
    grad_weight, grad_bias, grad_c, grad_n, *rest = _cell_bwd_op(
        x, weight, bias, [c, n], padding, affine, grads, *constants
    )
    grad_x = rest.pop() if needs_x else None
    return grad_x, grad_weight, grad_bias, [grad_c, grad_n], None, rest, None, None, None


cell_op.register_autograd(_backward, setup_context=_setup)


def _inputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: Sequence[Tensor],
    padding: Tensor | None,
    affine: Sequence[Tensor],
    eps: float,
) -> CellInputs:
    norms = LayerNormParams.of(eps, *affine) if affine else None
    c, n = state
    return CellInputs(x, weight, bias, norms, mLSTMState(c, n, n.new_zeros(n.shape[:2])), padding)


def _whole(backend: str, x: Tensor, weight: Tensor) -> CellForms | None:
    """Return the forms of the whole cell, or None if those of its parts take less time."""
    forms = BACKENDS[backend].cell
    assert forms is not None
    return forms if forms.pays_off(x, weight) else None


def _join_grads(
    inputs: CellInputs, grad_h: Tensor | None, grad_last_h: Tensor | None
) -> Tensor | None:
    """Return the gradient of h, given those of all steps and of the last one."""
    if grad_last_h is None or not grad_last_h.any():
        return grad_h
    (B, T), padding = inputs.x.shape[:2], inputs.padding
    joined = grad_last_h.new_zeros(B, T, grad_last_h.shape[1]) if grad_h is None else grad_h.clone()
    joined[(slice(None), -1) if padding is None else index_last(padding)] += grad_last_h
    return joined


# The graph of a compiler depends on the order of tensors in memory.


def _ordered(x: Tensor, steps_first: bool) -> Tensor:
    """Return x (B, T, ...) with its steps or its samples first in memory."""
    return x.transpose(0, 1).contiguous().transpose(0, 1) if steps_first else x.contiguous()


def _empty(x: Tensor, width: int, steps_first: bool) -> Tensor:
    """Return an empty (B, T, width) in this order, for x (B, T, ...)."""
    B, T = x.shape[:2]
    return x.new_empty(T, B, width).transpose(0, 1) if steps_first else x.new_empty(B, T, width)
