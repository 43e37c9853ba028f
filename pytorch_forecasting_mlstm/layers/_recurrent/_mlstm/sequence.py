"""The arguments of a layer: checked, batched, time first, with lengths as a mask."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...._validation import check_tensor
from .cell import mLSTMCell
from .input_check import check_input, check_state_tuple
from .ops.execution import is_eager

__all__ = ["LayerInput", "State", "check_layer_input", "check_layer_state"]

State = tuple[Tensor, Tensor, Tensor]
_CALLER = "mLSTMLayer"


class LayerInput(NamedTuple):
    """The input of a layer, whatever its layout was.

    Attributes
    ----------
    x : Tensor
        (T, B, input_size).
    mask : Tensor or None
        Valid steps, (T, B).
    batched : bool
        Whether the caller has passed a batch; otherwise B is 1.
    """

    x: Tensor
    mask: Tensor | None
    batched: bool

    def unbatch(self, *results: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Remove the batch dimension of results if the caller has passed no batch."""
        return results if self.batched else tuple(x.squeeze(dim) for x in results)


def check_layer_input(
    cell: mLSTMCell, x: Tensor, mask: Tensor | None, lengths: object, batch_first: bool
) -> LayerInput:
    """Check x and mask or lengths, for a layer with this first cell."""
    batched = not (isinstance(x, Tensor) and x.dim() == 2)
    dims = ("batch", "time") if batch_first else ("time", "batch")
    check_input(_CALLER, x, dims if batched else ("time",), cell.input_size, cell.projection.weight)
    if mask is not None:
        if lengths is not None:
            raise ValueError(f"{_CALLER}: pass either mask or lengths, got both; leave one out.")
        check_tensor(_CALLER, "mask", mask, tuple(x.shape[:-1]), dtype=torch.bool, device=x.device)
    if not batched:
        if lengths is not None:
            raise ValueError(
                f"{_CALLER}: lengths are for a batch, got x of shape {tuple(x.shape)}; slice x "
                f"instead, or pass x of shape ({', '.join(dims)}, {cell.input_size})."
            )
        return LayerInput(x.unsqueeze(1), None if mask is None else mask.unsqueeze(1), False)
    if batch_first:
        x, mask = x.transpose(0, 1), None if mask is None else mask.transpose(0, 1)
    if lengths is not None:
        mask = _mask_of_lengths(lengths, x)
    return LayerInput(x, mask, True)


def _mask_of_lengths(lengths: object, x: Tensor) -> Tensor:
    """Return the mask (T, B) of the first ``lengths`` steps of x (T, B, input_size)."""
    T, B = x.shape[:2]
    if isinstance(lengths, Sequence) and all(type(length) is int for length in lengths):
        lengths = torch.tensor(lengths, dtype=torch.int64)
    if not isinstance(lengths, Tensor):
        raise TypeError(
            f"{_CALLER}: lengths must be a tensor or list of ints, got {lengths!r}; pass the "
            f"number of valid steps of each sample."
        )
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(
            f"{_CALLER}: lengths must be integers, got {lengths.dtype}; convert them with .long()."
        )
    if tuple(lengths.shape) != (B,):
        raise ValueError(
            f"{_CALLER}: lengths must have shape ({B},), one for each sample, got "
            f"{tuple(lengths.shape)}."
        )
    # On an accelerator, inspecting them would force a device sync; a trace has no values.
    if is_eager() and lengths.device.type == "cpu" and not ((lengths >= 0) & (lengths <= T)).all():
        raise ValueError(
            f"{_CALLER}: lengths must be from 0 to {T}, the number of steps of x, got "
            f"{int(lengths.min())} to {int(lengths.max())}; correct them."
        )
    return torch.arange(T, device=x.device)[:, None] < lengths.to(x.device)


def check_layer_state(
    cell: mLSTMCell, state: State, cells: int, batch_size: int, batched: bool
) -> State:
    """Check a state that is stacked over cells, and return it with a batch."""
    check_state_tuple(_CALLER, state)
    batch = (batch_size,) if batched else ()
    unit = (cells, *batch, cell.hidden_size)
    memory = (cells, *batch, *cell.memory_shape(batch_size)[1:])
    for name, part, shape in zip("hcn", state, (unit, memory, unit), strict=True):
        check_tensor(
            _CALLER,
            f"state {name}",
            part,
            shape,
            dtype=cell.state_dtype,
            device=cell.projection.weight.device,
        )
    h, c, n = state
    return (h, c, n) if batched else (h.unsqueeze(1), c.unsqueeze(1), n.unsqueeze(1))
