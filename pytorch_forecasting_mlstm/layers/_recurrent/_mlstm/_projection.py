"""A linear map of many rows that takes the fastest matrix product this processor has."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._blocks import is_eager_on_cpu

__all__ = ["Projection"]

_FEW = 512  # rows for which calls cost more than they save

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Projection(nn.Linear):
    """:class:`torch.nn.Linear`, through oneDNN where that is at hand.

    torch multiplies dense float32 matrices with the BLAS library it was built with, which is MKL,
    and MKL leaves AVX-512 alone on processors that are not Intel's: there, oneDNN, which torch uses
    for its LSTM, is more than twice as fast.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias``."""
        if _suits_onednn(input, self.weight):
            rows: Tensor = _OneDnnLinear.apply(input.flatten(0, -2), self.weight, self.bias)
            return rows.unflatten(0, input.shape[:-1])
        return F.linear(input, self.weight, self.bias)


class _OneDnnLinear(torch.autograd.Function):
    """``F.linear`` of x (R, in), with both passes in oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        product = _onednn_product()
        assert product is not None
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        for_x, *for_parameters = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again
            return grad @ weight, grad.mT @ x, grad.sum(0)
        product = _onednn_product()
        assert product is not None
        grad_x = product(grad, weight.mT, None) if for_x else None
        if not any(for_parameters):
            return grad_x, None, None
        grad_weight = product(x.mT, grad.mT, None).mT.contiguous()  # faster this way round
        return grad_x, grad_weight, grad.mT @ grad.new_ones(len(grad))


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return bool(
        is_eager_on_cpu(x)
        and x.numel() >= _FEW * weight.shape[1]
        and x.dtype == weight.dtype == torch.float32
        # subclasses (fake tensors, say) have their own ways
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and _onednn_product() is not None
    )


@cache
def _onednn_product() -> Product | None:
    """Return oneDNN's ``x @ weight.T + bias`` of dense matrices, if this torch has it."""

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result

    # An operator that torch keeps for its compiler: it is tried before it is trusted.
    x, weight, bias = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.eye(2), torch.ones(2)
    try:
        found = product(x.mT, weight.mT, bias)
    except (AttributeError, RuntimeError):
        return None
    return product if found.tolist() == [[2.0, 4.0], [3.0, 5.0]] else None
