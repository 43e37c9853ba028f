"""A linear map of many rows that takes the fastest matrix product this processor has."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops.execution import is_compiling, is_eager

__all__ = ["OneDNNLinear"]

_FEW = 512  # rows for which calls cost more than they save


class OneDNNLinear(nn.Linear):
    """:class:`torch.nn.Linear`, through oneDNN where that is at hand.

    torch multiplies dense float32 matrices with the BLAS library it was built with, which is MKL,
    and MKL leaves AVX-512 alone on processors that are not Intel's: there, oneDNN, which torch uses
    for its LSTM, is more than twice as fast.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias``."""
        if not _is_plain(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if is_compiling():
            rows: Tensor = _operator(input.flatten(0, -2), self.weight, self.bias)
        elif is_eager() and _suits_onednn(input):
            rows = _OneDNNFunction.apply(input.flatten(0, -2), self.weight, self.bias)
        else:
            return F.linear(input, self.weight, self.bias)
        return rows.unflatten(0, input.shape[:-1])


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
        if torch.is_grad_enabled():  # to be differentiated again
            return grad @ weight, grad.mT @ x, grad.sum(0)
        for_x, *for_parameters = ctx.needs_input_grad
        grad_x = _product(grad, weight.mT, None) if for_x else None
        of_parameters = _of_parameters(grad, x) if any(for_parameters) else (None, None)
        return grad_x, *of_parameters


# For torch.compile, which would multiply as F.linear does.


@torch.library.custom_op("pytorch_forecasting_mlstm::projection", mutates_args=())
def _operator(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _product(x, weight, bias) if _suits_onednn(x) else F.linear(x, weight, bias)


@_operator.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("pytorch_forecasting_mlstm::projection_backward", mutates_args=())
def _backward_operator(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if _suits_onednn(x):
        return _product(grad, weight.mT, None), *_of_parameters(grad, x)
    return grad @ weight, grad.mT @ x, grad.sum(0)


@_backward_operator.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(weight.shape), x.new_empty(weight.shape[0])


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = _backward_operator(grad, *ctx.saved_tensors)
    return result


_operator.register_autograd(_backward, setup_context=_setup_context)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias`` of dense matrices, in oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _of_parameters(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias."""
    grad_weight = _product(x.mT, grad.mT, None).mT.contiguous()  # faster this way round
    return grad_weight, grad.mT @ grad.new_ones(len(grad))


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether both are float32 matrices on the CPU, and to be multiplied as such."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        # subclasses have their own ways
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_autocast_enabled("cpu")
    )


def _suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN is at hand, and x large enough for it to pay."""
    many = x.numel() >= _FEW * x.shape[-1]
    return many and bool(torch.backends.mkldnn.enabled) and _has_onednn()


@cache
def _has_onednn() -> bool:
    """Whether this torch has oneDNN's product for dense matrices.

    An operator that torch keeps for its compiler: it is tried before it is trusted.
    """
    x, weight, bias = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.eye(2), torch.ones(2)
    try:
        return _product(x.mT, weight.mT, bias).tolist() == [[2.0, 4.0], [3.0, 5.0]]
    except (AttributeError, RuntimeError):
        return False
