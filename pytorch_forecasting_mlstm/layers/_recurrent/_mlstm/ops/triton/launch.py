"""From tensors to launches of the kernels.

Dimensions: B batch, NH heads, T time, K key, V value; G = B·NH sequences, N chunks of BT steps.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..types import Inputs, OutputGrads, mLSTMState
from .options import (
    DIVISION_STEPS,
    GATE_STEPS,
    STATE_ELEMENTS,
    chunk_options,
    count_blocks,
    is_sequential,
    row_side,
)

__all__ = [
    "OutputGate",
    "Read",
    "States",
    "backward",
    "forward",
    "gates_backward",
    "gates_forward",
    "load_kernels",
    "on_device",
]


class OutputGate(NamedTuple):
    """The output gate of a layer: its pre-activation, and the gated h; (B, NH, T, V) both."""

    o: Tensor
    output: Tensor


class Read(NamedTuple):
    """What the forward pass saves for the backward pass.

    Attributes
    ----------
    h : Tensor
        Read-out, (B, NH, T, V).
    normalizer : Tensor
        nᵀq of every step, divided by ``exp(scale)``, (B, NH, T).
    scale : Tensor
        Logarithm of the scale of each read, (B, NH, T).
    """

    h: Tensor
    normalizer: Tensor
    scale: Tensor


class States(NamedTuple):
    """The state that enters each chunk; and the scale of the last state, after theirs."""

    c: Tensor  # (G·N, V, K)
    n: Tensor  # (G·N, K)
    m: Tensor  # (G, N + 1)


def forward(
    inputs: Inputs, first: mLSTMState, L: int, key_scale: float, gate: OutputGate | None
) -> tuple[mLSTMState, Read, States | None]:
    """Return the last state, and what the backward pass needs.

    Gates and states are dense. ``key_scale`` is a factor of k. States are None if the backward pass
    computes them again.
    """
    call = _Call(inputs, L, key_scale)
    with call.device():
        if call.is_sequential:
            return call.sequences(first, gate)
        states, last, _ = call.states(first)
        return last, call.reads(states, gate), None


def backward(
    inputs: Inputs,
    first: mLSTMState,
    read: Read,
    states: States | None,
    grads: OutputGrads,
    L: int,
    key_scale: float,
    gate: OutputGate | None,
    outputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
) -> tuple[Tensor, Tensor, mLSTMState]:
    """Write the gradients of q, k, v and o; return those of log_i, log_f and the first state.

    The m of the last state is a constant. With an output gate, ``grads.h`` is the gradient of the
    gated h.
    """
    call = _Call(inputs, L, key_scale)
    with call.device():
        if states is not None:
            return call.sequence_gradients(states, first, read, grads, gate, outputs)
        states, _, sums_f = call.states(first)
        return call.gradients(states, sums_f, first, read, grads, gate, outputs)


def gates_forward(i: Tensor, f: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log_i and log_f (B, NH, T), for pre-activations (B, T, NH) and padding (B, T, 1)."""
    B, T, NH = i.shape
    log_i, log_f = (i.new_empty(B, NH, T) for _ in range(2))
    mask = log_i if padding is None else padding.contiguous()
    with on_device(i):
        load_kernels()["gates_fwd"][(B * NH * count_blocks(T, GATE_STEPS),)](
            *(i, f, mask, log_i, log_f, i.stride()[:2], T, NH, T),
            MASKED=padding is not None,
            BT=GATE_STEPS,
            DTYPE=_dtype(i),
        )
    return log_i, log_f


def gates_backward(
    f: Tensor, log_i: Tensor, grads: tuple[Tensor, Tensor], i_out: Tensor, f_out: Tensor
) -> None:
    """Write the gradients of both pre-activations (B, T, NH), from those of their logarithms."""
    B, T, NH = f.shape
    with on_device(f):
        load_kernels()["gates_bwd"][(B * NH * count_blocks(T, GATE_STEPS),)](
            *(f, log_i, *(grad.contiguous() for grad in grads), i_out, f_out),
            *(f.stride()[:2], i_out.stride()[:2], NH, T),
            BT=GATE_STEPS,
            DTYPE=_dtype(f),
        )


class _Call:
    """The launches of one call: they share tensors, sizes and options."""

    def __init__(self, inputs: Inputs, L: int, key_scale: float) -> None:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in inputs[:3])
        self.inputs = Inputs(q, k, v, *inputs[3:])
        self.strides = [x.stride()[:3] for x in (q, k, v)]
        (self.B, self.NH, self.T, self.K), self.V = q.shape, v.shape[3]
        self.G = self.B * self.NH
        self.options = chunk_options(v, self.K, L)
        self.N = count_blocks(self.T, self.options["BT"])
        self.like = inputs.log_i
        self.tiny = torch.finfo(self.like.dtype).tiny ** 0.5
        self.key_scale = key_scale
        self.dtype = _dtype(self.like)
        self.is_sequential = is_sequential(self.G, self.K, self.V)

    def device(self) -> AbstractContextManager[Any]:
        return on_device(self.like)

    def sequences(
        self, first: mLSTMState, gate: OutputGate | None
    ) -> tuple[mLSTMState, Read, States]:
        """Compute all chunks of a sequence in one program."""
        q, k, v, log_i, log_f = self.inputs
        states, last = self._empty_states(), mLSTMState(*(torch.empty_like(x) for x in first))
        read, gated = self._empty_read(gate)
        load_kernels()["sequences_fwd"][(self.G,)](
            *(q, k, v, gated.o, log_i, log_f, *first, *states, *last),
            *(read.h, gated.output, *read[1:]),
            *(*self.strides, gated.o.stride()[:3], gated.output.stride()[:3], self.NH, self.T),
            **self._constants(K_SCALE=self.key_scale, TINY=self.tiny, GATED=gate is not None),
        )
        return last, read, states

    def sequence_gradients(
        self,
        states: States,
        first: mLSTMState,
        read: Read,
        grads: OutputGrads,
        gate: OutputGate | None,
        outputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    ) -> tuple[Tensor, Tensor, mLSTMState]:
        """Write and return what ``backward`` does, in one program for each sequence."""
        q, k, v, log_i, log_f = self.inputs
        grad_h = self._dense_rows(grads.h)
        *grad_inputs, grad_o = outputs
        from_state = grads.c is not None or grads.n is not None
        last_grads = first[:2]  # not read
        if from_state:
            last_grads = (_dense_grad(grads.c, first.c), _dense_grad(grads.n, first.n))
        grad_i, grad_f = torch.empty_like(log_i), torch.empty_like(log_f)
        grad_first = mLSTMState(*(torch.empty_like(x) for x in first))
        o = read.h if gate is None else gate.o
        grad_o = read.h if grad_o is None else grad_o
        rows = (q, k, v, o, grad_h, *grad_inputs, grad_o)
        load_kernels()["sequences_bwd"][(self.G,)](
            *(q, k, v, o, log_i, log_f, *read, *states, grad_h, *last_grads),
            *(*grad_inputs, grad_o, grad_i, grad_f, *grad_first),
            *(*(x.stride()[:3] for x in rows), self.NH, self.T),
            **self._constants(
                K_SCALE=self.key_scale,
                TINY=self.tiny,
                GATED=gate is not None,
                FROM_STATE=from_state,
            ),
        )
        return grad_i, grad_f, grad_first

    def states(self, first: mLSTMState) -> tuple[States, mLSTMState, Tensor]:
        """Compute the states that enter the chunks, the last one, and the sums of forget gates."""
        states, last = self._empty_states(), mLSTMState(*(torch.empty_like(x) for x in first))
        scales, sums_f = self.like.new_empty(2, self.G, self.N)
        _, k, v, log_i, log_f = self.inputs
        load_kernels()["contributions_fwd"][self._contributions_grid()](
            *(k, v, log_i, log_f, *states[:2], scales, sums_f),
            *(*self.strides[1:], self.NH, self.T),
            **self._constants(K_SCALE=self.key_scale),
        )
        load_kernels()["states_fwd"][self._states_grid()](
            *(scales, sums_f, *first, *states, *last, self.N), **self._state_constants()
        )
        return states, last, sums_f

    def reads(self, states: States, gate: OutputGate | None) -> Read:
        """Read from the state that enters each chunk, and from the steps of the chunk."""
        q, k, v, log_i, log_f = self.inputs
        read, gated = self._empty_read(gate)
        load_kernels()["reads_fwd"][(self.G * self.N, count_blocks(self.V, self.options["BV"]))](
            *(q, k, v, gated.o, log_i, log_f, *states, read.h, gated.output, *read[1:]),
            *(*self.strides, gated.o.stride()[:3], gated.output.stride()[:3], self.NH, self.T),
            **self._constants(K_SCALE=self.key_scale, TINY=self.tiny, GATED=gate is not None),
        )
        return read

    def gradients(
        self,
        states: States,
        sums_f: Tensor,
        first: mLSTMState,
        read: Read,
        grads: OutputGrads,
        gate: OutputGate | None,
        outputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    ) -> tuple[Tensor, Tensor, mLSTMState]:
        """Write and return what ``backward`` does, for the states that enter the chunks."""
        q, k, v, log_i, log_f = self.inputs
        *grad_inputs, grad_o = outputs
        grad_h = self._dense_rows(grads.h)
        grad_read, grad_normalizer, products = self._through_division(read, grad_h, gate, grad_o)
        grad_c, grad_n = map(_dense_copy, grads[1:3], first[:2])
        grads_c, grads_n = torch.empty_like(states.c), torch.empty_like(states.n)
        load_kernels()["contributions_bwd"][self._contributions_grid()](
            *(q, log_i, log_f, read.scale, states.m, grad_read, grad_normalizer),
            *(grads_c, grads_n, self.strides[0], self.NH, self.T),
            **self._constants(),
        )
        load_kernels()["states_bwd"][self._states_grid()](
            *(sums_f, states.m, grad_c, grad_n, grads_c, grads_n, self.N),
            **self._state_constants(),
        )
        grad_i, grad_f = torch.empty_like(log_i), torch.empty_like(log_f)
        load_kernels()["chunks_bwd"][(self.G * self.N,)](
            *(q, k, v, log_i, log_f, read.scale, products, *states, grads_c, grads_n),
            *(grad_read, grad_normalizer, *grad_inputs, grad_i, grad_f),
            *(*self.strides, *(x.stride()[:3] for x in grad_inputs), self.NH, self.T),
            **self._constants(K_SCALE=self.key_scale),
        )
        # h does not depend on m, which scales the states.
        grad_m = (grad_c * first.c).sum((-2, -1)) + (grad_n * first.n).sum(-1)
        return grad_i, grad_f, mLSTMState(grad_c, grad_n, grad_m)

    def _through_division(
        self, read: Read, grad_h: Tensor, gate: OutputGate | None, grad_o: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of what was read and of the normalizer, and q · grad_q."""
        grad_read = self.like.new_empty(read.h.shape)
        grad_normalizer, products = (torch.empty_like(read.scale) for _ in range(2))
        o = grad_read if gate is None else gate.o
        grad_o = grad_read if grad_o is None else grad_o
        load_kernels()["division_bwd"][(self.G * count_blocks(self.T, DIVISION_STEPS),)](
            *(grad_h, o, *read, grad_o, grad_read, grad_normalizer, products),
            *(grad_h.stride()[:3], o.stride()[:3], grad_o.stride()[:3], self.NH, self.T),
            V=self.V,
            TINY=self.tiny,
            GATED=gate is not None,
            BT=DIVISION_STEPS,
            BV=row_side(self.V),
            DTYPE=self.dtype,
        )
        return grad_read, grad_normalizer, products

    def _empty_states(self) -> States:
        empty, G, N = self.like.new_empty, self.G, self.N
        return States(empty(G * N, self.V, self.K), empty(G * N, self.K), empty(G, N + 1))

    def _empty_read(self, gate: OutputGate | None) -> tuple[Read, OutputGate]:
        """Return tensors for what is read, and an output gate that may be h instead of one."""
        h = self.like.new_empty(self.inputs.v.shape)
        read = Read(h, *(self.like.new_empty(self.B, self.NH, self.T) for _ in range(2)))
        return read, OutputGate(h, h) if gate is None else gate

    def _dense_rows(self, grad_h: Tensor | None) -> Tensor:
        """Return the gradient of h with dense rows; one row of zeros stands for all."""
        if grad_h is None:
            return self.like.new_zeros(self.V).expand(self.inputs.v.shape)
        return grad_h if grad_h.stride(-1) == 1 else grad_h.contiguous()

    def _contributions_grid(self) -> tuple[int, int, int]:
        blocks = (
            count_blocks(self.K, self.options["BK"]),
            count_blocks(self.V, self.options["BV"]),
        )
        return (self.G * self.N, *blocks)

    def _states_grid(self) -> tuple[int, int]:
        return (self.G, count_blocks(self.K * self.V, STATE_ELEMENTS))

    def _state_constants(self) -> Mapping[str, Any]:
        constants = {"K": self.K, "V": self.V, "DTYPE": self.dtype}
        return {**constants, "BE": STATE_ELEMENTS, "BK": row_side(self.K)}

    def _constants(self, **options: Any) -> Mapping[str, Any]:
        return {"K": self.K, "V": self.V, "DTYPE": self.dtype, **self.options, **options}


@cache
def load_kernels() -> Mapping[str, Any]:
    """Import Triton, and return the kernels by name."""
    from .kernels import gates, grads, norms, reads, sequences, states

    modules = (gates, grads, norms, reads, sequences, states)
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def _dtype(x: Tensor) -> Any:
    """Return the dtype in which Triton computes with gates like this tensor."""
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


def on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Launch on the device of a tensor, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _dense_grad(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return a gradient with dense elements; zeros stand for none."""
    return like.new_zeros(like.shape) if grad is None else grad.contiguous()


def _dense_copy(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return a dense copy of a gradient, to write to; zeros stand for none."""
    if grad is None:
        return like.new_zeros(like.shape)
    return grad.clone(memory_format=torch.contiguous_format)
