"""From pre-activations to the gated read-out of a whole sequence, as one function to autograd.

What ``activate``, ``mlstm_chunkwise`` and the output gate do one after the other, without the
copies between their layouts: every part of the pre-activations is brought into chunks by the pass
that scales it, and the backward pass writes all gradients into one tensor. Layer norms come first
where there are any; what they give is not kept.

Pre-activations come in parts: whole, (B, T, 4 H + 2 NH), or normalized, q, k and v (B, T, H) and
the gates (B, T, H + 2 NH).

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

from ...preactivations import (
    Projections,
    apply_gate_activations,
    soft_cap,
    soft_cap_grad,
    split_heads,
)
from ..autocast import autocast_disabled
from ..double_backward import gradients
from ..execution import is_eager_on_cpu
from ..layer_norm import (
    LayerNormParams,
    layer_norm_bwd,
    layer_norm_fwd,
    naive_layer_norm,
)
from ..naive import chunkwise
from ..scale_gradients import scale_gradients
from .causality import propagate_nans_causally
from .decay import (
    ChunkDecays,
    chunk_decays,
    chunk_gates,
    is_factorable,
)
from .passes import (
    chunks_bwd,
    chunks_fwd,
    normalizer_bwd_,
    row_sums,
)
from .spans import (
    Saved,
    SegmentWriter,
    Span,
    scan_spans_bwd,
    scan_spans_fwd,
)
from .tiling import default_chunk_size

__all__ = ["GatedFunction", "use_factored_decay", "gated_bwd", "gated_fwd", "naive_gated"]


class GatedFunction(torch.autograd.Function):
    """Pre-activations p (B, T, 4 H + 2 NH), c, n, m by head, padding (B, T, 1) or None, norms.

    The norms are those still to be done: eps, all weights and all biases, of ``LayerNormParams``, or nothing.
    Returns the gated h (B, T, H), in memory time first, and the last c, n and m. A second
    derivative is supported, at the speed of plain autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *norms: Any
    ) -> tuple[Tensor, ...]:
        L = default_chunk_size(p.shape[1], c.shape[-1])
        with autocast_disabled(p.device):
            parts = layer_norm_fwd(p, LayerNormParams.of(*norms))[0] if norms else [p]
            ctx.factored = use_factored_decay(parts, m, padding, L)
            output, *last, h, normalizer, states, scales = gated_fwd(
                L, ctx.factored, parts, c, n, m, padding
            )
        ctx.eps, affine = norms[:1], norms[1:]
        saved = (h, *last[:2], normalizer, states, scales)
        ctx.save_for_backward(p, c, n, m, padding, *saved, *affine)
        ctx.set_materialize_grads(False)  # the last state is rarely part of a loss
        return output, *last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        p, c, n, m, padding, *others = ctx.saved_tensors
        saved, affine = others[:6], others[6:]
        norms = (*ctx.eps, *affine)
        no_grad = (None,) * len(ctx.eps)
        with autocast_disabled(p.device):
            if torch.is_grad_enabled():
                outputs = naive_gated(p, c, n, m, padding, *norms)
                of_p, of_c, of_n, of_m, *of_affine = gradients(
                    outputs, grads, (p, c, n, m, *affine)
                )
                return of_p, of_c, of_n, of_m, None, *no_grad, *of_affine
            L = default_chunk_size(p.shape[1], c.shape[-1])
            kept = m, padding, *saved
            if not norms:
                (of_p,), *of_state = gated_bwd(L, ctx.factored, [p], *kept, *grads)
                return of_p, *of_state, None
            parts, means, inverses = layer_norm_fwd(p, LayerNormParams.of(*norms))
            of_parts, *of_state = gated_bwd(L, ctx.factored, parts, *kept, *grads)
            of_norms = layer_norm_bwd(of_parts, p, means, inverses, LayerNormParams.of(*norms))
            return of_norms[0], *of_state, None, None, *of_norms[1]


def gated_fwd(
    L: int,
    factored: bool,
    parts: Sequence[Tensor],
    c: Tensor,
    n: Tensor,
    m: Tensor,
    padding: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return the gated h, the last c, n and m, and what the backward pass needs."""
    T, NH = parts[0].shape[1], m.shape[1]
    read = partial(_read, L, factored)

    def run(span: Span, *state: Tensor) -> Any:
        views, log_i, log_f = _by_head(parts, NH, padding, span.steps)
        results = propagate_nans_causally(read, views.q, views.k, views.v, log_i, log_f, *state)
        h, c, n, m, normalizer, states = results
        B, _, steps, V = views.v.shape
        output = h.new_empty(steps, B, NH * V).transpose(0, 1)
        torch.mul(torch.sigmoid(views.o), h[:, :, :steps], out=_heads_view(output, NH))
        return (output, h), (c, n, m), normalizer, states

    output, h = SegmentWriter(1, T), SegmentWriter(2, T + -T % L)
    last, saved = scan_spans_fwd(run, (c, n, m), T, L, [output, h])
    return output.result(), *last, h.result(), *saved


def _read(L: int, factored: bool, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return h in whole chunks, the last c, n and m, the normalizer and the states."""
    q, k, v, log_i, log_f, c, n, m = inputs
    x = _prepare(q, k, v, log_i, log_f, m, L, factored)
    h, last_c, last_n, last_m, normalizer, states = chunks_fwd(x.q, x.key, x.v_hat, c, n, x.weights)
    (B, NH), V = m.shape, v.shape[3]
    h, normalizer = h.view(B, NH, -1, V), normalizer.view(B, NH, -1)
    return h, last_c, last_n, last_m, normalizer, states.view(B, NH, *states.shape[1:])


class _Prepared(NamedTuple):
    """What the chunkwise passes take."""

    q: Tensor  # (X, L, K)
    key: Tensor  # k ⊙ key_scale
    key_scale: Tensor  # (B, NH, T, 1), with the 1/√K
    v_hat: Tensor  # (X, L, V + 1), with a column of ones
    weights: ChunkDecays


def use_factored_decay(parts: Sequence[Tensor], m: Tensor, padding: Tensor | None, L: int) -> bool:
    """Whether weights are to be taken as factors."""
    if not is_eager_on_cpu(m):
        return False
    _, log_i, log_f = _by_head(parts, m.shape[1], padding)
    return is_factorable(log_i, log_f, L)


def _prepare(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    m: Tensor,
    L: int,
    factored: bool,
) -> _Prepared:
    """Bring q, k, v (B, NH, T, K) and the gates (B, NH, T) into chunks."""
    B, NH, T, K = q.shape
    w = chunk_decays(*chunk_gates(log_i, log_f, L), m.reshape(-1, 1), factored=factored)

    S = T + -T % L
    key_scale = (w.key_scale / math.sqrt(K)).expand(B * NH * S // L, L, 1)
    key_scale = _steps(key_scale.contiguous(), B, NH, T)
    query, key, v_hat = (_buffer(m, (B, NH, S, width), T) for width in (K, K, K + 1))
    query[:, :, :T] = q
    torch.mul(k, key_scale, out=key[:, :, :T])
    v_hat[:, :, :T, :K] = v
    v_hat[:, :, :T, K] = 1
    query, key, v_hat = (x.view(-1, L, x.shape[-1]) for x in (query, key, v_hat))
    return _Prepared(query, key, key_scale, v_hat, w)


def gated_bwd(
    L: int,
    factored: bool,
    parts: Sequence[Tensor],
    m: Tensor,
    padding: Tensor | None,
    h: Tensor,
    last_c: Tensor,
    last_n: Tensor,
    normalizer: Tensor,
    states: Tensor,
    scales: Tensor,
    grad_output: Tensor | None,
    *grad_state: Tensor | None,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return the gradients of the parts, and those of c, n and m."""
    T, NH = parts[0].shape[1], m.shape[1]
    grad_parts = [torch.empty_like(part) for part in parts]
    through_scale = None
    if any(grad is not None for grad in grad_state):
        _, log_i, log_f = _by_head(parts, NH, padding)
        through_scale = scale_gradients(log_i, log_f, m, last_c, last_n, *grad_state)

    def run(
        span: Span, saved: Saved, grad_c: Tensor | None, grad_n: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps = span.steps
        views, log_i, log_f = _by_head(parts, NH, padding, steps)
        x = _prepare(views.q, views.k, views.v, log_i, log_f, saved.scales, L, factored)
        into = _heads_first([part[:, steps] for part in grad_parts], NH)
        of_output = None if grad_output is None else grad_output[:, steps]
        read = h[:, :, span.padded_steps]
        grad_read = _through_output_gate(of_output, views.o, read, saved, x, into.o)
        grad_q, grad_key, grad_v, grad_i, grad_f, *of_state = chunks_bwd(
            x.q,
            x.key,
            x.v_hat,
            grad_read.view_as(x.v_hat),
            saved.states,
            grad_c,
            grad_n,
            x.weights,
        )
        B, _, length = log_i.shape
        grad_i, grad_f = grad_i[:, :, :length], grad_f[:, :, :length]
        if through_scale is not None:
            grad_i, grad_f = (
                grad + of_scale[:, :, steps]
                for grad, of_scale in zip((grad_i, grad_f), through_scale, strict=False)
            )
        into.q.copy_(_steps(grad_q, B, NH, length))
        torch.mul(_steps(grad_key, B, NH, length), x.key_scale, out=into.k)
        into.v.copy_(_steps(grad_v, B, NH, length))
        torch.mul(grad_i, soft_cap_grad(soft_cap(views.i)), out=into.i)
        torch.mul(grad_f, -torch.expm1(log_f), out=into.f)  # 1 - f, 0 at padding
        grad_c, grad_n, grad_m = of_state
        return grad_c, grad_n, grad_m

    saved = Saved(normalizer, states, scales)
    grad_c, grad_n, grad_m = scan_spans_bwd(run, saved, T, L, *grad_state[:2])
    if through_scale is not None:
        grad_m = grad_m + through_scale[2]
    return grad_parts, grad_c, grad_n, grad_m


def _through_output_gate(
    grad_output: Tensor | None,
    o: Tensor,
    h: Tensor,
    saved: Saved,
    x: _Prepared,
    into: Tensor,
) -> Tensor:
    """Go back through output = σ(o) h and the division, and write the gradient of o.

    Returns that of what was read, (B, NH, N·L, V + 1), for h of whole chunks.
    """
    T, V = o.shape[2], h.shape[3]
    grad_read = _buffer(h, (*h.shape[:3], V + 1), T)
    if grad_output is None:
        into.zero_()
        return grad_read.zero_()
    o, grad_h = torch.sigmoid(o), grad_read[:, :, :T, :V]
    torch.mul(_heads_view(grad_output, o.shape[1]), o, out=grad_h)
    product = grad_h * h[:, :, :T]
    grad_read[:, :, :T, V] = row_sums(product)
    into.copy_(product.addcmul_(product, o, value=-1))  # into a view it is ten times slower
    normalizer_bwd_(grad_read, saved.normalizer, x.weights)
    return grad_read


def naive_gated(
    p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, ...]:
    """Return the same by plain operations."""
    NH = m.shape[1]
    if norms:
        p = naive_layer_norm(p, LayerNormParams.of(*norms))
    q, k, v, _, _, o = (x.transpose(1, 2) for x in apply_gate_activations(p, NH))
    _, log_i, log_f = _by_head([p], NH, padding)
    L = default_chunk_size(p.shape[1], q.shape[-1])
    h, *last = chunkwise(q, k, v, log_i, log_f, c, n, m, L)
    return (o * h).transpose(1, 2).flatten(-2), *last


def _by_head(
    parts: Sequence[Tensor], NH: int, padding: Tensor | None, steps: slice = slice(None)
) -> tuple[Projections, Tensor, Tensor]:
    """View steps of pre-activations by head, with the logarithms of both gates (B, NH, T).

    Gates leave the state as it is at padding.
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
    """View chunks (X, L, ...) as (B, NH, T, ...), without what fills up."""
    return x.view(B, NH, -1, x.shape[-1])[:, :, :T]


def _buffer(like: Tensor, shape: tuple[int, ...], T: int) -> Tensor:
    """Return an empty tensor of this shape, with zeros from step T on."""
    buffer = like.new_empty(shape)
    buffer[:, :, T:] = 0
    return buffer
