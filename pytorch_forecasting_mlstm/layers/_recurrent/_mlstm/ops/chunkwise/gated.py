"""From pre-activations to the gated read-out of a whole sequence.

This fuses ``apply_gate_activations``, the recurrence and the output gate, which need copies between
their layouts when computed one after the other. Here the pass that scales a part of the
pre-activations also splits it into chunks, and the backward pass writes all gradients into one
tensor.

Pre-activations are one tensor (B, T, 4 H + 2 NH), or four normalized parts: q, k and v (B, T, H),
and the gates (B, T, H + 2 NH).

Dimensions: B batch, T time, NH heads, V value and K key (both H/NH here), L steps of a chunk, S
steps in whole chunks.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...preactivations import Projections, soft_cap, soft_cap_grad, split_heads
from ..chunks import Span
from ..execution import is_eager_on_cpu
from ..scale_gradients import scale_gradients
from ..tiling import SegmentWriter
from ..types import Inputs, OutputGrads, mLSTMState
from .causality import propagate_nans_causally
from .decay import ChunkDecays, chunk_decays, chunk_gates, is_factorable
from .passes import chunks_bwd, chunks_fwd, normalizer_bwd_, row_sums
from .scan import Saved, scan_spans_bwd, scan_spans_fwd

__all__ = ["gated_bwd", "gated_fwd", "plan_gated"]


def gated_fwd(
    parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int, factored: bool
) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
    """Return the gated h (B, T, H), in memory time first, the last state, and what is saved."""
    T, NH = parts[0].shape[1], state.m.shape[1]
    read = partial(_read_span, L, factored)

    def run(span: Span, state: mLSTMState) -> Any:
        views, log_i, log_f = _by_head(parts, NH, padding, span.steps)
        inputs = Inputs(views.q, views.k, views.v, log_i, log_f)
        h, last, *saved = propagate_nans_causally(read, inputs, state)
        B, _, steps, V = views.v.shape
        output = h.new_empty(steps, B, NH * V).transpose(0, 1)
        torch.mul(torch.sigmoid(views.o), h[:, :, :steps], out=_heads_view(output, NH))
        return (output, h), last, *saved

    output, h = SegmentWriter(1, T), SegmentWriter(2, T + -T % L)
    last, saved = scan_spans_fwd(run, state, T, L, [output, h])
    return output.result(), last, (h.result(), *saved)


def _read_span(
    L: int, factored: bool, inputs: Inputs, state: mLSTMState
) -> tuple[Tensor, mLSTMState, Tensor, Tensor]:
    """Return h in whole chunks, the last state, the normalizer and the chunk states."""
    x = _prepare(inputs, state.m, L, factored)
    h, last, normalizer, states = chunks_fwd(x.q, x.key, x.v_hat, state.c, state.n, x.decays)
    (B, NH), V = state.m.shape, inputs.v.shape[3]
    h, normalizer = h.view(B, NH, -1, V), normalizer.view(B, NH, -1)
    return h, last, normalizer, states.view(B, NH, *states.shape[1:])


class _Prepared(NamedTuple):
    """The arguments of the chunkwise passes."""

    q: Tensor  # (X, L, K)
    key: Tensor  # k ⊙ key_scale
    key_scale: Tensor  # (B, NH, T, 1), with the 1/√K
    v_hat: Tensor  # (X, L, V + 1), with a column of ones
    decays: ChunkDecays


def plan_gated(parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int) -> bool:
    """Whether both passes use factored decays."""
    if not is_eager_on_cpu(state.m):
        return False
    _, log_i, log_f = _by_head(parts, state.m.shape[1], padding)
    return is_factorable(log_i, log_f, L)


def _prepare(inputs: Inputs, m: Tensor, L: int, factored: bool) -> _Prepared:
    """Split the inputs into chunks."""
    q, k, v, log_i, log_f = inputs
    B, NH, T, K = q.shape
    decays = chunk_decays(*chunk_gates(log_i, log_f, L), m.reshape(-1, 1), factored=factored)

    S = T + -T % L
    key_scale = (decays.key_scale / math.sqrt(K)).expand(B * NH * S // L, L, 1)
    key_scale = _steps(key_scale.contiguous(), B, NH, T)
    query, key, v_hat = (_buffer(m, (B, NH, S, width), T) for width in (K, K, K + 1))
    query[:, :, :T] = q
    torch.mul(k, key_scale, out=key[:, :, :T])
    v_hat[:, :, :T, :K] = v
    v_hat[:, :, :T, K] = 1
    query, key, v_hat = (x.view(-1, L, x.shape[-1]) for x in (query, key, v_hat))
    return _Prepared(query, key, key_scale, v_hat, decays)


def gated_bwd(
    parts: Sequence[Tensor],
    state: mLSTMState,
    padding: Tensor | None,
    last_c: Tensor,
    last_n: Tensor,
    saved: Sequence[Tensor],
    grads: OutputGrads,
    L: int,
    factored: bool,
) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return the gradients of the parts, and those of c, n and m."""
    T, NH = parts[0].shape[1], state.m.shape[1]
    h, *residuals = saved
    grad_output, *grad_state = grads
    grad_parts = [torch.empty_like(part) for part in parts]
    through_scale = None
    if any(grad is not None for grad in grad_state):
        _, log_i, log_f = _by_head(parts, NH, padding)
        through_scale = scale_gradients(log_i, log_f, state.m, last_c, last_n, *grad_state)

    def run(
        span: Span, saved: Saved, grad_c: Tensor | None, grad_n: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps = span.steps
        views, log_i, log_f = _by_head(parts, NH, padding, steps)
        inputs = Inputs(views.q, views.k, views.v, log_i, log_f)
        x = _prepare(inputs, saved.scales, L, factored)
        outputs = _heads_first([part[:, steps] for part in grad_parts], NH)
        span_grad = None if grad_output is None else grad_output[:, steps]
        read = h[:, :, span.padded_steps]
        grad_read = _through_output_gate(span_grad, views.o, read, saved, x, outputs.o)
        grad_q, grad_key, grad_v, grad_i, grad_f, *span_grad_state = chunks_bwd(
            x.q,
            x.key,
            x.v_hat,
            grad_read.view_as(x.v_hat),
            saved.states,
            grad_c,
            grad_n,
            x.decays,
        )
        B, _, length = log_i.shape
        grad_i, grad_f = grad_i[:, :, :length], grad_f[:, :, :length]
        if through_scale is not None:
            grad_i, grad_f = (
                grad + scale_grad[:, :, steps]
                for grad, scale_grad in zip((grad_i, grad_f), through_scale, strict=False)
            )
        outputs.q.copy_(_steps(grad_q, B, NH, length))
        torch.mul(_steps(grad_key, B, NH, length), x.key_scale, out=outputs.k)
        outputs.v.copy_(_steps(grad_v, B, NH, length))
        torch.mul(grad_i, soft_cap_grad(soft_cap(views.i)), out=outputs.i)
        torch.mul(grad_f, -torch.expm1(log_f), out=outputs.f)  # times 1 - f, 0 at padding
        grad_c, grad_n, grad_m = span_grad_state
        return grad_c, grad_n, grad_m

    grad_c, grad_n, grad_m = scan_spans_bwd(run, Saved(*residuals), T, L, *grad_state[:2])
    if through_scale is not None:
        grad_m = grad_m + through_scale[2]
    return grad_parts, (grad_c, grad_n, grad_m)


def _through_output_gate(
    grad_output: Tensor | None,
    o: Tensor,
    h: Tensor,
    saved: Saved,
    x: _Prepared,
    grad_o: Tensor,
) -> Tensor:
    """Backpropagate through output = σ(o) h and the division; write the gradient of o to grad_o.

    Returns the gradient of what was read, (B, NH, N·L, V + 1), for h in whole chunks.
    """
    T, V = o.shape[2], h.shape[3]
    grad_read = _buffer(h, (*h.shape[:3], V + 1), T)
    if grad_output is None:
        grad_o.zero_()
        return grad_read.zero_()
    o, grad_h = torch.sigmoid(o), grad_read[:, :, :T, :V]
    torch.mul(_heads_view(grad_output, o.shape[1]), o, out=grad_h)
    product = grad_h * h[:, :, :T]
    grad_read[:, :, :T, V] = row_sums(product)
    # Computing this into the view directly would be ten times slower.
    grad_o.copy_(product.addcmul_(product, o, value=-1))
    normalizer_bwd_(grad_read, saved.normalizer, x.decays)
    return grad_read


def _by_head(
    parts: Sequence[Tensor], NH: int, padding: Tensor | None, steps: slice = slice(None)
) -> tuple[Projections, Tensor, Tensor]:
    """View steps of pre-activations by head, with the logarithms of both gates (B, NH, T).

    At padding, the gates leave the state unchanged.
    """
    views = _heads_first([part[:, steps] for part in parts], NH)
    log_i, log_f = soft_cap(views.i), F.logsigmoid(views.f)
    if padding is not None:
        padding = padding[:, steps].mT
        log_i, log_f = log_i.masked_fill(padding, -torch.inf), log_f.masked_fill(padding, 0.0)
    return views, log_i, log_f


def _heads_first(parts: Sequence[Tensor], NH: int) -> Projections:
    """View pre-activations, whole or in parts, by head: (B, NH, T, ...)."""
    return Projections(*(part.transpose(1, 2) for part in split_heads(parts, NH)))


def _heads_view(x: Tensor, NH: int) -> Tensor:
    """View (B, T, H) as (B, NH, T, V)."""
    return x.unflatten(-1, (NH, -1)).transpose(1, 2)


def _steps(x: Tensor, B: int, NH: int, T: int) -> Tensor:
    """View chunks (X, L, ...) as (B, NH, T, ...), without padding."""
    return x.view(B, NH, -1, x.shape[-1])[:, :, :T]


def _buffer(like: Tensor, shape: tuple[int, ...], T: int) -> Tensor:
    """Return an empty tensor of this shape, with zeros from step T on."""
    buffer = like.new_empty(shape)
    buffer[:, :, T:] = 0
    return buffer
