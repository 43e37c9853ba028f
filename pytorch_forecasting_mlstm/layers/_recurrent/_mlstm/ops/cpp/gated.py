"""From pre-activations to the gated read-out of a whole sequence, by the kernel."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...preactivations import (
    soft_cap,
    soft_cap_grad,
    split_heads,
)
from ..autocast import autocast_disabled
from ..chunkwise.gated import naive_gated
from ..double_backward import gradients
from ..layer_norm import (
    LayerNormParams,
    layer_norm_bwd,
    layer_norm_fwd,
)
from .bindings import (
    Gradients,
    RecurrenceInputs,
    kernel_backward,
    kernel_forward,
)

__all__ = [
    "GatedKernel",
    "dense_rows",
    "gated_bwd",
    "gated_fwd",
    "own",
    "own_gradient",
    "plain_form",
]


class GatedKernel(torch.autograd.Function):
    """What ``GatedFunction`` computes, with the true c and n: what m is there, is 0 here.

    Of the forward pass nothing is kept but its inputs. A second derivative is supported, at the
    speed of plain autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None, *norms: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.eps, affine = norms[:1], norms[1:]
        ctx.save_for_backward(p, c, n, padding, *affine)
        ctx.set_materialize_grads(False)
        with autocast_disabled(p.device):
            parts = layer_norm_fwd(p, LayerNormParams.of(*norms))[0] if norms else [p]
            return gated_fwd(parts, c, n, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        p, c, n, padding, *affine = ctx.saved_tensors
        norms, no_grad = (*ctx.eps, *affine), (None,) * len(ctx.eps)
        if torch.is_grad_enabled():
            outputs = plain_form(p, c, n, padding, *norms)
            of_p, of_c, of_n, *of_affine = gradients(outputs, grads, (p, c, n, *affine))
            return of_p, of_c, of_n, None, *no_grad, *of_affine
        with autocast_disabled(p.device):
            if not norms:
                (of_p,), *of_state = gated_bwd([p], c, n, padding, *grads)
                return of_p, *of_state, None
            parts, means, inverses = layer_norm_fwd(p, LayerNormParams.of(*norms))
            of_parts, *of_state = gated_bwd(parts, c, n, padding, *grads)
            of_p, of_norms = layer_norm_bwd(
                of_parts, p, means, inverses, LayerNormParams.of(*norms)
            )
        return of_p, *of_state, None, None, *of_norms


def plain_form(
    p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``GatedKernel`` does, by plain operations."""
    h, c, n, m = naive_gated(p, c, n, n.new_zeros(n.shape[:2]), padding, *norms)
    scale = m.exp()[..., None]
    return h, c * scale[..., None], n * scale


def gated_fwd(
    parts: Sequence[Tensor], c: Tensor, n: Tensor, padding: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gated h (B, T, H), in memory time first, and the last c and n."""
    (B, T), (_, NH, d, _) = parts[0].shape[:2], c.shape
    h = c.new_empty(T, B, NH * d).transpose(0, 1)
    c, n = own(c), own(n)
    kernel_forward(_numbers(parts, NH, padding), h, c, n)
    return h, c, n


def gated_bwd(
    parts: Sequence[Tensor],
    c: Tensor,
    n: Tensor,
    padding: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the gradients of the parts, of c and of n."""
    (B, T), (_, NH, d, _) = parts[0].shape[:2], c.shape
    of_parts = [part.new_empty(part.shape) for part in parts]
    into = split_heads(of_parts, NH)
    grads = Gradients(
        dense_rows(c.new_zeros(B, T, NH * d) if grad_h is None else grad_h),
        own_gradient(grad_c, c),
        own_gradient(grad_n, n),
    )
    x = _numbers(parts, NH, padding)
    kernel_backward(x, c.contiguous(), n.contiguous(), grads, into)
    into.i.mul_(soft_cap_grad(soft_cap(split_heads(parts, NH).i)))
    closing = torch.sigmoid(-split_heads(parts, NH).f)  # 1 - f, with all digits
    into.f.mul_(closing if padding is None else closing.masked_fill(padding, 0.0))
    return of_parts, grads.c, grads.n


def _numbers(parts: Sequence[Tensor], NH: int, padding: Tensor | None) -> RecurrenceInputs:
    """View pre-activations by part, with both gates as numbers, open at padding for the past."""
    x = split_heads([dense_rows(part) for part in parts], NH)
    # of an open gate f - 1, which is negative: see Steps
    i, f = torch.exp(soft_cap(x.i)), torch.copysign(torch.sigmoid(-x.f.abs()), -x.f)
    if padding is not None:
        i, f = i.masked_fill(padding, 0.0), f.masked_fill(padding, -0.0)
    i, f = i.contiguous(), f.contiguous()
    # the input gate is capped: the true memory stays in bounds, and nothing needs a stabilizer
    e = i.new_ones(NH).expand_as(i)
    return RecurrenceInputs(x.q, x.k, x.v, x.o, i, f, e, 1 / math.sqrt(x.q.shape[-1]))


def dense_rows(x: Tensor) -> Tensor:
    """Return a tensor whose last dimension is dense."""
    return x if x.stride(-1) == 1 else x.contiguous()


def own(x: Tensor) -> Tensor:
    """Return a dense copy."""
    return x.clone(memory_format=torch.contiguous_format)


def own_gradient(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return a dense copy of a gradient, or dense zeros, whatever the layout of what it is of."""
    return like.new_zeros(like.shape) if grad is None else own(grad)
