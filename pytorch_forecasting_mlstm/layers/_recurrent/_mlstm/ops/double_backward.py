"""Derivatives that can be differentiated again, for functions with a backward pass of their own."""

import torch
from torch import Tensor

__all__ = ["gradients"]


def gradients(
    outputs: tuple[Tensor, ...], grads: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Differentiate outputs, as far as they have a gradient, by inputs, as far as they need one.

    The result can be differentiated again.
    """
    pairs = [(x, grad) for x, grad in zip(outputs, grads, strict=True) if grad is not None]
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(
        torch.autograd.grad(
            [x for x, _ in pairs],
            wanted,
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(found) if x.requires_grad else None for x in inputs)
