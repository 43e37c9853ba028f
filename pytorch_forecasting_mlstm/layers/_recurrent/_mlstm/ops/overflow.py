"""Finite inputs give finite results or an error: an overflow is never silent."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .execution import is_eager_on_cpu
from .types import at_least_float32

__all__ = ["all_finite", "raise_on_overflow"]


def all_finite(*tensors: Tensor) -> bool:
    """Whether the sums of tensors on the CPU are finite, which implies that all elements are."""
    return all(math.isfinite(x.detach().sum().item()) for x in tensors)


def raise_on_overflow(
    caller: str,
    results: Sequence[Tensor],
    inputs: Callable[[], Mapping[str, Tensor]],
) -> None:
    """Raise a ValueError if results are not finite although all inputs are (or logarithms of 0).

    Results are only inspected on the CPU: on an accelerator that would force a device sync, and a
    trace has no values. Non-finite inputs propagate.
    """
    if not is_eager_on_cpu(results[0]) or all_finite(*results):
        return
    if all(bool(x.isfinite().all()) for x in results):  # only the sum overflowed
        return
    named_inputs = {name: x.detach() for name, x in inputs().items()}
    if not all(bool((x < torch.inf).all()) for x in named_inputs.values()):
        return
    # The logarithms of an empty memory and of a closed gate are not large numbers.
    sizes = {
        name: x.abs().max().item()
        for name, x in named_inputs.items()
        if x.numel() and not name.endswith(("log_i", "log_f", "state.m"))
    }
    name = max(sizes, key=sizes.__getitem__)
    dtype = at_least_float32(named_inputs[name].dtype)
    raise ValueError(
        f"{caller}: finite inputs overflow {dtype}, whose largest number is "
        f"{torch.finfo(dtype).max:.1e}: {name} has magnitudes up to {sizes[name]:.1e}; scale the "
        f"inputs down{'' if dtype == torch.float64 else ', or compute in float64'}."
    )
