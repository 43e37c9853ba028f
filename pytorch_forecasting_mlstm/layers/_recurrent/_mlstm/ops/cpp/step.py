"""The single step of a cell in C++, with derivatives."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...norms import CellNorms, HeadNorm, LayerNorm, normalize_heads
from ..double_backward import differentiable_grad
from ..execution import is_eager_on_cpu
from ..step import step as pytorch_step
from ..types import StepResult
from .step_bindings import NORMS, StepInputs, kernel_step, kernel_step_backward

__all__ = ["step", "supports_step"]

_TENSORS = (Tensor, nn.Parameter)  # subclasses may override operations
_DTYPES = (torch.float32, torch.float64)


def supports_step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> bool:
    """Whether the kernel supports this step: it reads plain tensors and calls no module."""
    (B, H), NH = n.shape, c.shape[1]
    return (
        p.dtype in _DTYPES
        and p.dtype == c.dtype == n.dtype
        and p.shape == (B, 4 * H + 2 * NH)
        and type(p) in _TENSORS
        and type(c) in _TENSORS
        and type(n) in _TENSORS
        and is_eager_on_cpu(p)
        and all(_is_plain(norm, H, p.dtype) for norm in (*(norms.parts or ())[:3], norms.heads))
        and (norms.parts is None or _is_plain(norms.parts[3], H + 2 * NH, p.dtype))
    )


def _is_plain(norm: object, width: int, dtype: torch.dtype) -> bool:
    """Whether calling this norm does nothing that the kernel does not."""
    if norm is None or type(norm) is nn.Identity:
        return True
    return (
        isinstance(norm, LayerNorm | HeadNorm)
        and type(norm) in (LayerNorm, HeadNorm)  # not a subclass
        and not (norm._forward_hooks or norm._forward_pre_hooks)
        and not (norm._backward_hooks or norm._backward_pre_hooks)
        and all(
            x.shape == (width,) and x.dtype == dtype and x.is_cpu and type(x) in _TENSORS
            for x in (norm.weight, norm.bias)
            if x is not None
        )
    )


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult:
    """Take a step, differentiable any number of times, with what ``supports_step`` accepts."""
    modules = (*(norms.parts or (None,) * 4), norms.heads)
    weights, biases = (
        [getattr(module, name, None) for module in modules] for name in ("weight", "bias")
    )
    eps = [getattr(module, "eps", 0.0) for module in modules]
    if torch.is_grad_enabled():
        return StepResult(*_StepFunction.apply(p, c, n, eps, *weights, *biases))
    return StepResult(*kernel_step(_dense_inputs(p, c, n, eps, *weights, *biases)))


def _dense_inputs(
    p: Tensor, c: Tensor, n: Tensor, eps: Sequence[float], *affine: Tensor | None
) -> StepInputs:
    dense = [None if x is None else x.contiguous() for x in affine]
    return StepInputs(
        p.contiguous(), c.contiguous(), n.contiguous(), dense[:NORMS], dense[NORMS:], eps
    )


class _StepFunction(torch.autograd.Function):
    """The step with a backward pass.

    It maps (p, c, n, eps, weights and biases of all norms) to (h, c, n, whether they are finite).
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, c: Tensor, n: Tensor, *norms: Any) -> tuple[Any, ...]:
        h, next_c, next_n, finite = kernel_step(_dense_inputs(p, c, n, *norms))
        ctx.eps, *affine = norms
        ctx.save_for_backward(p, c, n, next_c, next_n, *affine)
        ctx.set_materialize_grads(False)  # the state is rarely part of a loss
        return h, next_c, next_n, finite

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        p, c, n, next_c, next_n, *affine = ctx.saved_tensors
        if torch.is_grad_enabled():  # the result will be differentiated again
            *results, _ = pytorch_step(p, _as_norms(c.shape[1], ctx.eps, affine), c, n)
            inputs = [x for x in (p, c, n, *affine) if x is not None]
            found = dict(
                zip(map(id, inputs), differentiable_grad(results, grads[:3], inputs), strict=True)
            )
            first, rest = [found[id(x)] for x in (p, c, n)], [found.get(id(x)) for x in affine]
            return *first, None, *rest
        x = _dense_inputs(p, c, n, ctx.eps, *affine)
        dense = [None if grad is None else grad.contiguous() for grad in grads[:3]]
        first, weights, biases = kernel_step_backward(x, next_c, next_n, dense)
        return *first, None, *weights, *biases


def _as_norms(NH: int, eps: Sequence[float], affine: Sequence[Tensor | None]) -> CellNorms:
    """Return functions that compute what the modules do."""
    parts: list[Any] = []
    for weight, bias, number in zip(affine, affine[NORMS:], eps, strict=False):
        if weight is None:
            parts.append(lambda x: x)
        else:
            parts.append(partial(F.layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias, eps=number))
    weight = affine[NORMS-1]
    heads = None if weight is None else partial(normalize_heads, NH=NH, weight=weight, eps=eps[-1])
    return CellNorms(tuple(parts[:4]), heads)
