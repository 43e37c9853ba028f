"""The chunkwise form with its backward pass by hand: the fast path of ``mlstm_chunkwise``.

Forward and backward are batched matrix products over blocks of L×L and L×K numbers. Between them
are kept the inputs, the read-out and one summary per chunk, all linear in T; the blocks are
computed again. The derivation, with these names, is in docs/maths.md.

Dimensions: B batch, NH heads, N chunks, L steps of a chunk, K key, V value; G = B·NH, X = G·N.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._chunkwise import (
    EMPTY,
    chunkwise,
    one_at_scale,
    segment_sums,
)

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
        return _by_blocks(partial(_forward, L), (q, k, v, log_i, log_f, c, n, m), L)

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
        return *_by_blocks(partial(_backward, L), (*saved, *grads), L), None


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


class _Chunks(NamedTuple):
    """The inputs cut into chunks, padded with steps that change nothing."""

    q: Tensor  # (X, L, K)
    k: Tensor  # (X, L, K)
    v: Tensor  # (X, L, V + 1), the last column ones: numerator and normaliser in one product
    log_i: Tensor  # (X, L)
    log_f: Tensor  # (X, L)


class _Between(NamedTuple):
    """What goes from chunk to chunk."""

    add: Tensor  # (X, L): weight of each step in its chunk's summary
    carry: Tensor  # (G, N + 1, N + 1): weight of each summary in the memory that enters each chunk
    m_enter: Tensor  # (G, N + 1): scale of that memory
    log_enter: Tensor  # (X, L): log of what is left of that memory at each step


def _cut(q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, L: int) -> _Chunks:
    B, NH, T, V = v.shape
    pad = -T % L
    v_hat = v.new_zeros(B, NH, T + pad, V + 1)
    v_hat[:, :, :T, :V] = v
    v_hat[:, :, :T, V] = 1
    if pad:
        q, k = (F.pad(x, (0, 0, 0, pad)) for x in (q, k))
        log_i = F.pad(log_i, (0, pad), value=-torch.inf)
        log_f = F.pad(log_f, (0, pad))
    q, k, v_hat = (x.reshape(-1, L, x.shape[3]) for x in (q, k, v_hat))
    # a shut gate as a number, so that nothing times it is nothing
    return _Chunks(q, k, v_hat, log_i.reshape(-1, L), log_f.reshape(-1, L).clamp_min(EMPTY))


def _log_weights(chunks: _Chunks) -> Tensor:
    """Return (X, L, L): [j, l] is the log of the weight of step l in the memory after step j."""
    L = chunks.q.shape[1]
    ones = chunks.log_f.new_ones(L, L)
    above = torch.full_like(ones, -torch.inf).triu(1)
    weights = (chunks.log_f[..., None] * ones.tril(-1)).cumsum_(-2)
    return weights.add_(chunks.log_i[:, None, :]).add_(above)


def _exp(x: Tensor) -> Tensor:
    """Exponentiate in place, with 0 for what is next to or below the smallest normal number.

    A processor takes tens of times longer for denormal numbers, and twice for infinite ones.
    """
    tiny = torch.finfo(x.dtype).tiny
    return F.threshold(x.clamp_min_(math.log(2 * tiny)).exp_(), 3 * tiny, 0.0, inplace=True)


def _between_chunks(chunks: _Chunks, weights: Tensor, m: Tensor) -> _Between:
    G = m.numel()
    last = weights[:, -1]
    m_chunk = last.amax(-1).clamp_min_(EMPTY)
    add = torch.exp(last - m_chunk[:, None])
    decay = F.pad(chunks.log_f.sum(-1).view(G, -1), (1, 0))
    carry = segment_sums(decay)
    carry = carry.add_(torch.cat([m.reshape(G, 1), m_chunk.view(G, -1)], dim=1)[:, None, :])
    m_enter = carry.amax(-1)
    carry = carry.sub_(m_enter[..., None]).exp_()
    log_enter = chunks.log_f.cumsum(-1).add_(m_enter[:, :-1].reshape(-1, 1))
    return _Between(add, carry, m_enter, log_enter)


def _forward(
    L: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
) -> tuple[Tensor, ...]:
    """Return h, c, n, m, and what the backward pass needs of the way there."""
    (B, NH, T, K), V = q.shape, v.shape[3]
    chunks = _cut(q, k, v, log_i, log_f, L)
    weights = _log_weights(chunks)
    between = _between_chunks(chunks, weights, m)
    initial = torch.cat([c, n[..., None, :]], dim=-2).view(B * NH, 1, V + 1, K)
    summary = torch.bmm((chunks.v * between.add[..., None]).mT, chunks.k)
    summary = torch.cat([initial, summary.view(B * NH, -1, V + 1, K)], dim=1).flatten(2)
    memory = torch.bmm(between.carry, summary).unflatten(-1, (V + 1, K))

    m_read = torch.maximum(weights.amax(-1), between.log_enter).clamp_min_(0)
    attention = _exp(weights.sub_(m_read[..., None]))
    attention.mul_(torch.bmm(chunks.q, chunks.k.mT))
    read = torch.bmm(attention, chunks.v)
    enter = torch.exp(between.log_enter - m_read)[..., None]
    read.baddbmm_(chunks.q * enter, memory[:, :-1].flatten(0, 1).mT)
    normaliser = read[..., V].contiguous()
    one = torch.maximum(normaliser.abs(), one_at_scale(m_read))
    h = (read[..., :V] / one[..., None]).view(B, NH, -1, V)[:, :, :T]

    last = memory[:, -1].reshape(B, NH, V + 1, K)
    c, n = last[:, :, :V].clone(), last[:, :, V].clone()
    m = between.m_enter[:, -1].reshape(B, NH).clone()
    kept = (x.view(B, NH, -1) for x in (normaliser, m_read, summary))
    return h, c, n, m, *kept


def _backward(
    L: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    h: Tensor,
    normaliser: Tensor,
    m_read: Tensor,
    summary: Tensor,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
    grad_m: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return the gradients of the first eight, given those of h, c, n and m."""
    (B, NH, T, K), V = q.shape, v.shape[3]
    normaliser, m_read = normaliser.view(-1, L), m_read.view(-1, L)
    summary = summary.view(B * NH, -1, (V + 1) * K)
    chunks = _cut(q, k, v, log_i, log_f, L)
    X = chunks.q.shape[0]
    weights = _log_weights(chunks)
    between = _between_chunks(chunks, weights, m)
    memory = torch.bmm(between.carry, summary)

    # through the division by max(|nᵀq|, 1)
    one = one_at_scale(m_read)
    denominator = torch.maximum(normaliser.abs(), one)[..., None]
    grad_read = chunks.v.new_zeros(B, NH, X // (B * NH) * L, V + 1)
    if grad_h is not None:
        grad_read[:, :, :T, :V] = grad_h
        grad_read[:, :, :T, V] = -(grad_h * h).sum(-1)
    grad_read = grad_read.view(X, L, V + 1)
    grad_read /= denominator
    grad_read[..., V] *= normaliser.sign() * (normaliser.abs() >= one)

    # inside the chunks: read = (decay ⊙ q kᵀ) v
    decay = _exp(weights.sub_(m_read[..., None]))
    attention = torch.bmm(chunks.q, chunks.k.mT).mul_(decay)
    grad_v = torch.bmm(attention.mT, grad_read)
    grad_product = torch.bmm(grad_read, chunks.v.mT, out=attention).mul_(decay)
    grad_q = torch.bmm(grad_product, chunks.k)
    grad_k = torch.bmm(grad_product.mT, chunks.q)
    of_steps = (chunks.k * grad_k).sum(-1)

    # the memory that entered: read += enter · q memoryᵀ
    enter = torch.exp(between.log_enter - m_read)[..., None]
    entered = memory.view(B * NH, -1, V + 1, K)[:, :-1].reshape(X, V + 1, K)
    grad_read *= enter
    grad_q.baddbmm_(grad_read, entered)
    of_reads = (chunks.q * grad_q).sum(-1)
    grad_memory = torch.empty_like(memory)
    grad_memory[:, :-1] = torch.bmm(grad_read.mT, chunks.q).view(B * NH, -1, (V + 1) * K)
    grad_last = grad_memory[:, -1].view(B, NH, V + 1, K)
    grad_last[:, :, :V] = 0 if grad_c is None else grad_c
    grad_last[:, :, V] = 0 if grad_n is None else grad_n

    # across the chunks: memory = carry · summaries
    grad_summary = torch.bmm(between.carry.mT, grad_memory)
    of_carry = torch.bmm(grad_memory, summary.mT).mul_(between.carry)
    grad_first = grad_summary[:, 0].view(B, NH, V + 1, K)
    grad_summary = grad_summary[:, 1:].reshape(X, V + 1, K)

    # the summaries: (add ⊙ v)ᵀ k
    weighted = chunks.v * between.add[..., None]
    grad_k_added = torch.bmm(weighted, grad_summary)
    grad_v.add_(torch.bmm(chunks.k, grad_summary.mT).mul_(between.add[..., None]))
    of_adds = (chunks.k * grad_k_added).sum(-1)
    grad_k += grad_k_added

    # the gates, from what each weight's logarithm received
    grad_i = of_steps + of_adds
    grad_f = (of_reads - of_steps).flip(-1).cumsum(-1).flip(-1)
    grad_f[:, 1:] += of_adds.cumsum(-1)[:, :-1]
    grad_f.view(B * NH, -1, L).add_(_through(of_carry)[:, 1:, None])

    shape = (B, NH, -1)
    grad_q, grad_k = (x.view(*shape, K)[:, :, :T] for x in (grad_q, grad_k))
    grad_v = grad_v.view(*shape, V + 1)[:, :, :T, :V]
    grad_i, grad_f = (x.view(shape)[:, :, :T] for x in (grad_i, grad_f))
    grad_m_initial = of_carry[:, :, 0].sum(-1).view(B, NH)
    if not (grad_c is None and grad_n is None and grad_m is None):
        to_m = _gradient_of_scale(grad_c, grad_n, grad_m, memory[:, -1].view(B, NH, V + 1, K))
        to_i, to_f, to_initial = _through_maximum(log_i, log_f, m, to_m)
        grad_i, grad_f, grad_m_initial = grad_i + to_i, grad_f + to_f, grad_m_initial + to_initial
    return (
        grad_q,
        grad_k,
        grad_v,
        grad_i,
        grad_f,
        grad_first[:, :, :V],
        grad_first[:, :, V],
        grad_m_initial,
    )


def _through(of_carry: Tensor) -> Tensor:
    """Sum for every chunk r what passes through it: [n, s] with s < r <= n. (G, N + 1)."""
    before = F.pad(of_carry.cumsum(-1), (1, -1))  # [n, r]: all s < r
    return before.tril(0).sum(-2)


def _gradient_of_scale(
    grad_c: Tensor | None, grad_n: Tensor | None, grad_m: Tensor | None, last: Tensor
) -> Tensor:
    """Return the gradient of the last m, by which the last c and n are divided."""
    V = last.shape[2] - 1
    total = last.new_zeros(last.shape[:2])
    if grad_m is not None:
        total = total + grad_m
    if grad_c is not None:
        total = total - (grad_c * last[:, :, :V]).sum((-2, -1))
    if grad_n is not None:
        total = total - (grad_n * last[:, :, V]).sum(-1)
    return total


def _through_maximum(
    log_i: Tensor, log_f: Tensor, m: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Hand the gradient of the last m, (B, NH), to the step that is the maximum, and its decays."""
    kept = log_f.flip(-1).cumsum(-1).flip(-1)  # [t]: log_f from t to the end
    log_i = torch.cat([m[..., None], log_i], dim=-1) + F.pad(kept, (0, 1))
    top = log_i.amax(-1, keepdim=True)
    chosen = (log_i == top) & (top > EMPTY)
    share = grad[..., None] * chosen / chosen.sum(-1, keepdim=True).clamp_min(1)
    return share[..., 1:], share.cumsum(-1)[..., :-1], share[..., 0]


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
