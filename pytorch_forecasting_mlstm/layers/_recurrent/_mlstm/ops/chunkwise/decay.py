"""The decays of a chunk, factored or exact.

The weight of step l in the memory after step j is ``exp(log_i[l] + log_f[l+1] + … + log_f[j])``.
If the gates of a chunk are not too far apart, it is computed as the product of a factor of l and a
factor of j. The first is multiplied into the keys and the second cancels in the read-out, so no
exponential of an L×L block is needed. For all other gates, the exact decays are computed.

Dimensions: N chunks, L steps of a chunk; G = B·NH (batch and heads), X = G·N.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..stabilization import LOG_EMPTY, clamp_denominator, one_at_scale, segsum

__all__ = ["ChunkDecays", "is_factorable", "chunk_gates", "chunk_decays"]

_MAX_RANGE = 40.0  # between the logarithms of the largest and smallest factor; float32 spans 87
_MAX_LOG = 200.0  # of a factor; float64 spans 709, and rounds 200 by 3e-14
_MIN_LOG_SCALE = -500.0  # of a chunk; reached if both the chunk and the memory are empty


class ChunkDecays(NamedTuple):
    """Decays of steps, chunks and the state, each relative to a scale of its own.

    With ``key = key_scale ⊙ k``::

        chunk_states = vᵀ (input_decay ⊙ key)        states_in = inter_chunk_decay · chunk_states
        read = (q keyᵀ ⊙ intra_chunk_decay) v + (state_decay ⊙ q) states_inᵀ
    """

    intra_chunk_decay: Tensor  # (X, L, L), or the causal mask (L, L) if factored
    key_scale: Tensor  # (X, L, 1), or (1) if exact
    input_decay: Tensor | None  # (X, L, 1); None if factored: it is in key_scale
    state_decay: Tensor | None  # (X, L, 1); None if factored: it is in inter_chunk_decay
    inter_chunk_decay: Tensor  # (G, N + 1, N + 1): first column initial state, last row final one
    m_in: Tensor  # (G, N + 1): log scale of the state that enters each chunk
    denominator_floor: Tensor  # (X, L): 1 at the scale of what is read


def is_factorable(log_i: Tensor, log_f: Tensor, L: int) -> bool:
    """Whether log gates (B, NH, T) are close enough to one another for factored decays."""
    log_i, log_f = chunk_gates(log_i.detach(), log_f.detach(), L)
    decay = log_f.double().cumsum(-1)
    log_key = log_i - decay
    top = log_key.amax(-1)
    bottom = torch.where(log_i > LOG_EMPTY, log_key, torch.inf).amin(-1)
    total = decay[:, -1]
    is_near = (top - bottom <= _MAX_RANGE) & (top + total >= -_MAX_RANGE) | (top <= LOG_EMPTY)
    return bool((is_near & (top <= _MAX_LOG) & (total.abs() <= _MAX_LOG)).all())


def chunk_gates(log_i: Tensor, log_f: Tensor, L: int) -> tuple[Tensor, Tensor]:
    """Split (B, NH, T) into chunks (X, L), padded with steps that leave the state unchanged."""
    pad = -log_i.shape[2] % L
    if pad:
        log_i = F.pad(log_i, (0, pad), value=-torch.inf)
        log_f = F.pad(log_f, (0, pad))
    # A closed gate becomes a finite number, whose product with 0 is 0.
    return log_i.reshape(-1, L), log_f.reshape(-1, L).clamp_min(LOG_EMPTY)


def chunk_decays(log_i: Tensor, log_f: Tensor, m: Tensor, *, factored: bool) -> ChunkDecays:
    """Return the decays of all chunks, for log gates (X, L) and the scale m of the state (G, 1)."""
    return (_factored if factored else _exact)(log_i, log_f, m)


def _factored(log_i: Tensor, log_f: Tensor, m: Tensor) -> ChunkDecays:
    """Return the factors of the steps that are read; those of the reading steps cancel."""
    decay = log_f.double().cumsum(-1)  # float64: differences of these sums are needed
    log_key = log_i - decay
    top, total = log_key.amax(-1), decay[:, -1]
    m_chunk = (top + total).clamp_min(LOG_EMPTY)
    segments, m_in = _inter_chunk(total, m, m_chunk)
    scale = torch.maximum(top, m_in[:, :-1].reshape(-1)).clamp_min(_MIN_LOG_SCALE)
    power = torch.ceil(scale / math.log(2))  # a power of 2 changes no digit of a factor
    scale = power * math.log(2)
    G = len(m)
    scales = torch.cat([m.double(), (scale + total).view(G, -1)], dim=1)
    log_carry = segments + scales[:, None, :] - m_in[..., None]
    dtype = log_i.dtype
    shrink = torch.exp2(-power)[:, None]
    carry = torch.exp(log_carry.clamp_max(1))  # larger ones multiply the zeros of an empty chunk
    carry[:, :-1] *= _exp_over_power_of_2(m_in[:, :-1], power.view(G, -1))[..., None]
    key_scale = (torch.exp(log_key) * shrink).to(dtype)[..., None]
    return ChunkDecays(
        intra_chunk_decay=torch.ones_like(log_i[0, :, None] * log_i[0]).tril(),
        key_scale=key_scale,
        input_decay=None,
        state_decay=None,
        inter_chunk_decay=carry.to(dtype),
        m_in=m_in.to(dtype),
        denominator_floor=clamp_denominator((torch.exp(-decay) * shrink).to(dtype)),
    )


def _exact(log_i: Tensor, log_f: Tensor, m: Tensor) -> ChunkDecays:
    """Return a decay for every pair of steps, for any gates."""
    L = log_i.shape[1]
    ones = log_f.new_ones(L, L)
    above = torch.full_like(ones, -torch.inf).triu(1)
    weights = (log_f[..., None] * ones.tril(-1)).cumsum(-2)
    weights.add_(log_i[:, None, :]).add_(above)  # [j, l]: log weight of step l after step j
    last = weights[:, -1]
    m_chunk = last.amax(-1).clamp_min_(LOG_EMPTY)
    segments, m_in = _inter_chunk(log_f.sum(-1), m, m_chunk)
    scales = torch.cat([m, m_chunk.view(len(m), -1)], dim=1)
    log_enter = log_f.cumsum(-1).add_(m_in[:, :-1].reshape(-1, 1))
    m_read = torch.maximum(weights.amax(-1), log_enter).clamp_min_(0)
    return ChunkDecays(
        input_decay=torch.exp(last - m_chunk[:, None])[..., None],
        intra_chunk_decay=_exp(weights.sub_(m_read[..., None])),
        key_scale=log_i.new_ones(1),
        state_decay=torch.exp(log_enter - m_read)[..., None],
        inter_chunk_decay=torch.exp(segments + scales[:, None, :] - m_in[..., None]),
        m_in=m_in,
        denominator_floor=one_at_scale(m_read),
    )


def _inter_chunk(total: Tensor, m: Tensor, m_chunk: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log decays between chunks, (G, N + 1, N + 1), and the scales of the states."""
    segments = segsum(F.pad(total.view(len(m), -1), (1, 0)))
    scales = torch.cat([m.to(total.dtype), m_chunk.view(len(m), -1)], dim=1)
    m_in = (segments + scales[:, None, :]).amax(-1)
    return segments, m_in.to(m.dtype).to(total.dtype)  # rounded like the m that is returned


def _exp_over_power_of_2(x: Tensor, power: Tensor) -> Tensor:
    """Return ``exp(x) / 2**power`` for any x; its digits do not depend on the power."""
    x = torch.maximum(x, (power - 1e4) * math.log(2))  # below this the result is 0
    exponent = torch.round(x / math.log(2))
    return torch.exp(x - exponent * math.log(2)) * torch.exp2(exponent - power)


def _exp(x: Tensor) -> Tensor:
    """Exponentiate in place, and flush results near or below the smallest normal number to 0.

    Denormal numbers are tens of times slower to process, infinite ones twice.
    """
    tiny = torch.finfo(x.dtype).tiny
    return F.threshold(x.clamp_min_(math.log(2 * tiny)).exp_(), 3 * tiny, 0.0, inplace=True)
