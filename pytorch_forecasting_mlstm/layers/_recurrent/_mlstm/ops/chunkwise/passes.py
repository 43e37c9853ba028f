"""Hand-written forward and backward passes of the chunkwise form.

Both consist of batched matrix products over L×L and L×K blocks. Only the inputs, the read-out and
one state per chunk are saved between them, all linear in T; the blocks are recomputed. The
derivation is in docs/maths.md.

Dimensions: B batch, NH heads, N chunks, L steps of a chunk, K key, V value; G = B·NH, X = G·N.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..execution import is_eager
from ..stabilization import denominator
from ..types import Inputs, mLSTMState
from .decay import ChunkDecays, chunk_decays, chunk_gates
from .scan import Saved

__all__ = [
    "span_bwd",
    "span_fwd",
    "chunks_bwd",
    "chunks_fwd",
    "row_sums",
    "normalizer_bwd_",
]


def span_fwd(
    L: int, factored: bool, inputs: Inputs, state: mLSTMState
) -> tuple[Tensor, mLSTMState, Tensor, Tensor]:
    """Return h, the last state, and what the backward pass needs: normalizer and chunk states."""
    q, k, v, log_i, log_f = inputs
    (B, NH, T, _), V = q.shape, v.shape[3]
    decays = chunk_decays(*chunk_gates(log_i, log_f, L), state.m.reshape(-1, 1), factored=factored)
    key = _chunked(k, L) * decays.key_scale
    h, last, normalizer, states = chunks_fwd(
        _chunked(q, L), key, _with_ones(v, L), state.c, state.n, decays
    )
    h = h.view(B, NH, -1, V)[:, :, :T]
    return h, last, normalizer.view(B, NH, -1), states.view(B, NH, *states.shape[1:])


def chunks_fwd(
    q: Tensor, key: Tensor, v_hat: Tensor, c: Tensor, n: Tensor, decays: ChunkDecays
) -> tuple[Tensor, mLSTMState, Tensor, Tensor]:
    """Return h (X, L, V) of every step, the last state, the normalizer (X, L), the chunk states.

    q and the scaled key are (X, L, K), v_hat is (X, L, V + 1), c and n are the first state.
    """
    B, NH, V, K = c.shape
    X, L, _ = q.shape
    decayed_key = key if decays.input_decay is None else key * decays.input_decay
    chunk_states = q.new_empty(B * NH, X // (B * NH) + 1, (V + 1) * K)
    initial = chunk_states[:, 0].view(B, NH, V + 1, K)
    initial[:, :, :V], initial[:, :, V] = c, n
    chunk_states[:, 1:] = torch.bmm(v_hat.mT, decayed_key).view(B * NH, -1, (V + 1) * K)
    states_in = torch.bmm(decays.inter_chunk_decay[:, :-1], chunk_states).view(X, V + 1, K)
    last = torch.bmm(decays.inter_chunk_decay[:, -1:], chunk_states).view(B, NH, V + 1, K)

    # The column of ones is summed separately: products with V + 1 columns, or with one, are slow.
    attention = torch.bmm(q, key.mT).mul_(decays.intra_chunk_decay)
    decayed_q = q if decays.state_decay is None else q * decays.state_decay
    normalizer = row_sums(attention) + row_sums(decayed_q * states_in[:, V:])
    h = torch.bmm(attention, v_hat[..., :V]).baddbmm_(decayed_q, states_in[:, :V].mT)
    h /= denominator(normalizer, decays.denominator_floor)[..., None]

    m = decays.m_in[:, -1].reshape(B, NH).clone()
    state = mLSTMState(last[:, :, :V].clone(), last[:, :, V].clone(), m)
    return h, state, normalizer, chunk_states


def span_bwd(
    L: int,
    factored: bool,
    inputs: Inputs,
    h: Tensor,
    saved: Saved,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return the gradients of the five inputs, and of c, n and m."""
    q, k, v, log_i, log_f = inputs
    (B, NH, T, _), V = q.shape, v.shape[3]
    decays = chunk_decays(
        *chunk_gates(log_i, log_f, L), saved.scales.reshape(-1, 1), factored=factored
    )
    v_hat = _with_ones(v, L)
    grad_read = v_hat.new_zeros(B, NH, v_hat.numel() // (B * NH * (V + 1)), V + 1)
    if grad_h is not None:
        grad_read[:, :, :T, :V] = grad_h
        grad_read[:, :, :T, V] = (grad_h * h).sum(-1)
        normalizer_bwd_(grad_read, saved.normalizer, decays)
    key = _chunked(k, L) * decays.key_scale
    grads = chunks_bwd(
        _chunked(q, L), key, v_hat, grad_read.view_as(v_hat), saved.states, grad_c, grad_n, decays
    )
    grad_q, grad_key, grad_v, grad_i, grad_f, *grad_state = grads
    grad_k = grad_key.mul_(decays.key_scale)
    grad_q, grad_k, grad_v = (
        x.view(B, NH, -1, x.shape[-1])[:, :, :T] for x in (grad_q, grad_k, grad_v)
    )
    return grad_q, grad_k, grad_v, grad_i[:, :, :T], grad_f[:, :, :T], *grad_state


def normalizer_bwd_(grad_read: Tensor, normalizer: Tensor, decays: ChunkDecays) -> None:
    """Backpropagate through the division by max(|nᵀq|, 1), in place.

    grad_read (B, NH, N·L, V + 1) holds the gradient of h, and in its last column that gradient
    times h.
    """
    normalizer, floor = (
        x.view(grad_read.shape[:-1]) for x in (normalizer, decays.denominator_floor)
    )
    size = normalizer.abs()
    factor = torch.maximum(size, floor).reciprocal_()
    grad_read[..., -1] *= normalizer.sign().neg_() * (size >= floor)
    grad_read *= factor[..., None]


def chunks_bwd(
    q: Tensor,
    key: Tensor,
    v_hat: Tensor,
    grad_read: Tensor,
    states: Tensor,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
    decays: ChunkDecays,
) -> tuple[Tensor, ...]:
    """Return the gradients of q, key and v in chunks, of log_i and log_f, and of c, n and m.

    q, key and v_hat are as in ``chunks_fwd``, states (B, NH, N + 1, (V + 1)·K) as it returns them.
    grad_c and grad_n belong to the last state, whose m is a constant. grad_read is overwritten. The
    gradients of the gates are (B, NH, N·L).
    """
    (X, _, K), V = q.shape, v_hat.shape[2] - 1
    (B, NH), G, size = states.shape[:2], len(decays.inter_chunk_decay), (V + 1) * K
    chunk_states = states.reshape(G, -1, size)
    inter_to_in, inter_to_last = decays.inter_chunk_decay[:, :-1], decays.inter_chunk_decay[:, -1:]
    decayed_key = key if decays.input_decay is None else key * decays.input_decay

    # Inside the chunks: read = (intra_chunk_decay ⊙ q keyᵀ) v.
    attention = torch.bmm(q, key.mT).mul_(decays.intra_chunk_decay)
    grad_v = torch.bmm(attention.mT, grad_read[..., :V])
    grad_product = _bmm_into(attention, grad_read, v_hat.mT).mul_(decays.intra_chunk_decay)
    grad_q = torch.bmm(grad_product, key)
    grad_key = torch.bmm(grad_product.mT, q)

    # From the state that enters the chunk: read += (state_decay ⊙ q) states_inᵀ.
    states_in = torch.bmm(inter_to_in, chunk_states).view(X, V + 1, K)
    if decays.state_decay is not None:
        grad_read *= decays.state_decay
    grad_q.baddbmm_(grad_read, states_in)
    grad_states_in = _bmm_into(states_in, grad_read.mT, q).view(G, -1, size)

    # Across the chunks: states_in = inter_chunk_decay · chunk_states.
    grad_first = torch.bmm(inter_to_in[:, :, :1].mT, grad_states_in)
    grad_chunk_states = torch.bmm(inter_to_in[:, :, 1:].mT, grad_states_in)
    grad_inter = torch.bmm(grad_states_in, chunk_states.mT).mul_(inter_to_in)
    if grad_c is not None or grad_n is not None:
        grad_last = chunk_states.new_zeros(B, NH, V + 1, K)
        if grad_c is not None:
            grad_last[:, :, :V] = grad_c
        if grad_n is not None:
            grad_last[:, :, V] = grad_n
        grad_last = grad_last.view(G, 1, size)
        grad_first.baddbmm_(inter_to_last[:, :, :1], grad_last)
        grad_chunk_states.baddbmm_(inter_to_last[:, :, 1:].mT, grad_last)
        grad_inter_last = torch.bmm(grad_last, chunk_states.mT).mul_(inter_to_last)
        grad_inter = torch.cat([grad_inter, grad_inter_last], dim=1)

    # The states of the chunks: vᵀ (input_decay ⊙ key).
    grad_chunk_states = grad_chunk_states.view(X, V + 1, K)
    if decays.input_decay is None:
        grad_key.baddbmm_(v_hat, grad_chunk_states)
    else:
        grad_key.addcmul_(torch.bmm(v_hat, grad_chunk_states), decays.input_decay)
    grad_v.baddbmm_(decayed_key, grad_chunk_states[:, :V].mT)

    # The gates, from the gradient of the logarithm of each weight.
    q_grad_q = row_sums(q * grad_q)
    grad_i = row_sums(key * grad_key)
    grad_f = (q_grad_q - grad_i).flip(-1).cumsum(-1).flip(-1)
    outside = grad_inter.sum(1)[:, 1:] + _sum_through(grad_inter)[:, 1:]
    grad_f += outside.reshape(X, 1)

    grad_i, grad_f = grad_i.view(B, NH, -1), grad_f.view(B, NH, -1)
    grad_m = grad_inter[:, :, 0].sum(-1).view(B, NH)
    grad_c, grad_n = grad_first.view(B, NH, V + 1, K).split((V, 1), dim=2)
    return grad_q, grad_key, grad_v, grad_i, grad_f, grad_c, grad_n[:, :, 0], grad_m


def _bmm_into(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, written to ``out`` where torch allows it; ``out`` is not used afterwards."""
    return torch.bmm(a, b, out=out) if is_eager() else torch.bmm(a, b)


def row_sums(x: Tensor) -> Tensor:
    """Sum over the last dimension by a matrix product, which is faster if that is short."""
    return x @ x.new_ones(x.shape[-1])


def _chunked(x: Tensor, L: int) -> Tensor:
    """Split (B, NH, T, K) into chunks (X, L, K), the last one of each head padded with zeros."""
    pad = -x.shape[2] % L
    return (F.pad(x, (0, 0, 0, pad)) if pad else x).reshape(-1, L, x.shape[3])


def _with_ones(v: Tensor, L: int) -> Tensor:
    """Split v into chunks (X, L, V + 1) with a column of ones, which yields the normalizer."""
    B, NH, T, V = v.shape
    v_hat = v.new_zeros(B, NH, T + -T % L, V + 1)
    v_hat[:, :, :T, :V] = v
    v_hat[:, :, :T, V] = 1
    return v_hat.view(-1, L, V + 1)


def _sum_through(grad_inter: Tensor) -> Tensor:
    """Sum, for every chunk r, the entries [n, s] with s < r <= n, which pass it: (G, N + 1).

    The row of the last state may be missing.
    """
    before = F.pad(grad_inter.cumsum(-1), (1, -1))  # [n, r]: all s < r
    return before.tril(0).sum(-2)
