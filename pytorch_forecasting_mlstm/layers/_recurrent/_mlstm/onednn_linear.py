"""A linear layer that uses the fastest matrix product for many rows on this processor."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops.execution import is_compiling, is_eager
from .plain_modules import is_plain_parameter, runs_only_forward

__all__ = ["OneDNNLinear", "is_plain_linear", "linear", "linear_backward"]

_MIN_ROWS = 512  # oneDNN pays off from here


class OneDNNLinear(nn.Linear):
    """:class:`torch.nn.Linear`, computed with oneDNN where available.

    torch multiplies dense float32 matrices with MKL, which uses AVX-512 on Intel processors only.
    On other processors oneDNN, which torch uses for its LSTM, is more than twice as fast.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias``."""
        if is_eager() and not _has_many_rows(input) or not _is_plain(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if is_compiling():
            rows: Tensor = _linear_op(input.flatten(0, -2), self.weight, self.bias)
        elif is_eager() and _suits_onednn(input):
            rows = _OneDNNFunction.apply(input.flatten(0, -2), self.weight, self.bias)
        else:
            return F.linear(input, self.weight, self.bias)
        return rows.unflatten(0, input.shape[:-1])


def is_plain_linear(module: nn.Module, x: Tensor, shape: tuple[int, int]) -> bool:
    """Whether a call is :func:`torch.nn.functional.linear` with a weight of this shape, no more."""
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    return (
        type(module) is OneDNNLinear
        and runs_only_forward(module)
        and is_plain_parameter(weight, x, shape)
        and is_plain_parameter(bias, x, shape[:1])
    )


class _OneDNNFunction(torch.autograd.Function):
    """``F.linear`` of x (R, in), with both passes in oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # the result will be differentiated again
            return grad @ weight, grad.mT @ x, grad.sum(0)
        needs_x, *needs_parameters = ctx.needs_input_grad
        grad_x = _product(grad, weight.mT, None) if needs_x else None
        grad_parameters = _parameter_grads(grad, x) if any(needs_parameters) else (None, None)
        return grad_x, *grad_parameters


# Both passes without autograd, as custom ops run them.


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``F.linear`` of dense x (R, in) on the CPU."""
    return _product(x, weight, bias) if _suits_onednn(x) else F.linear(x, weight, bias)


def linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of x, or None, of weight and of bias."""
    if _suits_onednn(x):
        grad_x = _product(grad, weight.mT, None) if needs_x else None
        return grad_x, *_parameter_grads(grad, x)
    return grad @ weight if needs_x else None, grad.mT @ x, grad.sum(0)


# For torch.compile, which would otherwise compile F.linear.


@torch.library.custom_op("pytorch_forecasting_mlstm::onednn_linear", mutates_args=())
def _linear_op(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return linear(x, weight, bias)


@_linear_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("pytorch_forecasting_mlstm::onednn_linear_backward", mutates_args=())
def _linear_bwd_op(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_weight, grad_bias = linear_backward(grad, x, weight, needs_x=True)
    assert grad_x is not None
    return grad_x, grad_weight, grad_bias


@_linear_bwd_op.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(weight.shape), x.new_empty(weight.shape[0])


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = _linear_bwd_op(grad, *ctx.saved_tensors)
    return result


_linear_op.register_autograd(_backward, setup_context=_setup_context)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias`` of dense matrices, in oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _parameter_grads(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias."""
    grad_weight = _product(x.mT, grad.mT, None).mT.contiguous()  # faster this way round
    return grad_weight, grad.mT @ grad.new_ones(len(grad))


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether both are plain float32 tensors on the CPU, and not subject to autocast."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        # Subclasses may override operations.
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_autocast_enabled("cpu")
    )


def _suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN is available for x, and x large enough for it to pay off."""
    enabled = x.dtype == torch.float32 and bool(torch.backends.mkldnn.enabled)
    return enabled and _has_many_rows(x) and _has_onednn()


def _has_many_rows(x: Tensor) -> bool:
    return x.numel() >= _MIN_ROWS * x.shape[-1]


@cache
def _has_onednn() -> bool:
    """Whether this torch has oneDNN's product of dense matrices.

    It is an internal operator of torch's compiler, so its result is checked first.
    """
    x, weight, bias = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.eye(2), torch.ones(2)
    try:
        return _product(x.mT, weight.mT, bias).tolist() == [[2.0, 4.0], [3.0, 5.0]]
    except (AttributeError, RuntimeError):
        return False
