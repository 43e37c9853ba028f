"""The layer norms of a cell, over the pre-activations of many steps.

Pre-activations (..., W) have four parts, which are normalized separately: q, k, v, and all gates
together. Norms and derivatives are those of torch. Inside an autograd Function the parts need not
be concatenated, which would take longer than the norms.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["TORCH_LAYER_NORM", "LayerNormForms", "LayerNormParams", "naive_layer_norm"]


class LayerNormParams(NamedTuple):
    """Weights and biases of all norms, in the order of the parts."""

    eps: float
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, eps: float, *affine: Tensor) -> "LayerNormParams":
        """Build from eps, all weights and all biases."""
        half = len(affine) // 2
        return cls(eps, affine[:half], affine[half:])

    def split(self, p: Tensor) -> tuple[Tensor, ...]:
        """View pre-activations by part."""
        return p.split([len(weight) for weight in self.weights], dim=-1)


class LayerNormForms(NamedTuple):
    """Both passes of all norms.

    ``forward`` takes p and the norms, and returns the normalized parts, or all of them in one
    tensor, and what ``backward`` needs. ``backward`` takes the gradients of the parts, p, what
    ``forward`` returned, and the norms. It returns the gradients of p, and of all weights and
    biases.
    """

    forward: Callable[[Tensor, LayerNormParams], tuple[list[Tensor], Any]]
    backward: Callable[
        [Sequence[Tensor], Tensor, Any, LayerNormParams], tuple[Tensor, list[Tensor]]
    ]


def _forward(p: Tensor, norms: LayerNormParams) -> tuple[list[Tensor], Any]:
    """Return the normalized parts, and of each the mean and inverse standard deviation (..., 1)."""
    results = [
        torch.native_layer_norm(part, weight.shape, weight, bias, norms.eps)
        for part, weight, bias in zip(norms.split(p), norms.weights, norms.biases, strict=True)
    ]
    return [part for part, *_ in results], [statistics for _, *statistics in results]


def _backward(
    grads: Sequence[Tensor], p: Tensor, statistics: Any, norms: LayerNormParams
) -> tuple[Tensor, list[Tensor]]:
    grad_p = torch.empty_like(p)
    grad_weights, grad_biases = [], []
    for grad, part, output, (mean, inverse), weight, bias in zip(
        grads,
        norms.split(p),
        norms.split(grad_p),
        statistics,
        norms.weights,
        norms.biases,
        strict=True,
    ):
        grad_part, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
            grad, part, weight.shape, mean, inverse, weight, bias, [True, True, True]
        )
        output.copy_(grad_part)
        grad_weights.append(grad_weight)
        grad_biases.append(grad_bias)
    return grad_p, grad_weights + grad_biases


TORCH_LAYER_NORM = LayerNormForms(_forward, _backward)


def naive_layer_norm(p: Tensor, norms: LayerNormParams) -> Tensor:
    """Return all normalized parts in one tensor, differentiable any number of times."""
    parts = zip(norms.split(p), norms.weights, norms.biases, strict=True)
    return torch.cat([F.layer_norm(part, w.shape, w, b, norms.eps) for part, w, b in parts], dim=-1)
