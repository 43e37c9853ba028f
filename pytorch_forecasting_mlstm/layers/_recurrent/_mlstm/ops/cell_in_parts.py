"""A whole cell as a product, followed by the recurrence: where the kernel for both takes longer.

This is what a layer computes in eager mode for few samples, in the same tiles. The pre-activations
of a tile are computed again in the backward pass.

Dimensions: B batch, T time, W = 4 H + 2 NH.
"""

import torch
from torch import Tensor

from ..onednn_linear import linear, linear_backward
from .chunks import default_chunk_size
from .protocol import Backend, CellGrads, CellInputs, Normalizing
from .tiling import batch_tile_size, map_batch_tiles
from .types import OutputGrads, mLSTMState

__all__ = ["cell_in_parts_backward", "cell_in_parts_forward"]


def cell_in_parts_forward(inputs: CellInputs, backend: Backend) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H) and the last state."""
    recurrence, norms = _recurrence(backend), inputs.norms

    def run(
        x: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, ...]:
        p = linear(_rows(x), inputs.weight, inputs.bias).unflatten(0, x.shape[:2])
        h, last = recurrence.forward(p, norms, mLSTMState(c, n, m), padding)
        return h, last.c, last.n

    tensors = (inputs.x, *inputs.state, inputs.padding)
    h, c, n = map_batch_tiles(run, tensors, _tile_size(inputs, backend))
    return h, mLSTMState(c, n, inputs.state.m)


def cell_in_parts_backward(
    inputs: CellInputs, grads: OutputGrads, needs_x: bool, backend: Backend
) -> CellGrads:
    """Return the gradients of the inputs."""
    recurrence, norms = _recurrence(backend), inputs.norms
    sums: list[Tensor] = []  # over tiles, of the gradients of all parameters

    def run(
        x: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
        padding: Tensor | None,
        *grads: Tensor | None,
    ) -> tuple[Tensor, ...]:
        rows = _rows(x)
        p = linear(rows, inputs.weight, inputs.bias).unflatten(0, x.shape[:2])
        grad_p, grad_norms, (grad_c, grad_n, _) = recurrence.backward(
            p, norms, mLSTMState(c, n, m), padding, OutputGrads(*grads)
        )
        grad_x, *grad_linear = linear_backward(_rows(grad_p), rows, inputs.weight, needs_x)
        parameters = [*grad_linear, *grad_norms]
        sums[:] = torch._foreach_add(sums, parameters) if sums else parameters
        states = (grad_c, grad_n)
        return states if grad_x is None else (*states, grad_x.unflatten(0, x.shape[:2]))

    tensors = (inputs.x, *inputs.state, inputs.padding, *grads)
    c, n, *x = map_batch_tiles(run, tensors, _tile_size(inputs, backend))
    weight, bias, *affine = sums
    return CellGrads(x[0] if needs_x else None, weight, bias, affine, c, n)


def _recurrence(backend: Backend) -> Normalizing:
    assert backend.normalizing is not None
    return backend.normalizing


def _tile_size(inputs: CellInputs, backend: Backend) -> int:
    (B, T), (_, NH, d) = inputs.x.shape[:2], inputs.state.n.shape
    width = backend.gated_tile_width(len(inputs.weight), NH, default_chunk_size(T, d))
    return batch_tile_size(inputs.x, B, T * width)


def _rows(x: Tensor) -> Tensor:
    """Return x (B, T, ...) as dense rows (B T, ...)."""
    return x.flatten(0, 1).contiguous()
