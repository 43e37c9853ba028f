"""Checks of the inputs of layers and functions."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .ops.autocast import has_autocast
from .ops.types import Inputs, mLSTMState

__all__ = ["check_input", "check_recurrence_inputs", "check_state_tuple"]

_AUTOCAST_DTYPES = {torch.float32, torch.bfloat16, torch.float16}


def check_input(
    caller: str, x: Tensor, dims: tuple[str, ...], input_size: int, weight: Tensor
) -> None:
    """Raise unless ``x`` is (*dims, input_size), with the device and dtype of ``weight``."""
    layout = f"({', '.join(dims)}, {input_size})"
    if isinstance(x, PackedSequence):
        raise TypeError(
            f"{caller}: x must be a tensor of shape {layout}, got a PackedSequence; unpack it with "
            f"torch.nn.utils.rnn.pad_packed_sequence, and pass mask=, True at the valid steps, or "
            f"its lengths as lengths=."
        )
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


def check_state_tuple(caller: str, state: object) -> None:
    """Raise unless ``state`` is a tuple or list of three."""
    if not isinstance(state, tuple | list):
        raise TypeError(
            f"{caller}: state must be a tuple of three tensors (h, c, n) or None, got "
            f"{type(state).__name__}."
        )
    if len(state) != 3:
        raise TypeError(
            f"{caller}: state must have three tensors (h, c, n), got {len(state)}; n is the "
            f"normalizer, which a state (h, c) of nn.LSTM does not have. Start with None, or with "
            f"init_hidden(batch_size)."
        )


def check_recurrence_inputs(
    caller: str, inputs: Inputs, state: mLSTMState | None, *, sequence: bool
) -> None:
    """Raise unless all are floating-point tensors on one device with matching shapes."""
    q, _, v, _, _ = inputs
    tensors = dict(zip(Inputs._fields, inputs, strict=True))  # torch 2.7 traces no _asdict
    if state is not None:
        if not isinstance(state, mLSTMState):
            raise TypeError(f"{caller}: state must be an mLSTMState, got {type(state).__name__}.")
        tensors.update({f"state.{name}": x for name, x in zip("cnm", state, strict=True)})
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{caller}: {name} must be a tensor, got {type(x).__name__}.")
        if not x.is_floating_point():
            raise TypeError(f"{caller}: {name} must be floating point, got {x.dtype}.")
        if x.device != q.device:
            raise ValueError(
                f"{caller}: {name} is on {x.device}, q on {q.device}; move one of them."
            )
    steps = "T, " if sequence else ""
    rank = 4 if sequence else 3
    if q.dim() != rank or v.dim() != rank:
        raise ValueError(
            f"{caller}: q and k must be (B, NH, {steps}K) and v (B, NH, {steps}V), "
            f"got q {tuple(q.shape)} and v {tuple(v.shape)}."
        )
    K, V = q.shape[-1], v.shape[-1]
    lead = q.shape[:-1]
    expected = {"q": (*lead, K), "k": (*lead, K), "v": (*lead, V), "log_i": lead, "log_f": lead}
    if state is not None:
        B, NH = q.shape[:2]
        expected.update({"state.c": (B, NH, V, K), "state.n": (B, NH, K), "state.m": (B, NH)})
    for name, x in tensors.items():
        if tuple(x.shape) != tuple(expected[name]):
            raise ValueError(
                f"{caller}: {name} must be {tuple(expected[name])} to fit q {tuple(q.shape)} and "
                f"v {tuple(v.shape)}, got {tuple(x.shape)}."
            )
        if name.startswith("state.") and x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{caller}: {name} must be float32 or float64, got {x.dtype}.")
