"""The check of a layer's input against its weights."""

import torch
from torch import Tensor

from .ops.autocast import has_autocast

__all__ = ["check_input"]

_AUTOCAST_DTYPES = {torch.float32, torch.bfloat16, torch.float16}


def check_input(
    caller: str, x: Tensor, dims: tuple[str, ...], input_size: int, weight: Tensor
) -> None:
    """Raise unless ``x`` is (*dims, input_size), on the device and of the dtype of ``weight``."""
    layout = f"({', '.join(dims)}, {input_size})"
    if not isinstance(x, Tensor):
        raise TypeError(f"{caller}: x must be a tensor of shape {layout}, got {type(x).__name__}.")
    if x.dim() != len(dims) + 1 or x.shape[-1] != input_size:
        raise ValueError(f"{caller}: x must have shape {layout}, got {tuple(x.shape)}.")
    if x.device != weight.device:
        raise ValueError(
            f"{caller}: x is on {x.device}, the weights on {weight.device}; move one with .to(...)."
        )
    # Under autocast the projection converts its input, but neither from nor to float64.
    device = x.device.type
    autocast = has_autocast(device) and torch.is_autocast_enabled(device)
    if x.dtype != weight.dtype and not (autocast and {x.dtype, weight.dtype} <= _AUTOCAST_DTYPES):
        raise TypeError(
            f"{caller}: x must be {weight.dtype} like the weights, got {x.dtype}; "
            f"convert it with .to({weight.dtype})."
        )
