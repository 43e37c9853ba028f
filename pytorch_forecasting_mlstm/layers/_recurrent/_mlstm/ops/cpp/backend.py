"""The C++ backend, on the CPU, for heads of a few sizes; its single step is in step.py.

Its gated recurrence works on the true memory: the first and the last c and n are at a scale of 1,
and m is 0. The forward pass saves nothing but its inputs and the last state.

Dimensions: B batch, T time, NH heads, d head size (K and V).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...preactivations import Projections, split_heads
from ..execution import is_eager_on_cpu
from ..layer_norm import LayerNormParams
from ..protocol import Normalizing
from ..scale_gradients import scale_gradients
from ..types import Inputs, OutputGrads, mLSTMState
from .bindings import (
    HEAD_SIZES,
    NormPointers,
    RecurrenceGrads,
    RecurrenceInputs,
    kernel_backward,
    kernel_forward,
    stabilize,
)
from .cell import cell
from .dense import dense, dense_copy, dense_grad, dense_rows
from .preactivation_bindings import (
    RowNorms,
    join_norms,
    open_gates,
    preactivations_backward,
)
from .step import step

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

NAME = "cpp"
SAVES_H = False
READS_16_BITS = False


def supports_chunkwise(inputs: Inputs, chunk_size: int | None) -> bool:
    """Whether the kernel supports these sequences; it has no chunks and cannot be traced."""
    q, V = inputs.q, inputs.v.shape[-1]
    return (
        chunk_size is None
        and is_eager_on_cpu(q)
        and supports_gated(q, q.shape[-1])
        and V == q.shape[-1]
    )


def supports_gated(p: Tensor, head_dim: int) -> bool:
    """Whether the kernel supports pre-activations like this tensor."""
    return (
        p.device.type == "cpu"
        and p.dtype in (torch.float32, torch.float64)
        and head_dim in HEAD_SIZES
        and type(p) is Tensor
    )


def plan_chunkwise(inputs: Inputs, L: int) -> bool:
    """Return False: there is nothing to plan."""
    return False


def plan_gated(parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int) -> bool:
    """Return False: there is nothing to plan."""
    return False


def chunkwise_saved_shapes(state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
    """Return no shapes: ``chunkwise_fwd`` saves nothing."""
    return []


gated_saved_shapes = chunkwise_saved_shapes


def gated_tile_width(projected: int, NH: int, L: int) -> int:
    """Return half the width of the projection: larger tiles, by measurement."""
    return projected // 2


def op_tile_width(projected: int, NH: int, L: int) -> int:
    """Return 0: the op has no large temporaries and computes all samples at once."""
    return 0


def chunkwise_fwd(
    inputs: Inputs, state: mLSTMState, L: int, plan: bool
) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
    """Return h, the last state and nothing to save, for gates of any size."""
    *gates, last_m = stabilize(inputs.log_i, inputs.log_f, state.m)
    last = mLSTMState(dense_copy(state.c), dense_copy(state.n), last_m)
    h = inputs.v.new_empty(inputs.v.shape)
    kernel_forward(_ungated_inputs(inputs, *gates), _rows(h)[:, :, 0], *_fold_heads(last.c, last.n))
    return h, last, ()


def chunkwise_bwd(
    inputs: Inputs,
    state: mLSTMState,
    last_c: Tensor,
    last_n: Tensor,
    saved: Sequence[Tensor],
    grads: OutputGrads,
    L: int,
    plan: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients of the inputs and of the state."""
    v, log_i, log_f = inputs[2:]
    c, n, m = state
    i, f, floor, _ = stabilize(log_i, log_f, m)
    grad_h = dense_rows(v.new_zeros(v.shape) if grads.h is None else grads.h)
    grad_c, grad_n = dense_grad(grads.c, c), dense_grad(grads.n, n)
    grad_q, grad_k, grad_v = (v.new_empty(v.shape) for _ in range(3))
    grad_i, grad_f = torch.empty_like(i), torch.empty_like(f)
    unused = _rows(grad_q)  # without an output gate, its gradient is not written
    kernel_backward(
        _ungated_inputs(inputs, i, f, floor),
        *_fold_heads(dense(c), dense(n)),
        RecurrenceGrads(_rows(grad_h)[:, :, 0], *_fold_heads(grad_c, grad_n)),
        Projections(
            _rows(grad_q), _rows(grad_k), _rows(grad_v), _gate(grad_i), _gate(grad_f), unused
        ),
    )
    # h does not depend on m, which scales the states.
    grad_m = (grad_c * c).sum((-2, -1)) + (grad_n * n).sum(-1)
    through_scale = scale_gradients(log_i, log_f, m, last_c, last_n, *grads[1:])
    if through_scale is not None:
        scale_i, scale_f, scale_m = through_scale
        grad_i, grad_f, grad_m = grad_i + scale_i, grad_f + scale_f, grad_m + scale_m
    return grad_q, grad_k, grad_v, grad_i, grad_f, grad_c, grad_n, grad_m


def gated_fwd(
    parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int, plan: bool
) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
    """Return the gated h (B, T, H), in memory time first, the last state and nothing to save."""
    h, last = _normalizing_fwd(_joined(parts), None, state, padding)
    return h, last, ()


def gated_bwd(
    parts: Sequence[Tensor],
    state: mLSTMState,
    padding: Tensor | None,
    last_c: Tensor,
    last_n: Tensor,
    saved: Sequence[Tensor],
    grads: OutputGrads,
    L: int,
    plan: bool,
) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
    """Return the gradients of the parts, and those of c and n; m is a constant."""
    grad_p, _, grad_state = _normalizing_bwd(_joined(parts), None, state, padding, grads)
    return list(grad_p.split([part.shape[-1] for part in parts], dim=-1)), grad_state


def _normalizing_fwd(
    p: Tensor, norms: LayerNormParams | None, state: mLSTMState, padding: Tensor | None
) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H), in memory time first, and the last state."""
    (B, T), (_, NH, d, _) = p.shape[:2], state.c.shape
    h = state.c.new_empty(T, B, NH * d).transpose(0, 1)
    c, n = dense_copy(state.c), dense_copy(state.n)
    x = _GatedInputs.of(p, norms, padding, NH)
    kernel_forward(x.recurrence, h, c, n)
    return h, mLSTMState(c, n, state.m)


def _normalizing_bwd(
    p: Tensor,
    norms: LayerNormParams | None,
    state: mLSTMState,
    padding: Tensor | None,
    grads: OutputGrads,
) -> tuple[Tensor, list[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
    """Return the gradients of p, of all weights and biases, and of c and n; m is a constant."""
    c, n, _ = state
    (B, T), (_, NH, d, _) = p.shape[:2], c.shape
    grad_p = p.new_empty(p.shape)
    recurrence_grads = RecurrenceGrads(
        dense_rows(c.new_zeros(B, T, NH * d) if grads.h is None else grads.h),
        dense_grad(grads.c, c),
        dense_grad(grads.n, n),
    )
    x = _GatedInputs.of(p, norms, padding, NH)
    outputs = split_heads([grad_p], NH)
    kernel_backward(x.recurrence, dense(c), dense(n), recurrence_grads, outputs)
    joined = preactivations_backward(grad_p, x.p, x.norms, x.padding, NH)
    grad_norms = [] if norms is None else [part for grad in joined for part in norms.split(grad)]
    return grad_p, grad_norms, (recurrence_grads.c, recurrence_grads.n, None)


normalizing = Normalizing(_normalizing_fwd, _normalizing_bwd)
layer_norm = None


class _GatedInputs(NamedTuple):
    """What both passes read, with dense rows; the tensors must outlive the calls of the kernel."""

    p: Tensor
    norms: RowNorms | None
    padding: Tensor | None
    recurrence: RecurrenceInputs

    @classmethod
    def of(
        cls, p: Tensor, norms: LayerNormParams | None, padding: Tensor | None, NH: int
    ) -> "_GatedInputs":
        p, padding = dense_rows(p), None if padding is None else padding.contiguous()
        row_norms = None if norms is None else join_norms(p, norms)
        i, f = open_gates(p, row_norms, padding, NH)
        # The soft cap bounds the input gate, and so the true memory: it needs no stabilizer.
        floor = i.new_ones(NH).expand_as(i)
        x, pointers = split_heads([p], NH), row_norms.pointers() if row_norms else NormPointers()
        key_scale = 1 / math.sqrt(x.q.shape[-1])
        recurrence = RecurrenceInputs(x.q, x.k, x.v, x.o, i, f, floor, key_scale, pointers)
        return cls(p, row_norms, padding, recurrence)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


# Without gates, the kernel treats every head as a sample with one head.


def _ungated_inputs(inputs: Inputs, i: Tensor, f: Tensor, floor: Tensor) -> RecurrenceInputs:
    q, k, v = (_rows(dense_rows(x)) for x in inputs[:3])
    return RecurrenceInputs(q, k, v, None, _gate(i), _gate(f), _gate(floor), 1.0)


def _rows(x: Tensor) -> Tensor:
    """View (B, NH, T, d) as (B NH, T, 1, d), or copy it if that is impossible."""
    return x.flatten(0, 1)[:, :, None]


def _gate(x: Tensor) -> Tensor:
    """View dense (B, NH, T) as (B NH, T, 1)."""
    return x.view(-1, x.shape[-1], 1)


def _fold_heads(c: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """View dense (B, NH, d, d) and (B, NH, d) as (B NH, 1, ...)."""
    return c.view(-1, 1, *c.shape[2:]), n.view(-1, 1, n.shape[-1])
