"""The Triton backend, on CUDA devices, for heads of 8 to 256 units.

It computes the chunkwise form with exact decays. Products are rounded as torch.backends and the
dtype of v say; sums, gates and states are float32. With many sequences of small heads, one program
computes all chunks of a sequence, and the states that enter them are saved. Otherwise the chunks
are computed at the same time, and the backward pass computes these states again.

Dimensions: B batch, T time, NH heads, d head size (K and V).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from ...preactivations import Projections, split_heads
from ..scale_gradients import scale_gradients
from ..types import Inputs, OutputGrads, mLSTMState
from .device import is_new_enough
from .launch import OutputGate, Read, States, backward, forward, gates_backward, gates_forward
from .layer_norm import LAYER_NORM
from .options import count_chunks, is_sequential

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

NAME = "triton"
SAVES_H = True
READS_16_BITS = True

#: Smaller heads would be padded to blocks of 16; larger ones have not been tested.
_HEAD_SIZES = range(8, 257)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

#: A step is too short for a kernel of this kind.
step = None

#: The projection is that of torch, which is fast on a GPU.
cell = normalizing = None

layer_norm = LAYER_NORM


def supports_chunkwise(inputs: Inputs, chunk_size: int | None) -> bool:
    """Whether the kernels support these sequences: q, k and v may have 16 bits."""
    q, k, v, log_i, log_f = inputs
    return (
        _is_on_device(q)
        and q.dtype in _DTYPES
        and q.dtype == k.dtype == v.dtype
        and log_i.dtype != torch.float64
        and log_f.dtype != torch.float64
        and q.shape[-1] in _HEAD_SIZES
        and v.shape[-1] in _HEAD_SIZES
    )


def supports_gated(p: Tensor, head_dim: int) -> bool:
    """Whether the kernels support pre-activations like this tensor."""
    return _is_on_device(p) and p.dtype == torch.float32 and head_dim in _HEAD_SIZES


def _is_on_device(x: Tensor) -> bool:
    """Whether a tensor is one on a device on which the kernels run."""
    return type(x) in (Tensor, Parameter) and x.is_cuda and _is_new_enough(x.get_device())


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_new_enough(number: int) -> bool:
    """Whether the kernels run on a device; ``torch.compile`` calls this while it traces."""
    return is_new_enough(number)


def plan_chunkwise(inputs: Inputs, L: int) -> bool:
    """Return False: there is nothing to plan."""
    return False


def plan_gated(parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int) -> bool:
    """Return False: there is nothing to plan."""
    return False


def chunkwise_saved_shapes(state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
    """Return the shapes of what ``chunkwise_fwd`` saves.

    These are the normalizer of each read, its scale, and the states that enter the chunks, if they
    are not computed again.
    """
    (B, NH, V, K), saved = state.c.shape, [(*state.m.shape, T)] * 2
    if not is_sequential(B * NH, K, V):
        return saved
    N = count_chunks(B * NH, T, K, V, L)
    return [*saved, (B * NH * N, V, K), (B * NH * N, K), (B * NH, N + 1)]


def gated_saved_shapes(state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
    """Return the shapes of what ``gated_fwd`` saves: the gates, h, what chunkwise_fwd saves."""
    gate, V = (*state.m.shape, T), state.c.shape[2]
    return [gate, gate, (*gate, V), *chunkwise_saved_shapes(state, T, L)]


def gated_tile_width(projected: int, NH: int, L: int) -> int:
    """Return 0: all samples are computed at once."""
    return 0


op_tile_width = gated_tile_width


def chunkwise_fwd(
    inputs: Inputs, state: mLSTMState, L: int, plan: bool
) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
    """Return h, the last state, and what the backward pass needs beside h."""
    last, read, states = forward(_dense_gates(inputs), _dense(state), L, 1.0, None)
    return read.h, last, (*read[1:], *(states or ()))


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
    """Return the gradients of the inputs and of the state; ``saved`` begins with h."""
    inputs = _dense_gates(inputs)
    grad_q, grad_k, grad_v = (x.new_empty(x.shape) for x in inputs[:3])
    outputs = (grad_q, grad_k, grad_v, None)
    grad_gates, grad_state = _backward(
        inputs, state, last_c, last_n, saved, grads, L, 1.0, None, outputs
    )
    return grad_q, grad_k, grad_v, *grad_gates, *grad_state


def gated_fwd(
    parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int, plan: bool
) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
    """Return the gated h (B, T, H), in memory time first, the last state, and what is saved."""
    (B, T), (_, NH, d, _) = parts[0].shape[:2], state.c.shape
    x = _split(parts, NH)
    log_i, log_f = gates_forward(x.i, x.f, padding)
    output = state.c.new_empty(T, B, NH * d).transpose(0, 1)
    gate = OutputGate(x.o.transpose(1, 2), _heads_view(output, NH))
    inputs = _heads_first(x, log_i, log_f)
    last, read, states = forward(inputs, _dense(state), L, 1 / math.sqrt(d), gate)
    return output, last, (log_i, log_f, *read, *(states or ()))


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
) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return the gradients of the parts, and those of c, n and m."""
    NH, d = state.c.shape[1:3]
    log_i, log_f, *saved = saved
    x = _split(parts, NH)
    grad_parts = [part.new_empty(part.shape) for part in parts]
    to = split_heads(grad_parts, NH)
    grad_h = None if grads.h is None else _heads_view(grads.h, NH)
    # The gated h itself is not needed.
    gate = OutputGate(x.o.transpose(1, 2), x.o)
    outputs = (
        to.q.transpose(1, 2),
        to.k.transpose(1, 2),
        to.v.transpose(1, 2),
        to.o.transpose(1, 2),
    )
    grad_gates, grad_state = _backward(
        _heads_first(x, log_i, log_f),
        state,
        last_c,
        last_n,
        saved,
        grads._replace(h=grad_h),
        L,
        1 / math.sqrt(d),
        gate,
        outputs,
    )
    gates_backward(x.f, log_i, grad_gates, to.i, to.f)
    return grad_parts, grad_state


def _backward(
    inputs: Inputs,
    state: mLSTMState,
    last_c: Tensor,
    last_n: Tensor,
    saved: Sequence[Tensor],
    grads: OutputGrads,
    L: int,
    key_scale: float,
    gate: OutputGate | None,
    outputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Run the kernels; return the gradients of log_i and log_f, and those of the first state.

    ``saved`` is h, and what ``chunkwise_fwd`` saves.
    """
    first, read = _dense(state), Read(*saved[:3])
    states = States(*saved[3:]) if len(saved) > 3 else None
    grad_i, grad_f, (grad_c, grad_n, grad_m) = backward(
        inputs, first, read, states, grads, L, key_scale, gate, outputs
    )
    through_scale = scale_gradients(inputs.log_i, inputs.log_f, first.m, last_c, last_n, *grads[1:])
    if through_scale is not None:
        scale_i, scale_f, scale_m = through_scale
        grad_i, grad_f, grad_m = grad_i + scale_i, grad_f + scale_f, grad_m + scale_m
    return (grad_i, grad_f), (grad_c, grad_n, grad_m)


def _split(parts: Sequence[Tensor], NH: int) -> Projections:
    """View pre-activations by part and head, with dense rows."""
    return split_heads([x if x.stride(-1) == 1 else x.contiguous() for x in parts], NH)


def _heads_first(x: Projections, log_i: Tensor, log_f: Tensor) -> Inputs:
    q, k, v = (part.transpose(1, 2) for part in x[:3])
    return Inputs(q, k, v, log_i, log_f)


def _heads_view(x: Tensor, NH: int) -> Tensor:
    """View (B, T, H) as (B, NH, T, d)."""
    return x.unflatten(-1, (NH, -1)).transpose(1, 2)


def _dense_gates(inputs: Inputs) -> Inputs:
    return inputs._replace(log_i=inputs.log_i.contiguous(), log_f=inputs.log_f.contiguous())


def _dense(state: mLSTMState) -> mLSTMState:
    return mLSTMState(*(x.contiguous() for x in state))
