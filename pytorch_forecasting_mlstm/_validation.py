"""Checks of arguments. Each error names the caller, the expected and the actual value."""

from numbers import Integral, Real

import torch
from torch import Tensor

__all__ = ["check_bool", "check_dict", "check_dropout", "check_int", "check_tensor"]


def check_tensor(
    caller: str,
    name: str,
    x: Tensor,
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Raise unless ``x`` is a tensor of this shape, dtype and device."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{caller}: {name} must be a tensor, got {type(x).__name__}.")
    if tuple(x.shape) != shape:
        raise ValueError(f"{caller}: {name} must have shape {shape}, got {tuple(x.shape)}.")
    if x.dtype != dtype:
        raise TypeError(
            f"{caller}: {name} must be {dtype}, got {x.dtype}; convert it with .to({dtype})."
        )
    if x.device != device:
        raise ValueError(
            f"{caller}: {name} must be on {device}, got {x.device}; move it with .to('{device}')."
        )


def check_int(
    caller: str, name: str, value: object, minimum: int = 1, maximum: int | None = None
) -> None:
    """Raise unless ``value`` is an integer from ``minimum`` to ``maximum``."""
    # A size is symbolic while a graph is traced. It is an int, and is not compared here: that would
    # restrict the graph.
    if isinstance(value, torch.SymInt) or _is_traced_size(value):
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{caller}: {name} must be an int, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{caller}: {name} must be at least {minimum}, got {value}.")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"{caller}: {name} must be at most {maximum}, got {value}.")


def _is_traced_size(value: object) -> bool:
    """Whether ``value`` is a size in ``torch.jit.trace``, which records sizes as tensors."""
    return isinstance(value, Tensor) and not value.is_floating_point() and torch._C._is_tracing()


def check_bool(caller: str, name: str, value: bool) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{caller}: {name} must be True or False, got {value!r}.")


def check_dict(caller: str, name: str, value: object, example: str) -> None:
    """Raise unless ``value`` is a dictionary; the message shows an example."""
    if not isinstance(value, dict):
        raise TypeError(f"{caller}: {name} must be a dict, got {value!r}; for example {example}.")


def check_dropout(caller: str, dropout: object) -> None:
    """Raise unless ``dropout`` is a probability below 1."""
    if isinstance(dropout, bool) or not isinstance(dropout, Real):
        raise TypeError(f"{caller}: dropout must be a number, got {dropout!r}.")
    if not 0 <= float(dropout) < 1:
        raise ValueError(f"{caller}: dropout must be in [0, 1), got {dropout}.")
