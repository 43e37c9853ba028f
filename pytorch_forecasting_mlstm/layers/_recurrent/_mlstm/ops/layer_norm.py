"""The layer norms of a cell, over the pre-activations of many steps.

Pre-activations (..., W) have four parts, which are normalized separately: q, k, v, and all gates
together. Norms and derivatives are those of torch. Inside an autograd Function the parts need not
be concatenated, which would take longer than the norms.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LayerNormParams", "layer_norm_fwd", "layer_norm_bwd", "naive_layer_norm"]


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


def layer_norm_fwd(
    p: Tensor, norms: LayerNormParams
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the normalized parts, their means and their inverse standard deviations (..., 1)."""
    results = [
        torch.native_layer_norm(part, weight.shape, weight, bias, norms.eps)
        for part, weight, bias in zip(norms.split(p), norms.weights, norms.biases, strict=True)
    ]
    parts, means, inverses = (list(column) for column in zip(*results, strict=True))
    return parts, means, inverses


def layer_norm_bwd(
    grads: Sequence[Tensor],
    p: Tensor,
    means: Sequence[Tensor],
    inverses: Sequence[Tensor],
    norms: LayerNormParams,
) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of p, and of all weights and biases, from those of the parts."""
    grad_p = torch.empty_like(p)
    grad_weights, grad_biases = [], []
    for grad, part, output, mean, inverse, weight, bias in zip(
        grads,
        norms.split(p),
        norms.split(grad_p),
        means,
        inverses,
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


def naive_layer_norm(p: Tensor, norms: LayerNormParams) -> Tensor:
    """Return all normalized parts in one tensor, differentiable any number of times."""
    parts = zip(norms.split(p), norms.weights, norms.biases, strict=True)
    return torch.cat([F.layer_norm(part, w.shape, w, b, norms.eps) for part, w, b in parts], dim=-1)
