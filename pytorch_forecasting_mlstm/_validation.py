"""What every mLSTM part asks of its input, with messages that say who, expected and got."""

from numbers import Integral, Real

import torch
from torch import Tensor

from ._precision import has_autocast

_AUTOCAST = {torch.float32, torch.bfloat16, torch.float16}


def check_tensor(
    who: str,
    name: str,
    x: Tensor,
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype,
    device: torch.device,
    hint: str = "",
) -> None:
    """Raise unless ``x`` is a tensor of that shape, dtype and device."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{who}: {name} must be a tensor, got {type(x).__name__}.{hint}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{who}: {name} must have shape {shape}, got {tuple(x.shape)}.{hint}")
    if x.dtype != dtype:
        raise TypeError(
            f"{who}: {name} must be {dtype}, got {x.dtype}; convert it with .to({dtype}).{hint}"
        )
    if x.device != device:
        raise ValueError(
            f"{who}: {name} must be on {device}, got {x.device}; "
            f"move it with .to('{device}').{hint}"
        )


def check_input(
    who: str, x: Tensor, dims: tuple[str, ...], input_size: int, weight: Tensor
) -> None:
    """Raise unless ``x`` has these dimensions, the last of ``input_size``, and suits ``weight``."""
    layout = f"({', '.join(dims)}, {input_size})"
    if not isinstance(x, Tensor):
        raise TypeError(f"{who}: x must be a tensor of shape {layout}, got {type(x).__name__}.")
    if x.dim() != len(dims) + 1 or x.shape[-1] != input_size:
        raise ValueError(f"{who}: x must have shape {layout}, got {tuple(x.shape)}.")
    if x.device != weight.device:
        raise ValueError(
            f"{who}: x is on {x.device}, the weights on {weight.device}; move one with .to(...)."
        )
    # under autocast the projection converts by itself, but not from or to float64
    device = x.device.type
    autocast = has_autocast(device) and torch.is_autocast_enabled(device)
    if x.dtype != weight.dtype and not (autocast and {x.dtype, weight.dtype} <= _AUTOCAST):
        raise TypeError(
            f"{who}: x must be {weight.dtype} like the weights, got {x.dtype}; "
            f"convert it with .to({weight.dtype})."
        )


def check_size(who: str, name: str, size: object, least: int = 1) -> None:
    """Raise unless ``size`` is an integer of at least ``least``."""
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise TypeError(f"{who}: {name} must be an int, got {size!r}.")
    if size < least:
        raise ValueError(f"{who}: {name} must be at least {least}, got {size}.")


def check_flag(who: str, name: str, flag: bool) -> None:
    """Raise unless ``flag`` is True or False."""
    if not isinstance(flag, bool):
        raise TypeError(f"{who}: {name} must be True or False, got {flag!r}.")


def check_dropout(who: str, dropout: object) -> None:
    """Raise unless ``dropout`` is a probability below 1."""
    if isinstance(dropout, bool) or not isinstance(dropout, Real):
        raise TypeError(f"{who}: dropout must be a number, got {dropout!r}.")
    if not 0 <= float(dropout) < 1:
        raise ValueError(f"{who}: dropout must be in [0, 1), got {dropout}.")
