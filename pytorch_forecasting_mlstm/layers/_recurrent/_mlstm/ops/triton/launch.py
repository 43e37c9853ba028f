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
from .options import DIVISION_STEPS, GATE_STEPS, chunk_options, count_blocks, row_side

__all__ = ["OutputGate", "Read", "backward", "forward", "gates_backward", "gates_forward"]


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


def forward(
    inputs: Inputs, first: mLSTMState, L: int, key_scale: float, gate: OutputGate | None
) -> tuple[mLSTMState, Read]:
    """Return the last state, and what the backward pass needs.

    Gates and states are dense. ``key_scale`` is a factor of k.
    """
    call = _Call(inputs, L, key_scale)
    with call.device():
        states, last = call.states(first)
        read = call.reads(states, gate)
    return last, read


def backward(
    inputs: Inputs,
    first: mLSTMState,
    read: Read,
    grads: OutputGrads,
    L: int,
    key_scale: float,
    gate: OutputGate | None,
    outputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Write the gradients of q, k, v and o; return those of log_i, log_f, and the first c and n.

    The m of the last state is a constant. With an output gate, ``grads.h`` is the gradient of the
    gated h.
    """
    call = _Call(inputs, L, key_scale)
    with call.device():
        states, _ = call.states(first)
        return call.gradients(states, first, read, grads, gate, outputs)


def gates_forward(i: Tensor, f: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log_i and log_f (B, NH, T), for pre-activations (B, T, NH) and padding (B, T, 1)."""
    B, T, NH = i.shape
    log_i, log_f = (i.new_empty(B, NH, T) for _ in range(2))
    mask = log_i if padding is None else padding.contiguous()
    with _on_device(i):
        _kernels()["gates_fwd"][(B * NH * count_blocks(T, GATE_STEPS),)](
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
    with _on_device(f):
        _kernels()["gates_bwd"][(B * NH * count_blocks(T, GATE_STEPS),)](
            *(f, log_i, *(grad.contiguous() for grad in grads), i_out, f_out),
            *(f.stride()[:2], i_out.stride()[:2], NH, T),
            BT=GATE_STEPS,
            DTYPE=_dtype(f),
        )


class _States(NamedTuple):
    """The state that enters each chunk; and the scale of the last state, after theirs."""

    c: Tensor  # (G, N, V, K)
    n: Tensor  # (G, N, K)
    m: Tensor  # (G, N + 1)


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

    def device(self) -> AbstractContextManager[Any]:
        return _on_device(self.like)

    def states(self, first: mLSTMState) -> tuple[_States, mLSTMState]:
        """Compute the state that enters each chunk, and the last one."""
        empty, G, N, K, V = self.like.new_empty, self.G, self.N, self.K, self.V
        states = _States(empty(G, N, V, K), empty(G, N, K), empty(G, N + 1))
        last = mLSTMState(*(torch.empty_like(x) for x in first))
        _, k, v, log_i, log_f = self.inputs
        _kernels()["states_fwd"][self._state_grid()](
            *(k, v, log_i, log_f, *first, *states, *last, *self.strides[1:], self.NH, self.T),
            **self._constants(K_SCALE=self.key_scale),
        )
        return states, last

    def reads(self, states: _States, gate: OutputGate | None) -> Read:
        """Read from the state that enters each chunk, and from the steps of the chunk."""
        q, k, v, log_i, log_f = self.inputs
        B, NH, T, V = v.shape
        h = self.like.new_empty(v.shape)
        read = Read(h, *(self.like.new_empty(B, NH, T) for _ in range(2)))
        gated = OutputGate(h, h) if gate is None else gate
        _kernels()["reads_fwd"][(self.G * self.N, count_blocks(V, self.options["BV"]))](
            *(q, k, v, gated.o, log_i, log_f, *states, h, gated.output, *read[1:]),
            *(*self.strides, gated.o.stride()[:3], gated.output.stride()[:3], NH, T),
            **self._constants(K_SCALE=self.key_scale, TINY=self.tiny, GATED=gate is not None),
        )
        return read

    def gradients(
        self,
        states: _States,
        first: mLSTMState,
        read: Read,
        grads: OutputGrads,
        gate: OutputGate | None,
        outputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Write and return what ``backward`` does, for the states that enter the chunks."""
        q, k, v, log_i, log_f = self.inputs
        *grad_inputs, grad_o = outputs
        # One row of zeros, as dense as the kernel needs it, stands for all of them.
        grad_h = self.like.new_zeros(self.V).expand(v.shape) if grads.h is None else grads.h
        grad_read, grad_normalizer, products = self._through_division(read, grad_h, gate, grad_o)
        grad_c, grad_n = (_dense_grad(x, y) for x, y in zip(grads[1:3], first[:2], strict=True))
        grads_c, grads_n = torch.empty_like(states.c), torch.empty_like(states.n)
        _kernels()["states_bwd"][self._state_grid()](
            *(q, log_i, log_f, read.scale, states.m, grad_read, grad_normalizer),
            *(grad_c, grad_n, grads_c, grads_n, self.strides[0], self.NH, self.T),
            **self._constants(),
        )
        grad_i, grad_f = torch.empty_like(log_i), torch.empty_like(log_f)
        _kernels()["chunks_bwd"][(self.G * self.N,)](
            *(q, k, v, log_i, log_f, read.scale, products, *states, grads_c, grads_n),
            *(grad_read, grad_normalizer, *grad_inputs, grad_i, grad_f),
            *(*self.strides, *(x.stride()[:3] for x in grad_inputs), self.NH, self.T),
            **self._constants(K_SCALE=self.key_scale),
        )
        return grad_i, grad_f, grad_c, grad_n

    def _through_division(
        self, read: Read, grad_h: Tensor, gate: OutputGate | None, grad_o: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of what was read and of the normalizer, and q · grad_q."""
        grad_h = grad_h if grad_h.stride(-1) == 1 else grad_h.contiguous()
        grad_read = self.like.new_empty(read.h.shape)
        grad_normalizer, products = (torch.empty_like(read.scale) for _ in range(2))
        o = grad_read if gate is None else gate.o
        grad_o = grad_read if grad_o is None else grad_o
        _kernels()["division_bwd"][(self.G * count_blocks(self.T, DIVISION_STEPS),)](
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

    def _state_grid(self) -> tuple[int, int, int]:
        return (
            self.G,
            count_blocks(self.K, self.options["BK"]),
            count_blocks(self.V, self.options["BV"]),
        )

    def _constants(self, **options: Any) -> Mapping[str, Any]:
        return {"K": self.K, "V": self.V, "DTYPE": self.dtype, **self.options, **options}


@cache
def _kernels() -> Mapping[str, Any]:
    """Import Triton, and return the kernels by name."""
    from .kernels import gates, grads, reads, states

    modules = (gates, grads, reads, states)
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def _dtype(x: Tensor) -> Any:
    """Return the dtype in which Triton computes with gates like this tensor."""
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Launch on the device of a tensor, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _dense_grad(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return a dense copy of a gradient, or dense zeros."""
    if grad is None:
        return like.new_zeros(like.shape)
    return grad.clone(memory_format=torch.contiguous_format)
