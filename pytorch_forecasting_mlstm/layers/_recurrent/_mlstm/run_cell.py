"""One cell over a whole sequence: batch first, as the recurrence reads it."""

import torch
from torch import Tensor

from .cell import mLSTMCell
from .dropout import MIN_NUMEL, Dropout
from .functional import mLSTMState
from .onednn_linear import is_plain_linear
from .ops.autocast import autocast_disabled
from .ops.autograd import chunkwise, gated, gated_compiled
from .ops.cell_autograd import whole_cell
from .ops.dispatch import Backend, select_cell
from .ops.dropout_draw import DropoutDraw, draw_dense_16_bits
from .ops.execution import is_compiling, is_eager
from .ops.last_step import count_to_last, select_last
from .ops.types import Inputs
from .plain_modules import runs_only_forward
from .preactivations import apply_gate_activations, heads_first

__all__ = ["run_cell", "select_cell_backend"]


def run_cell(
    cell: mLSTMCell, x: Tensor, state: tuple[Tensor, Tensor, Tensor], padding: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Run a cell.

    Parameters
    ----------
    cell : mLSTMCell
        The cell.
    x : Tensor
        Input, (B, T, input_size), with T of at least 1 and zeros at padding.
    state : tuple of Tensor
        h, c and n before the first step, as the cell has them.
    padding : Tensor, optional
        Steps that leave the state as it is, bool, (B, T, 1).

    Returns
    -------
    hidden : Tensor
        h of every step, (B, T, H); arbitrary at padding.
    state : tuple of Tensor
        h, c and n after the last valid step.
    """
    h, c, n = state
    backend = select_cell_backend(cell, x)
    drawn = None if backend is None else _draw_dropout(cell, x)
    if backend is None:
        x = cell.dropout(x.contiguous())
    elif drawn is None:
        dropped = _drop(cell, x, steps_first=False)
        if dropped is not x:  # a hook may have changed the dtype
            backend = select_cell_backend(cell, dropped)
        x = dropped
    if backend is None:
        hidden, last = _recurrence(cell, x, cell.to_state(c, n), padding)
        hidden, last_h = cell.dropout(hidden), None
    else:  # it reads samples and steps in any order, and writes h in the same
        hidden, last_h, last = whole_cell(
            x,
            cell.projection.weight,
            cell.projection.bias,
            cell.to_state(c, n),
            padding,
            cell.norm_arguments() or (),
            backend.NAME,
            drawn,
        )
        if drawn is None:
            dropped = _drop(cell, hidden, steps_first=True)
            hidden, last_h = dropped, last_h if dropped is hidden else None
    if last_h is None:
        last_h = select_last(hidden, padding)
    if padding is not None:
        last_h = torch.where((count_to_last(padding) > 0)[:, None], last_h, h)
    return hidden, (last_h, *cell.from_state(last))


def _draw_dropout(cell: mLSTMCell, x: Tensor) -> DropoutDraw | None:
    """Draw what a backend needs to drop elements of x (B, T, input_size) and of h.

    None if calling the module may do anything else. The numbers are those that it would draw for a
    cell in PyTorch, which reads samples first, and writes steps first.
    """
    dropout, (B, T, input_size) = cell.dropout, x.shape
    if type(dropout) is not Dropout or not runs_only_forward(dropout):
        return None
    smallest = B * T * min(input_size, cell.hidden_size)
    if not dropout.draws_16_bits(x) or smallest < MIN_NUMEL:
        return None
    x_bits = draw_dense_16_bits((B, T, input_size))
    h_bits = draw_dense_16_bits((T, B, cell.hidden_size)).transpose(0, 1)
    return DropoutDraw(x_bits, h_bits, float(dropout.p))


def _drop(cell: mLSTMCell, x: Tensor, *, steps_first: bool) -> Tensor:
    """Call dropout on x (B, T, ...) where a backend does not apply it, or return x itself.

    torch draws numbers in the order of memory. So x gets the order that it has for a cell in
    PyTorch, or the same seed would drop other elements. A compiler draws in an order of its own.
    """
    dropout = cell.dropout
    changes = dropout.training and getattr(dropout, "p", None) != 0
    if not changes and type(dropout) is Dropout and runs_only_forward(dropout):
        return x
    if changes and is_eager():
        x = x.transpose(0, 1).contiguous().transpose(0, 1) if steps_first else x.contiguous()
    dropped: Tensor = dropout(x)
    return dropped


def _recurrence(
    cell: mLSTMCell, x: Tensor, state: mLSTMState, padding: Tensor | None
) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H), and the last state."""
    # The fused forms have no place for a norm between the read-out and the output gate.
    if not cell.has_head_norm and is_eager() and x.numel() > 0:
        p, norms = cell.project_unnormalized(x)
        return gated(p, state, padding, norms)
    p = cell.preactivations(x)
    if not cell.has_head_norm and is_compiling() and x.numel() > 0:
        return gated_compiled(p, state, padding)
    *inputs, o = heads_first(apply_gate_activations(p, cell.heads), padding)
    if x.numel() > 0:
        with autocast_disabled(x.device):
            read, state = chunkwise(Inputs(*inputs), state, None)
    else:
        read = inputs[2]
    h, o = (part.transpose(1, 2).flatten(-2) for part in (read, o))
    return o * cell.norm_heads(h), state


def select_cell_backend(cell: mLSTMCell, x: Tensor) -> Backend | None:
    """Choose a backend that computes the whole cell for x (B, T, input_size), if there is one."""
    if cell.has_head_norm or not (is_eager() or is_compiling()) or x.numel() == 0:
        return None
    shape = (4 * cell.hidden_size + 2 * cell.heads, cell.input_size)
    if not is_plain_linear(cell.projection, x, shape) or cell.norm_arguments() is None:
        return None
    return select_cell(x, cell.projection.weight, cell.head_dim)
