"""Forward and backward pass of the chunkwise form, by hand.

Both are batched matrix products over blocks of L×L and L×K numbers. Between them are kept the
inputs, the read-out and one summary per chunk, all linear in T; the blocks are computed again. The
derivation, with these names, is in docs/maths.md.

Dimensions: B batch, NH heads, N chunks, L steps of a chunk, K key, V value; G = B·NH, X = G·N.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._chunkwise import EMPTY
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._weights import (
    Weights,
    cut_gates,
    weigh,
)

__all__ = ["backward_pass", "forward_pass"]


def forward_pass(
    L: int,
    factored: bool,
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
    w = weigh(*cut_gates(log_i, log_f, L), m.reshape(-1, 1), factored=factored)
    q, k, v_hat = _cut(q, L), _cut(k, L), _with_ones(v, L)
    key, added = _keys(k, w)
    initial = torch.cat([c, n[..., None, :]], dim=-2).view(B * NH, 1, V + 1, K)
    summary = torch.bmm(v_hat.mT, added).view(B * NH, -1, V + 1, K)
    summary = torch.cat([initial, summary], dim=1).flatten(2)
    memory = torch.bmm(w.carry, summary).unflatten(-1, (V + 1, K))

    attention = torch.bmm(q, key.mT).mul_(w.decay)
    read = torch.bmm(attention, v_hat)
    read.baddbmm_(q * w.enter, memory[:, :-1].reshape(-1, V + 1, K).mT)
    normaliser = read[..., V].contiguous()
    denominator = torch.maximum(normaliser.abs(), w.one)[..., None]
    h = (read[..., :V] / denominator).view(B, NH, -1, V)[:, :, :T]

    last = memory[:, -1].reshape(B, NH, V + 1, K)
    c, n = last[:, :, :V].clone(), last[:, :, V].clone()
    m = w.m_enter[:, -1].reshape(B, NH).clone()
    kept = (x.view(B, NH, -1) for x in (normaliser, summary))
    return h, c, n, m, *kept


def backward_pass(
    L: int,
    factored: bool,
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
    summary: Tensor,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
    grad_m: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return the gradients of the first eight, given those of h, c, n and m."""
    (B, NH, T, K), V = q.shape, v.shape[3]
    G = B * NH
    w = weigh(*cut_gates(log_i, log_f, L), m.reshape(-1, 1), factored=factored)
    summary = summary.view(G, -1, (V + 1) * K)
    memory = torch.bmm(w.carry, summary)
    q, k, v_hat = _cut(q, L), _cut(k, L), _with_ones(v, L)
    key, added = _keys(k, w)
    X = q.shape[0]

    # through the division by max(|nᵀq|, 1)
    normaliser = normaliser.view(X, L)
    size = normaliser.abs()
    factor = torch.maximum(size, w.one).reciprocal_().view(B, NH, -1)[:, :, :T]
    sign = (normaliser.sign() * (size >= w.one)).view(B, NH, -1)[:, :, :T]
    grad_read = v_hat.new_zeros(B, NH, X // G * L, V + 1)
    if grad_h is not None:
        grad_read[:, :, :T, :V] = grad_h * factor[..., None]
        grad_read[:, :, :T, V] = -(grad_h * h).sum(-1) * factor * sign
    grad_read = grad_read.view(X, L, V + 1)

    # inside the chunks: read = (decay ⊙ q keyᵀ) v
    attention = torch.bmm(q, key.mT).mul_(w.decay)
    grad_v = torch.bmm(attention.mT, grad_read[..., :V])
    grad_product = torch.bmm(grad_read, v_hat.mT, out=attention).mul_(w.decay)
    grad_q = torch.bmm(grad_product, key)
    grad_k = torch.bmm(grad_product.mT, q).mul_(w.key_scale)

    # the memory that entered: read += enter · q memoryᵀ
    entered = memory.view(G, -1, V + 1, K)[:, :-1].reshape(X, V + 1, K)
    grad_read *= w.enter
    grad_q.baddbmm_(grad_read, entered)
    grad_memory = torch.empty_like(memory)
    grad_memory[:, :-1] = torch.bmm(grad_read.mT, q).view(G, -1, (V + 1) * K)
    grad_last = grad_memory[:, -1].view(B, NH, V + 1, K)
    grad_last[:, :, :V] = 0 if grad_c is None else grad_c
    grad_last[:, :, V] = 0 if grad_n is None else grad_n

    # across the chunks: memory = carry · summaries
    grad_summary = torch.bmm(w.carry.mT, grad_memory)
    of_carry = torch.bmm(grad_memory, summary.mT).mul_(w.carry)
    grad_first = grad_summary[:, 0].view(B, NH, V + 1, K)
    grad_summary = grad_summary[:, 1:].reshape(X, V + 1, K)

    # the summaries: vᵀ (add ⊙ k)
    grad_k.addcmul_(torch.bmm(v_hat, grad_summary), w.add)
    grad_v.baddbmm_(added, grad_summary[:, :V].mT)

    # the gates, from what each weight's logarithm received
    of_reads = (q * grad_q).sum(-1)
    grad_i = (k * grad_k).sum(-1)
    grad_f = (of_reads - grad_i).flip(-1).cumsum(-1).flip(-1)
    outside = of_carry.sum(1)[:, 1:] + _through(of_carry)[:, 1:]
    grad_f += outside.reshape(X, 1)

    shape = (B, NH, -1)
    grad_q, grad_k = (x.view(*shape, K)[:, :, :T] for x in (grad_q, grad_k))
    grad_v = grad_v.view(*shape, V)[:, :, :T]
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


def _cut(x: Tensor, L: int) -> Tensor:
    """Cut (B, NH, T, K) into chunks (X, L, K), the last one of every head filled up with zeros."""
    pad = -x.shape[2] % L
    return (F.pad(x, (0, 0, 0, pad)) if pad else x).reshape(-1, L, x.shape[3])


def _keys(k: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    """Return the keys weighted for the reads and for the summaries, often the same."""
    key = k * w.key_scale
    return key, key if w.add is w.key_scale else k * w.add


def _with_ones(v: Tensor, L: int) -> Tensor:
    """Cut v, with a column of ones: numerator and normaliser in one product. (X, L, V + 1)."""
    B, NH, T, V = v.shape
    v_hat = v.new_zeros(B, NH, T + -T % L, V + 1)
    v_hat[:, :, :T, :V] = v
    v_hat[:, :, :T, V] = 1
    return v_hat.view(-1, L, V + 1)


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
