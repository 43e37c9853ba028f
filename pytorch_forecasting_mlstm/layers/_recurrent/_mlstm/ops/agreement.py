"""Whether a compiled backend computes what the naive form does."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["Tensors", "agrees", "shared_sources"]

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


def shared_sources() -> list[bytes]:
    """Return the modules beside a backend on which the outcome of a comparison may depend."""
    folder = Path(__file__).parent
    paths = [*folder.glob("*.py"), *folder.parent.glob("*.py")]
    return [path.read_bytes() for path in sorted(paths)]
