"""The chunkwise form in plain operations: readable, and differentiable any number of times.

Dimensions: B batch, NH heads, N chunks, L steps of a chunk, K key, V value. The derivation is in
docs/maths.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunkwise.spans import split_spans

__all__ = [
    "LOG_EMPTY",
    "clamp_denominator",
    "chunkwise",
    "denominator",
    "divide_by_normalizer",
    "one_at_scale",
    "segsum",
]

LOG_EMPTY = -1e30  # stands for m = -inf, the logarithmic scale of an empty memory


def chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, c, n and m of the chunkwise form, for inputs of one dtype and T of at least 1."""
    pieces, state = [], [c, n, m]
    for span in split_spans(q.shape[2], chunk_size):
        inputs = [x[:, :, span.steps] for x in (q, k, v, log_i, log_f)]
        h, *state = _read_span(chunk_size, *inputs, *state)
        pieces.append(h)
    c, n, m = state
    return torch.cat(pieces, dim=2), c, n, m


def _read_span(
    chunk_size: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, c, n and m of a span, whose chunks are joined by one matrix."""
    T, K, V = q.shape[2], q.shape[3], v.shape[3]
    L = min(chunk_size, T)
    N = -(-T // L)
    pad = N * L - T
    # padding steps leave the state as it is
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (N, L)) for x in (q, k, v))
    log_i = F.pad(log_i, (0, pad), value=-torch.inf).unflatten(2, (N, L))
    log_f = F.pad(log_f, (0, pad)).unflatten(2, (N, L))
    v = F.pad(
        v, (0, 1), value=1.0
    )  # a column of ones: the normalizer comes out of the same products

    decay = segsum(log_f)  # (B, NH, N, L, L): [j, l] = log of what is left at step j of step l
    weights = decay + log_i[..., None, :]

    # what each chunk adds to the memory, at the scale of its largest weight
    last = weights[..., -1, :]
    m_chunk = last.amax(-1).clamp_min(LOG_EMPTY)
    chunk_states = (
        v * torch.exp(last - m_chunk[..., None])[..., None]
    ).mT @ k  # (B, NH, N, V+1, K)

    # the memory that enters each chunk and, last, the one that leaves: decays times summaries
    initial = torch.cat([c, n[..., None, :]], dim=-2)
    chunk_states = torch.cat([initial[:, :, None], chunk_states], dim=2)
    m_chunk = torch.cat([m[..., None], m_chunk], dim=-1)
    decay_chunk = F.pad(log_f.sum(-1), (1, 0))
    carry = segsum(decay_chunk) + m_chunk[..., None, :]  # (B, NH, N+1, N+1)
    m_in = carry.amax(-1)
    memory = torch.exp(carry - m_in[..., None]) @ chunk_states.flatten(-2)
    memory = memory.unflatten(-1, (V + 1, K))

    # read: from the memory that entered, and from the steps of the chunk itself
    log_enter = log_f.cumsum(-1) + m_in[..., :-1, None]
    with torch.no_grad():  # h does not depend on the scale it is computed at
        m_read = torch.maximum(weights.amax(-1), log_enter).clamp_min(0)
    attention = (q @ k.mT) * torch.exp(weights - m_read[..., None])
    read = attention @ v
    read = read + (q * torch.exp(log_enter - m_read)[..., None]) @ memory[:, :, :-1].mT
    h = divide_by_normalizer(read[..., :V], read[..., V], m_read)
    h = h.flatten(2, 3)[:, :, :T]
    return h, memory[:, :, -1, :V], memory[:, :, -1, V], m_in[..., -1]


def segsum(x: Tensor) -> Tensor:
    """Sum over segments: ``out[..., j, l] = x[l+1] + ... + x[j]``, and ``-inf`` where l > j.

    Summed one by one, not as a difference of two long sums, which would lose the small ones, or
    give ``inf - inf`` where a gate is shut.
    """
    length = x.shape[-1]
    below = torch.ones(length, length, dtype=torch.bool, device=x.device).tril(-1)
    columns = x[..., None].expand(*x.shape, length).masked_fill(~below, 0)
    above = below.mT
    return columns.cumsum(-2).masked_fill(above, -torch.inf)


def divide_by_normalizer(numerator: Tensor, normalizer: Tensor, m: Tensor) -> Tensor:
    """``C q / max(|nᵀq|, 1)`` of quantities divided by exp(m), for m of at least 0."""
    return numerator / denominator(normalizer, one_at_scale(m))[..., None]


def denominator(normalizer: Tensor, one: Tensor) -> Tensor:
    """Return ``max(|nᵀq|, 1)``, NaN where nᵀq overflows: a quotient of 0 would hide that."""
    return torch.maximum(normalizer.abs(), one) + (normalizer - normalizer)


def one_at_scale(m: Tensor) -> Tensor:
    """Return 1 divided by exp(m)."""
    return clamp_denominator(torch.exp(-m))


def clamp_denominator(one: Tensor) -> Tensor:
    """Keep 0 / 0 out: where 1 is that small, it is out of sight of |nᵀq|."""
    return one.clamp_min(torch.finfo(one.dtype).tiny ** 0.5)
