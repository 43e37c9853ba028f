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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._activations import (
    Parts,
    activate,
    cap,
    cap_slope,
    split,
)
from ._blocks import chunk_length, is_eager_on_cpu
from ._chunkwise import chunkwise
from ._derivatives import gradients
from ._layer_norms import (
    Norms,
    normalize,
    normalize_gradients,
    plain_norms,
)
from ._passes import (
    StateGradients,
    gradients_of_chunks,
    read_chunks,
    row_sums,
    through_division,
)
from ._precision import full_precision
from ._weights import (
    Weights,
    can_factor,
    cut_gates,
    weigh,
)

__all__ = ["GatedChunkwise", "factors", "gated_backward", "gated_forward", "plain_gated"]


class GatedChunkwise(torch.autograd.Function):
    """Pre-activations p (B, T, 4 H + 2 NH), c, n, m by head, padding (B, T, 1) or None, norms.

    The norms are those still to be done: eps, all weights and all biases, of ``Norms``, or nothing.
    Returns the gated h (B, T, H), in memory time first, and the last c, n and m. A second
    derivative is supported, at the speed of plain autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *norms: Any
    ) -> tuple[Tensor, ...]:
        L = chunk_length(p.shape[1], c.shape[-1])
        with full_precision(p.device):
            parts = normalize(p, Norms.of(*norms))[0] if norms else [p]
            ctx.factored = factors(parts, m, padding, L)
            *results, h, normalizer, summary = gated_forward(
                L, ctx.factored, parts, c, n, m, padding
            )
        ctx.eps, affine = norms[:1], norms[1:]
        ctx.save_for_backward(p, c, n, m, padding, h, normalizer, summary, *affine)
        ctx.set_materialize_grads(False)  # the last state is rarely part of a loss
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        p, c, n, m, padding, h, normalizer, summary, *affine = ctx.saved_tensors
        norms = (*ctx.eps, *affine)
        no_grad = (None,) * len(ctx.eps)
        with full_precision(p.device):
            if torch.is_grad_enabled():
                outputs = plain_gated(p, c, n, m, padding, *norms)
                of_p, of_c, of_n, of_m, *of_affine = gradients(
                    outputs, grads, (p, c, n, m, *affine)
                )
                return of_p, of_c, of_n, of_m, None, *no_grad, *of_affine
            L = chunk_length(p.shape[1], c.shape[-1])
            kept = m, padding, h, normalizer, summary
            if not norms:
                (of_p,), *of_state = gated_backward(L, ctx.factored, [p], *kept, *grads)
                return of_p, *of_state, None
            parts, means, inverses = normalize(p, Norms.of(*norms))
            of_parts, *of_state = gated_backward(L, ctx.factored, parts, *kept, *grads)
            of_norms = normalize_gradients(of_parts, p, means, inverses, Norms.of(*norms))
            return of_norms[0], *of_state, None, None, *of_norms[1]


def gated_forward(
    L: int,
    factored: bool,
    parts: Sequence[Tensor],
    c: Tensor,
    n: Tensor,
    m: Tensor,
    padding: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return the gated h, the last c, n and m, and what the backward pass needs."""
    (B, T), NH, V = parts[0].shape[:2], c.shape[1], c.shape[2]
    x = _prepare(parts, m, padding, L, factored)
    h, last_c, last_n, last_m, *kept = read_chunks(x.q, x.key, x.v_hat, c, n, x.weights)
    h = h.view(B, NH, -1, V)
    output = h.new_empty(T, B, NH * V).transpose(0, 1)
    torch.mul(torch.sigmoid(x.views.o), h[:, :, :T], out=_by_head(output, NH))
    return output, last_c, last_n, last_m, h, *(part.view(B, NH, -1) for part in kept)


class _Prepared(NamedTuple):
    """Pre-activations as the chunkwise passes take them."""

    views: Parts  # (B, NH, T, ...)
    log_i: Tensor  # (B, NH, T)
    log_f: Tensor
    q: Tensor  # (X, L, K)
    key: Tensor  # k ⊙ key_scale
    key_scale: Tensor  # (B, NH, T, 1), with the 1/√K
    v_hat: Tensor  # (X, L, V + 1), with a column of ones
    weights: Weights


def factors(parts: Sequence[Tensor], m: Tensor, padding: Tensor | None, L: int) -> bool:
    """Whether weights are to be taken as factors."""
    if not is_eager_on_cpu(m):
        return False
    views = _heads_first(parts, m.shape[1])
    return can_factor(*_log_gates(views.i, views.f, padding), L)


def _prepare(
    parts: Sequence[Tensor], m: Tensor, padding: Tensor | None, L: int, factored: bool
) -> _Prepared:
    (B, NH), T = m.shape, parts[0].shape[1]
    views = _heads_first(parts, NH)
    K = views.k.shape[-1]
    log_i, log_f = _log_gates(views.i, views.f, padding)
    w = weigh(*cut_gates(log_i, log_f, L), m.reshape(-1, 1), factored=factored)

    S = T + -T % L
    key_scale = (w.key_scale / math.sqrt(K)).expand(B * NH * S // L, L, 1)
    key_scale = _steps(key_scale.contiguous(), B, NH, T)
    q, key, v_hat = (_buffer(m, (B, NH, S, width), T) for width in (K, K, K + 1))
    q[:, :, :T] = views.q
    torch.mul(views.k, key_scale, out=key[:, :, :T])
    v_hat[:, :, :T, :K] = views.v
    v_hat[:, :, :T, K] = 1
    q, key, v_hat = (x.view(-1, L, x.shape[-1]) for x in (q, key, v_hat))
    return _Prepared(views, log_i, log_f, q, key, key_scale, v_hat, w)


def gated_backward(
    L: int,
    factored: bool,
    parts: Sequence[Tensor],
    m: Tensor,
    padding: Tensor | None,
    h: Tensor,
    normalizer: Tensor,
    summary: Tensor,
    grad_output: Tensor | None,
    *grad_state: Tensor | None,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return the gradients of the parts, and those of c, n and m."""
    x = _prepare(parts, m, padding, L, factored)
    (B, NH, T), V = x.log_i.shape, h.shape[-1]
    grad_parts = [torch.empty_like(part) for part in parts]
    views = _heads_first(grad_parts, NH)

    # the output gate: output = o h
    grad_read = _buffer(h, (*h.shape[:3], V + 1), T)
    if grad_output is None:
        grad_read.zero_()
        views.o.zero_()
    else:
        o, grad_h = torch.sigmoid(x.views.o), grad_read[:, :, :T, :V]
        torch.mul(_by_head(grad_output, NH), o, out=grad_h)
        product = grad_h * h[:, :, :T]
        grad_read[:, :, :T, V] = row_sums(product)
        views.o.copy_(product.addcmul_(product, o, value=-1))  # into a view it is ten times slower
        through_division(grad_read, normalizer, x.weights)

    grad_q, grad_key, grad_v, grad_i, grad_f, grad_c, grad_n, grad_m = gradients_of_chunks(
        x.q,
        x.key,
        x.v_hat,
        grad_read.view_as(x.v_hat),
        summary,
        x.log_i,
        x.log_f,
        m,
        StateGradients(*grad_state),
        x.weights,
    )
    views.q.copy_(_steps(grad_q, B, NH, T))
    torch.mul(_steps(grad_key, B, NH, T), x.key_scale, out=views.k)
    views.v.copy_(_steps(grad_v, B, NH, T))
    torch.mul(grad_i, cap_slope(cap(x.views.i)), out=views.i)
    torch.mul(grad_f, -torch.expm1(x.log_f), out=views.f)  # 1 - f, 0 at padding
    return grad_parts, grad_c, grad_n, grad_m


def plain_gated(
    p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, ...]:
    """Return the same by plain operations."""
    NH = m.shape[1]
    if norms:
        p = plain_norms(p, Norms.of(*norms))
    q, k, v, _, _, o = (x.transpose(1, 2) for x in activate(p, NH))
    views = _heads_first([p], NH)
    log_i, log_f = _log_gates(views.i, views.f, padding)
    L = chunk_length(p.shape[1], q.shape[-1])
    h, *last = chunkwise(q, k, v, log_i, log_f, c, n, m, L)
    return (o * h).transpose(1, 2).flatten(-2), *last


def _log_gates(i: Tensor, f: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the logarithms of both gates (B, NH, T), which leave the state as it is at padding."""
    log_i, log_f = cap(i), F.logsigmoid(f)
    if padding is None:
        return log_i, log_f
    padding = padding.mT
    return log_i.masked_fill(padding, -torch.inf), log_f.masked_fill(padding, 0.0)


def _heads_first(parts: Sequence[Tensor], NH: int) -> Parts:
    """View pre-activations, whole or in parts, by head: (B, NH, T, ...)."""
    return Parts(*(part.transpose(1, 2) for part in split(parts, NH)))


def _by_head(x: Tensor, NH: int) -> Tensor:
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
