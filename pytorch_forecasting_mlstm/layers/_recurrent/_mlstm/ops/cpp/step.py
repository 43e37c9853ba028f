"""The single step of a cell in C++, with derivatives."""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...norms import CellNorms, HeadNorm, LayerNorm, normalize_heads
from ...plain_modules import runs_only_forward
from ..double_backward import differentiable_grad, is_batch
from ..execution import is_eager
from ..step import step as pytorch_step
from ..types import StepResult
from .step_bindings import NormParams, StepInputs, kernel_step, kernel_step_backward

__all__ = ["StepFunction", "as_functions", "step"]

_Params = tuple[Tensor | None, Tensor | None, float]

_NONE = (None,) * 5
_MAX_UNITS = 2**13  # of all samples; larger batches keep the threads of PyTorch busy
_NO_NORMS = NormParams(_NONE, _NONE, (0.0,) * 5)


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult | None:
    """Take a step, differentiable any number of times, if the kernel can."""
    if not (is_eager() and _are_supported(p, c, n)):
        return None
    params = _read_norms(norms, n.shape[1], c.shape[1], p.dtype)
    if params is None:
        return None
    if torch.is_grad_enabled():
        return StepResult(*StepFunction.apply(p, c, n, params.eps, *params.weights, *params.biases))
    return StepResult(*kernel_step(_dense(p, c, n, params)))


def _are_supported(p: Tensor, c: Tensor, n: Tensor) -> bool:
    (B, H), NH, dtype = n.shape, c.shape[1], p.dtype
    return (
        (dtype is torch.float32 or dtype is torch.float64)
        and B * H <= _MAX_UNITS
        and p.shape == (B, 4 * H + 2 * NH)
        and _is_plain(p, dtype)
        and _is_plain(c, dtype)
        and _is_plain(n, dtype)
    )


def _is_plain(x: object, dtype: torch.dtype) -> TypeGuard[Tensor]:
    """Whether this is a tensor of this dtype on the CPU, and not of a subclass."""
    return (type(x) is Tensor or type(x) is nn.Parameter) and x.dtype is dtype and x.is_cpu


def _dense(p: Tensor, c: Tensor, n: Tensor, norms: NormParams) -> StepInputs:
    return StepInputs(p.contiguous(), c.contiguous(), n.contiguous(), norms)


def _read_norms(norms: CellNorms, H: int, NH: int, dtype: torch.dtype) -> NormParams | None:
    """Return the parameters of all norms, or None unless calling these does nothing else."""
    if norms.parts is None and norms.heads is None:
        return _NO_NORMS
    read = [
        *map(_read_part_norm, norms.parts or _NONE[1:], (H, H, H, H + 2 * NH), (dtype,) * 4),
        _read_head_norm(norms.heads, H, NH, dtype),
    ]
    params = [part for part in read if part is not None]
    return NormParams(*zip(*params, strict=True)) if len(params) == len(read) else None


def _read_part_norm(norm: object, width: int, dtype: torch.dtype) -> _Params | None:
    """Return weight, bias and eps, or None unless calling this does nothing else."""
    if norm is None or type(norm) is nn.Identity:
        return None, None, 0.0
    if type(norm) is not LayerNorm or not runs_only_forward(norm):
        return None
    # The attribute norm.weight takes ten times as long.
    weight, bias = norm._parameters.get("weight"), norm._parameters.get("bias")
    if _is_vector(weight, width, dtype) and _is_vector(bias, width, dtype):
        return weight, bias, norm.eps
    return None


def _read_head_norm(norm: object, H: int, NH: int, dtype: torch.dtype) -> _Params | None:
    """Return the same, without a bias."""
    if norm is None or type(norm) is nn.Identity:
        return None, None, 0.0
    if type(norm) is not HeadNorm or norm.heads != NH or not runs_only_forward(norm):
        return None
    weight = norm._parameters.get("weight")
    return (weight, None, norm.eps) if _is_vector(weight, H, dtype) else None


def _is_vector(x: object, width: int, dtype: torch.dtype) -> TypeGuard[Tensor]:
    return _is_plain(x, dtype) and x.numel() == width and x.is_contiguous()


class StepFunction(torch.autograd.Function):
    """The step with a backward pass.

    It maps (p, c, n, eps, weights and biases of all norms) to (h, c, n, whether they are finite).
    """

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, c: Tensor, n: Tensor, eps: Sequence[float], *affine: Tensor | None
    ) -> tuple[Any, ...]:
        result = kernel_step(_dense(p, c, n, NormParams(affine[:5], affine[5:], eps)))
        ctx.eps = eps
        ctx.save_for_backward(p, c, n, *result[1:3], *affine)
        ctx.set_materialize_grads(False)  # the state is rarely part of a loss
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        p, c, n, next_c, next_n, *affine = ctx.saved_tensors
        if torch.is_grad_enabled() or any(map(is_batch, grads[:3])):
            eps, NH = ctx.eps, c.shape[1]

            def naive(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> tuple[Tensor, ...]:
                norms = as_functions(NormParams(affine[:5], affine[5:], eps), NH)
                return pytorch_step(p, norms, c, n)[:3]

            with torch.enable_grad():
                grad_p, grad_c, grad_n, *rest = differentiable_grad(
                    naive, (p, c, n, *affine), grads[:3]
                )
            return grad_p, grad_c, grad_n, None, *rest
        x = _dense(p, c, n, NormParams(affine[:5], affine[5:], ctx.eps))
        dense = [None if grad is None else grad.contiguous() for grad in grads[:3]]
        inputs_grads, weights, biases = kernel_step_backward(x, next_c, next_n, dense)
        return *inputs_grads, None, *weights, *biases


def as_functions(norms: NormParams, NH: int) -> CellNorms:
    """Return functions that compute what the modules do."""
    *parts, heads = (
        partial(_normalize, weight=weight, bias=bias, eps=eps)
        for weight, bias, eps in zip(*norms, strict=True)
    )
    weight = norms.weights[-1]
    if weight is not None:
        heads = partial(normalize_heads, NH=NH, weight=weight, eps=norms.eps[-1])
    norm_q, norm_k, norm_v, norm_gates = parts
    return CellNorms((norm_q, norm_k, norm_v, norm_gates), heads)


def _normalize(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return x if weight is None else F.layer_norm(x, weight.shape, weight, bias, eps)
