"""The layer norms of a cell, over the pre-activations of many steps.

Torch's own norms, part by part, and their derivatives: inside a function of autograd nothing has to
be concatenated for them, whose memory would cost more time than the norms.

Pre-activations are (..., W); q, k, v, and all gates are normalized apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LayerNormParams", "layer_norm_fwd", "layer_norm_bwd", "naive_layer_norm"]


class LayerNormParams(NamedTuple):
    """Scale and shift of all norms, in the order of their parts."""

    eps: float
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, eps: float, *affine: Tensor) -> "LayerNormParams":
        """Take the weights, then the biases."""
        half = len(affine) // 2
        return cls(eps, affine[:half], affine[half:])

    def split(self, p: Tensor) -> tuple[Tensor, ...]:
        """View the parts of pre-activations."""
        return p.split([len(weight) for weight in self.weights], dim=-1)


def layer_norm_fwd(
    p: Tensor, norms: LayerNormParams
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the normalized parts, and their means and inverse deviations (..., 1)."""
    found = [
        torch.native_layer_norm(part, weight.shape, weight, bias, norms.eps)
        for part, weight, bias in zip(norms.split(p), norms.weights, norms.biases, strict=True)
    ]
    parts, means, inverses = (list(each) for each in zip(*found, strict=True))
    return parts, means, inverses


def layer_norm_bwd(
    grads: Sequence[Tensor],
    p: Tensor,
    means: Sequence[Tensor],
    inverses: Sequence[Tensor],
    norms: LayerNormParams,
) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of p, and of weights and then biases, given those of the parts."""
    grad_p = torch.empty_like(p)
    of_weights, of_biases = [], []
    for grad, part, into, mean, inverse, weight, bias in zip(
        grads,
        norms.split(p),
        norms.split(grad_p),
        means,
        inverses,
        norms.weights,
        norms.biases,
        strict=True,
    ):
        of_part, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            grad, part, weight.shape, mean, inverse, weight, bias, [True, True, True]
        )
        into.copy_(of_part)
        of_weights.append(of_weight)
        of_biases.append(of_bias)
    return grad_p, of_weights + of_biases


def naive_layer_norm(p: Tensor, norms: LayerNormParams) -> Tensor:
    """Return all normalized parts in one, by plain operations."""
    parts = zip(norms.split(p), norms.weights, norms.biases, strict=True)
    return torch.cat([F.layer_norm(part, w.shape, w, b, norms.eps) for part, w, b in parts], dim=-1)
