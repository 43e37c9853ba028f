"""The layer norms of all parts in one launch, and their gradients in another one.

Dimensions: W = 4 H + 2 NH, R rows, one for each sample and step.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..layer_norm import TORCH_LAYER_NORM, LayerNormForms, LayerNormParams
from .launch import load_kernels, on_device
from .options import count_blocks, norm_options

__all__ = ["LAYER_NORM"]

_MAX_WIDTH = 8192  # of a part, which one program holds
_MAX_PROGRAMS = 256  # whose sums over rows are added up after the launch


def _forward(p: Tensor, norms: LayerNormParams) -> tuple[list[Tensor], Any]:
    """Return the normalized p, and no statistics, which the backward pass computes again."""
    if len(norms.weights[3]) > _MAX_WIDTH:
        return TORCH_LAYER_NORM.forward(p, norms)
    p, output = p.contiguous(), p.new_empty(p.shape)
    H, W, rows = len(norms.weights[0]), p.shape[-1], p.numel() // p.shape[-1]
    options = norm_options(len(norms.weights[3]))
    with on_device(p):
        load_kernels()["norms_fwd"][(count_blocks(rows, options["BR"]), 4)](
            *(p, _dense(norms.weights), _dense(norms.biases), output, rows, H, W),
            EPS=norms.eps,
            **options,
        )
    return [output], None


def _backward(
    grads: Sequence[Tensor], p: Tensor, statistics: Any, norms: LayerNormParams
) -> tuple[Tensor, list[Tensor]]:
    if statistics is not None:
        return TORCH_LAYER_NORM.backward(grads, p, statistics, norms)
    (grad,) = grads
    p, grad, grad_p = p.contiguous(), grad.contiguous(), p.new_empty(p.shape)
    sizes = [len(weight) for weight in norms.weights]
    W, rows = p.shape[-1], p.numel() // p.shape[-1]
    options = norm_options(sizes[3])
    programs = min(_MAX_PROGRAMS, count_blocks(rows, options["BR"]))
    sums = p.new_empty(2, programs, W)
    with on_device(p):
        load_kernels()["norms_bwd"][(programs, 4)](
            *(grad, p, _dense(norms.weights), grad_p, sums[0], sums[1], rows, sizes[0], W),
            EPS=norms.eps,
            **options,
        )
    grad_weights, grad_biases = sums.sum(1)
    return grad_p, [*grad_weights.split(sizes), *grad_biases.split(sizes)]


def _dense(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in tensors)


#: Norms of pre-activations with rows that are not too wide; those of torch for others.
LAYER_NORM = LayerNormForms(_forward, _backward)
