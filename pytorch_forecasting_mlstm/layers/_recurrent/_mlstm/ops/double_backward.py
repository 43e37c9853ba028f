"""Derivatives that can be differentiated again, for functions with a backward pass of their own."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["differentiable_grad"]


def differentiable_grad(
    outputs: Sequence[Tensor], grads: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs that need one, from those outputs that have one.

    The result can be differentiated again.
    """
    pairs = [(x, grad) for x, grad in zip(outputs, grads, strict=True) if grad is not None]
    needed = iter(
        torch.autograd.grad(
            [x for x, _ in pairs],
            [x for x in inputs if x.requires_grad],
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(needed) if x.requires_grad else None for x in inputs)
