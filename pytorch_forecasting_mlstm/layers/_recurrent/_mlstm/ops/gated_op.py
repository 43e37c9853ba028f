"""The layer's recurrence as one operator, which ``torch.compile`` takes as a whole.

As :mod:`_operator`, from pre-activations to the gated read-out. The compiled layer computes what
the layer does, with the same blocks and factors.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .autocast import autocast_disabled
from .chunkwise.gated import (
    gated_bwd,
    gated_fwd,
    use_factored_decay,
)
from .chunkwise.spans import saved_shapes
from .chunkwise.tiling import batch_tile_size, map_batch_tiles
from .overflow import raise_on_overflow

__all__ = ["gated_operator"]


@torch.library.custom_op("pytorch_forecasting_mlstm::gated_chunkwise", mutates_args=())
def gated_operator(
    p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, L: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what ``gated_fwd`` does."""
    p = p.contiguous()
    with autocast_disabled(p.device):
        function = partial(_forward, L, use_factored_decay([p], m, padding, L))
        results = map_batch_tiles(function, (p, c, n, m, padding), _samples(p, m.shape[1], L))
    given = {"the projected x": p, "state c": c, "state n": n}
    raise_on_overflow("mLSTMLayer", results[:3], lambda: given)
    output, *others = results
    c, n, m, h, normalizer, states, scales = (x.contiguous() for x in others)
    return output, c, n, m, h, normalizer, states, scales


@gated_operator.register_fake
def _(
    p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, L: int
) -> tuple[Tensor, ...]:
    (B, T), (_, NH, V, _) = p.shape[:2], c.shape
    output = p.new_empty(T, B, NH * V).transpose(0, 1)
    normalizer, states, scales = saved_shapes(c, T, L)
    saved = (*normalizer, V), normalizer, states, scales
    return output, *(p.new_empty(shape) for shape in (c.shape, n.shape, m.shape, *saved))


@torch.library.custom_op("pytorch_forecasting_mlstm::gated_chunkwise_backward", mutates_args=())
def _backward_operator(
    p: Tensor,
    m: Tensor,
    padding: Tensor | None,
    h: Tensor,
    last_c: Tensor,
    last_n: Tensor,
    normalizer: Tensor,
    states: Tensor,
    scales: Tensor,
    grad_output: Tensor | None,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
    grad_m: Tensor | None,
    L: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p = p.contiguous()
    with autocast_disabled(p.device):
        function = partial(_backward_of_block, L, use_factored_decay([p], m, padding, L))
        results = (h, last_c, last_n, normalizer, states, scales)
        inputs = (p, m, padding, *results, grad_output, grad_c, grad_n, grad_m)
        found = map_batch_tiles(function, inputs, _samples(p, m.shape[1], L))
    of_p, of_c, of_n, of_m = (x.contiguous() for x in found)
    return of_p, of_c, of_n, of_m


@_backward_operator.register_fake
def _(p: Tensor, m: Tensor, padding: Tensor | None, h: Tensor, *others: Any) -> tuple[Tensor, ...]:
    (B, NH), d = m.shape, h.shape[-1]
    shapes = (p.shape, (B, NH, d, d), (B, NH, d), (B, NH))
    return tuple(p.new_empty(shape) for shape in shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    p, _, _, m, padding, ctx.L = inputs
    _, c, n, _, h, *saved = output
    ctx.save_for_backward(p, m, padding, h, c, n, *saved)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward_operator(*ctx.saved_tensors, *grads[:4], ctx.L), None, None


gated_operator.register_autograd(_backward, setup_context=_setup_context)


def _forward(L: int, factored: bool, p: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return gated_fwd(L, factored, [p], *others)


def _backward_of_block(L: int, factored: bool, p: Tensor, *others: Any) -> tuple[Tensor, ...]:
    (of_p,), *of_state = gated_bwd(L, factored, [p], *others)
    return of_p, *of_state


def _samples(p: Tensor, NH: int, L: int) -> int:
    B, T, width = p.shape
    return batch_tile_size(p, B, T * max(width, 2 * NH * L))
