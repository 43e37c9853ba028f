"""The PyTorch backend: it supports everything, on every device.

A sequence is computed span by span, and its samples in tiles whose temporaries fit a cache.

Dimensions: B batch, NH heads, T time, L steps of a chunk, K key, V value.
"""

from functools import partial
from typing import Any

from torch import Tensor

from ..chunks import Span
from ..execution import is_eager_on_cpu
from ..scale_gradients import scale_gradients
from ..step import step
from ..tiling import SegmentWriter, batch_tile_size, map_batch_tiles
from ..types import Inputs, OutputGrads, mLSTMState
from .causality import propagate_nans_causally
from .decay import is_factorable
from .gated import gated_bwd, gated_fwd, plan_gated
from .passes import span_bwd, span_fwd
from .scan import Saved, saved_shapes, scan_spans_bwd, scan_spans_fwd

__all__ = [
    "NAME",
    "READS_16_BITS",
    "SAVES_H",
    "cell",
    "chunkwise_bwd",
    "chunkwise_fwd",
    "chunkwise_saved_shapes",
    "gated_bwd",
    "gated_fwd",
    "gated_saved_shapes",
    "gated_tile_width",
    "layer_norm",
    "normalizing",
    "op_tile_width",
    "plan_chunkwise",
    "plan_gated",
    "step",
    "supports_chunkwise",
    "supports_gated",
]

NAME = "pytorch"
SAVES_H = True
READS_16_BITS = False

#: Projection and layer norms are those of torch.
cell = normalizing = layer_norm = None


def supports_chunkwise(inputs: Inputs, chunk_size: int | None) -> bool:
    """Return True: this backend computes whatever no other one supports."""
    return True


def supports_gated(p: Tensor, head_dim: int) -> bool:
    """Return True."""
    return True


def plan_chunkwise(inputs: Inputs, L: int) -> bool:
    """Whether both passes use factored decays."""
    return is_eager_on_cpu(inputs.q) and is_factorable(inputs.log_i, inputs.log_f, L)


def chunkwise_saved_shapes(state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
    """Return the shapes of what ``chunkwise_fwd`` saves."""
    return list(saved_shapes(state.c, T, L))


def gated_saved_shapes(state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
    """Return the shapes of what ``gated_fwd`` saves: h in whole chunks comes first."""
    normalizer, states, scales = saved_shapes(state.c, T, L)
    return [(*normalizer, state.c.shape[2]), normalizer, states, scales]


def gated_tile_width(projected: int, NH: int, L: int) -> int:
    """Return the elements per step of the largest temporary: projection, or two L×L blocks."""
    return max(projected, 2 * NH * L)


op_tile_width = gated_tile_width


def chunkwise_fwd(
    inputs: Inputs, state: mLSTMState, L: int, factored: bool
) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
    """Return h, the last state, and what the backward pass needs beside h."""
    function = partial(_tile_fwd, L, factored)
    h, c, n, m, *saved = map_batch_tiles(function, (*inputs, *state), _tile_size(inputs.q, L))
    return h, mLSTMState(c, n, m), tuple(saved)


def chunkwise_bwd(
    inputs: Inputs,
    state: mLSTMState,
    last_c: Tensor,
    last_n: Tensor,
    saved: tuple[Tensor, ...],
    grads: OutputGrads,
    L: int,
    factored: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients of the inputs and of the state; ``saved`` begins with h."""
    function = partial(_tile_bwd, L, factored)
    tensors = (*inputs, *state, last_c, last_n, *saved, *grads)
    return map_batch_tiles(function, tensors, _tile_size(inputs.q, L))


def _tile_size(q: Tensor, L: int) -> int:
    B, NH, T, _ = q.shape
    return batch_tile_size(q, B, 2 * NH * T * L)  # an L×L product is read and written


def _tile_fwd(L: int, factored: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
    inputs, state = Inputs(*tensors[:5]), mLSTMState(*tensors[5:])
    T = inputs.q.shape[2]
    read = partial(span_fwd, L, factored)

    def run(span: Span, state: mLSTMState) -> Any:
        h, last, *saved = propagate_nans_causally(read, inputs.at(span.steps), state)
        return (h,), last, *saved

    h = SegmentWriter(2, T)
    last, saved = scan_spans_fwd(run, state, T, L, [h])
    return h.result(), *last, *saved


def _tile_bwd(
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
    last_c: Tensor,
    last_n: Tensor,
    h: Tensor,
    normalizer: Tensor,
    states: Tensor,
    scales: Tensor,
    grad_h: Tensor | None,
    *grad_state: Tensor | None,
) -> tuple[Tensor, ...]:
    inputs, T = Inputs(q, k, v, log_i, log_f), q.shape[2]
    writers = [SegmentWriter(2, T) for _ in inputs]

    def run(
        span: Span, saved: Saved, grad_c: Tensor | None, grad_n: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps = span.steps
        span_grad_h = None if grad_h is None else grad_h[:, :, steps]
        *grads, grad_c, grad_n, grad_m = span_bwd(
            L, factored, inputs.at(steps), h[:, :, steps], saved, span_grad_h, grad_c, grad_n
        )
        for writer, grad in zip(writers, grads, strict=True):
            writer.put(steps.start, grad)
        return grad_c, grad_n, grad_m

    saved = Saved(normalizer, states, scales)
    grad_c, grad_n, grad_m = scan_spans_bwd(run, saved, T, L, *grad_state[:2])
    grad_q, grad_k, grad_v, grad_i, grad_f = (writer.result() for writer in writers)
    through_scale = scale_gradients(log_i, log_f, m, last_c, last_n, *grad_state)
    if through_scale is not None:
        scale_i, scale_f, scale_m = through_scale
        grad_i, grad_f, grad_m = grad_i + scale_i, grad_f + scale_f, grad_m + scale_m
    return grad_q, grad_k, grad_v, grad_i, grad_f, grad_c, grad_n, grad_m
