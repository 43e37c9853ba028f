"""The kernel as an operator, which ``torch.compile`` takes as a whole."""

from typing import Any

import torch
from torch import Tensor

from ..autocast import autocast_disabled
from ..overflow import raise_on_overflow
from .gated import (
    gated_bwd,
    gated_fwd,
)

__all__ = ["kernel_operator"]


@torch.library.custom_op("pytorch_forecasting_mlstm::gated_kernel", mutates_args=())
def kernel_operator(
    p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gated h and the last c and n, as ``GatedKernel`` without norms."""
    with autocast_disabled(p.device):
        results = gated_fwd([p], c, n, padding)
    given = {"the projected x": p, "state c": c, "state n": n}
    raise_on_overflow("mLSTMLayer", results, lambda: given)
    return results


@kernel_operator.register_fake
def _(p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    B, T = p.shape[:2]
    h = p.new_empty(T, B, n.shape[1] * n.shape[2]).transpose(0, 1)
    return h, p.new_empty(c.shape), p.new_empty(n.shape)


@torch.library.custom_op("pytorch_forecasting_mlstm::gated_kernel_backward", mutates_args=())
def _backward_operator(
    p: Tensor,
    c: Tensor,
    n: Tensor,
    padding: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    with autocast_disabled(p.device):
        (of_p,), *of_state = gated_bwd([p], c, n, padding, grad_h, grad_c, grad_n)
        of_c, of_n = of_state
        return of_p, of_c, of_n


@_backward_operator.register_fake
def _(p: Tensor, c: Tensor, n: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return p.new_empty(p.shape), p.new_empty(c.shape), p.new_empty(n.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward_operator(*ctx.saved_tensors, *grads), None


kernel_operator.register_autograd(_backward, setup_context=_setup_context)
