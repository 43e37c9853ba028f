"""Naive forms of every operation: readable, and differentiable any number of times.

Dimensions: B batch, NH heads, N chunks, L steps of a chunk, K key, V value. The derivation is in
docs/maths.md.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..preactivations import apply_gate_activations, heads_first
from .chunks import default_chunk_size, split_spans
from .execution import is_known
from .layer_norm import LayerNormParams, naive_layer_norm
from .stabilization import LOG_EMPTY, divide_by_normalizer, segsum
from .types import Inputs, mLSTMState

__all__ = ["naive_chunkwise", "naive_gated", "naive_span", "naive_step", "rescale_state"]


def naive_step(inputs: Inputs, state: mLSTMState) -> tuple[Tensor, mLSTMState]:
    """Take one step, for inputs (B, NH, ...)."""
    q, k, v, log_i, log_f = inputs
    m = torch.maximum(log_f + state.m, log_i).clamp_min(LOG_EMPTY)
    i = torch.exp(log_i - m)[..., None]
    f = torch.exp(log_f + state.m - m)[..., None]
    c = f[..., None] * state.c + (i * v)[..., :, None] * k[..., None, :]
    n = f * state.n + i * k
    # Where all gates are small, m is negative: use a scale of 1 there.
    m_read = m.clamp_min(0)
    scaled_q = q * torch.exp(m - m_read)[..., None]
    numerator = (c @ scaled_q[..., None])[..., 0]
    normalizer = (n * scaled_q).sum(-1)
    return divide_by_normalizer(numerator, normalizer, m_read), mLSTMState(c, n, m)


def naive_gated(
    p: Tensor, state: mLSTMState, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H) and the last state; the norms are as in ``GatedFunction``."""
    if norms:
        p = naive_layer_norm(p, LayerNormParams.of(*norms))
    NH = state.m.shape[1]
    *inputs, o = heads_first(apply_gate_activations(p, NH), padding)
    L = default_chunk_size(p.shape[1], state.c.shape[-1])
    h, last = naive_chunkwise(Inputs(*inputs), state, L)
    return (o * h).transpose(1, 2).flatten(-2), last


def naive_chunkwise(inputs: Inputs, state: mLSTMState, L: int) -> tuple[Tensor, mLSTMState]:
    """Return h and the last state of the chunkwise form, for one dtype and T of at least 1."""
    outputs = []
    for span in split_spans(inputs.q.shape[2], L):
        steps = inputs.at(span.steps)
        h, state = naive_span(steps, state, min(L, steps.q.shape[2]))
        outputs.append(h)
    return torch.cat(outputs, dim=2), state


def rescale_state(state: mLSTMState, m: Tensor) -> mLSTMState:
    """Return the same memory, divided by the scale exp(m) instead of its own."""
    factor = torch.exp(state.m - m)[..., None]
    return mLSTMState(state.c * factor[..., None], state.n * factor, m)


def naive_span(inputs: Inputs, state: mLSTMState, L: int) -> tuple[Tensor, mLSTMState]:
    """Return h and the last state of a span; one matrix carries the memory between its chunks."""
    q, k, v, log_i, log_f = inputs
    T, K, V = q.shape[2], q.shape[3], v.shape[3]
    # If T is a symbol, there is one chunk more, since a graph for one chunk is not one for several.
    N = (T + L - 1) // L if is_known(T) else (T + 2 * L - 1) // L
    pad = N * L - T
    # Padding steps leave the state as it is.
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (-1, L)) for x in (q, k, v))
    log_i = F.pad(log_i, (0, pad), value=-torch.inf).unflatten(2, (-1, L))
    log_f = F.pad(log_f, (0, pad)).unflatten(2, (-1, L))
    # With a column of ones, the normalizer comes out of the same products.
    v = F.pad(v, (0, 1), value=1.0)

    # (B, NH, N, L, L): [j, l] is the log weight of step l after step j.
    weights = segsum(log_f) + log_i[..., None, :]

    # The contribution of each chunk to the memory, divided by its largest weight:
    # (B, NH, N, V+1, K).
    last = weights[..., -1, :]
    m_chunk = last.amax(-1).clamp_min(LOG_EMPTY)
    chunk_states = (v * torch.exp(last - m_chunk[..., None])[..., None]).mT @ k

    # The memory that enters each chunk, followed by the last memory: decays times chunk states.
    initial = torch.cat([state.c, state.n[..., None, :]], dim=-2)
    chunk_states = torch.cat([initial[:, :, None], chunk_states], dim=2)
    m_chunk = torch.cat([state.m[..., None], m_chunk], dim=-1)
    chunk_log_f = F.pad(log_f.sum(-1), (1, 0))
    inter_chunk = segsum(chunk_log_f) + m_chunk[..., None, :]  # (B, NH, N+1, N+1)
    m_in = inter_chunk.amax(-1)
    memory = torch.exp(inter_chunk - m_in[..., None]) @ chunk_states.flatten(-2)
    memory = memory.unflatten(-1, (V + 1, K))

    # Read from the memory that enters the chunk, and from the steps of the chunk itself.
    log_in = log_f.cumsum(-1) + m_in[..., :-1, None]
    with torch.no_grad():  # h does not depend on the scale it is computed at
        m_read = torch.maximum(weights.amax(-1), log_in).clamp_min(0)
    attention = (q @ k.mT) * torch.exp(weights - m_read[..., None])
    read = attention @ v
    read = read + (q * torch.exp(log_in - m_read)[..., None]) @ memory[:, :, :-1].mT
    h = divide_by_normalizer(read[..., :V], read[..., V], m_read)
    h = h.flatten(2, 3)
    # A tracer would make a graph for a slice that is whole, or for one that is not.
    h = h[:, :, :T] if is_known(T) else h.index_select(2, torch.arange(T, device=h.device))
    return h, mLSTMState(memory[:, :, -1, :V], memory[:, :, -1, V], m_in[..., -1])
