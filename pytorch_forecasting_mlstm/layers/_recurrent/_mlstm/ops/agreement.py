"""Whether a compiled backend computes what the naive form does."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Tensors", "agrees"]

Tensors = tuple[Tensor, ...]


def agrees(
    kernel: Callable[..., tuple[Tensors, Tensors]],
    naive: Callable[..., Tensors],
    inputs: Sequence[Tensor],
    tolerance: float,
) -> bool:
    """Whether a kernel gives the results and gradients of the naive form.

    The gradients are those of the sum of the sines of all results.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    results = naive(*leaves)
    loss = torch.stack([x.sin().sum() for x in results]).sum()
    expected = (*results, *torch.autograd.grad(loss, leaves))
    with torch.no_grad():
        results, gradients = kernel(*inputs)
    # A NaN is not below any bound.
    return all(
        bool((actual - reference).abs().max() <= tolerance * (1 + reference.abs().max()))
        for actual, reference in zip((*results, *gradients), expected, strict=True)
    )
