"""Tensors as the kernel reads them: dense, without a bit that negates their numbers."""

import torch
from torch import Tensor

__all__ = ["dense", "dense_copy", "dense_grad", "dense_rows"]


def dense(x: Tensor) -> Tensor:
    """Return a dense tensor."""
    return x.resolve_neg().contiguous()


def dense_copy(x: Tensor) -> Tensor:
    """Return a dense copy."""
    return x.resolve_neg().clone(memory_format=torch.contiguous_format)


def dense_grad(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return a dense copy of a gradient, or dense zeros."""
    return like.new_zeros(like.shape) if grad is None else dense_copy(grad)


def dense_rows(x: Tensor) -> Tensor:
    """Return a tensor whose last dimension is dense."""
    x = x.resolve_neg()
    return x if x.stride(-1) == 1 else x.contiguous()
