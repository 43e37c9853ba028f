"""The chunkwise form with its backward pass by hand: the fast path of ``mlstm_chunkwise``.

Forward and backward are batched matrix products over blocks of L×L and L×K numbers. Between them
are kept the inputs, the read-out and one summary per chunk, all linear in T; the blocks are
computed again. The derivation, with these names, is in docs/maths.md.

Dimensions: B batch, NH heads, N chunks, L steps of a chunk, K key, V value; G = B·NH, X = G·N.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._chunkwise import chunkwise
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._passes import backward_pass, forward_pass

__all__ = ["Chunkwise"]

_BLOCK = 2**20  # numbers in the L×L products of one block of samples


class Chunkwise(torch.autograd.Function):
    """``chunkwise`` with a backward of its own.

    A second derivative is supported, at the speed of plain autograd: where the backward is itself
    to be differentiated, it goes through the plain form.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_i: Tensor,
        log_f: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
        chunk_size: int,
    ) -> tuple[Tensor, ...]:
        """Return h, the last c, n and m, and three that only the backward pass needs."""
        L = min(chunk_size, q.shape[2])
        return _by_blocks(partial(forward_pass, L), (q, k, v, log_i, log_f, c, n, m), L)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass needs."""
        *tensors, chunk_size = inputs
        h, _, _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*tensors, h, *kept)
        ctx.chunk_size = min(chunk_size, tensors[0].shape[2])
        ctx.set_materialize_grads(False)  # the last state is rarely part of a loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v, log_i, log_f, c, n and m."""
        saved, L = ctx.saved_tensors, ctx.chunk_size
        grads = grads[:4]
        if torch.is_grad_enabled():
            return *_differentiable_backward(saved[:8], L, grads), None
        return *_by_blocks(partial(backward_pass, L), (*saved, *grads), L), None


def _by_blocks(
    function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor | None, ...], L: int
) -> tuple[Tensor, ...]:
    """Run a function over blocks of samples, so small that a processor's cache holds the products.

    Results (B, NH, T, ...) get the memory order of q, which is the one that the caller works in.
    """
    q = inputs[0]
    assert q is not None
    B, NH, T, _ = q.shape
    size = max(1, _BLOCK // (NH * T * L))
    if size >= B or q.device.type != "cpu" or torch.compiler.is_compiling():
        return function(*inputs)
    order = sorted(range(4), key=q.stride, reverse=True)
    back = sorted(range(4), key=order.__getitem__)
    results: list[Tensor] = []
    for start in range(0, B, size):
        block = slice(start, start + size)
        parts = function(*(None if x is None else x[block] for x in inputs))
        if not results:
            for part in parts:
                shape = (B, *part.shape[1:])
                if part.shape[1:3] == (NH, T) and part.dim() == 4:
                    empty = part.new_empty([shape[dim] for dim in order]).permute(back)
                else:
                    empty = part.new_empty(shape)
                results.append(empty)
        for whole, part in zip(results, parts, strict=True):
            whole[block] = part
    return tuple(results)


def _differentiable_backward(
    inputs: tuple[Tensor, ...], chunk_size: int, grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    q, k, v, log_i, log_f, c, n, m = inputs
    outputs = chunkwise(q, k, v, log_i, log_f, c, n, m, chunk_size)
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
