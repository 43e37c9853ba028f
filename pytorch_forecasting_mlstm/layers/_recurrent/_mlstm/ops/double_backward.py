"""Derivatives that can be differentiated again, for functions with a backward pass of their own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["differentiable_grad", "is_batch"]


def differentiable_grad(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs that need one, from those results that have one.

    The gradients can be differentiated again. The function computes the results with operations of
    torch.
    """
    # One tensor may be several inputs. As a view, each of them has a gradient of its own.
    inputs = [None if x is None else x.view_as(x) for x in inputs]
    results = function(*inputs)
    pairs = [(x, grad) for x, grad in zip(results, grads, strict=True) if grad is not None]
    needed = iter(
        torch.autograd.grad(
            [x for x, _ in pairs],
            [x for x in inputs if x is not None and x.requires_grad],
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(needed) if x is not None and x.requires_grad else None for x in inputs)


def is_batch(grad: Tensor | None) -> bool:
    """Whether a gradient stands for many, as in ``jacobian(..., vectorize=True)``."""
    functorch = torch._C._functorch
    return grad is not None and (
        functorch.is_batchedtensor(grad) or functorch.is_legacy_batchedtensor(grad)
    )
