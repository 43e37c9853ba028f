"""Finite inputs give finite results, or an error: no NaN comes of an overflow in silence."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .execution import is_eager_on_cpu

__all__ = ["all_finite", "raise_on_overflow"]


def all_finite(*tensors: Tensor) -> bool:
    """Whether the sums of tensors on the CPU are finite: if so, all their numbers are."""
    return all(math.isfinite(x.detach().sum().item()) for x in tensors)


def raise_on_overflow(
    caller: str,
    results: Sequence[Tensor],
    inputs: Callable[[], Mapping[str, Tensor]],
) -> None:
    """Raise if results are not finite although all inputs are, but for logarithms of -inf.

    The results are read on the CPU only: an accelerator would have to wait for the answer, and a
    trace has none. Inputs that are not finite are handed on.
    """
    if not is_eager_on_cpu(results[0]) or all_finite(*results):
        return
    if all(bool(x.isfinite().all()) for x in results):  # only a sum was too large
        return
    given = {name: x.detach() for name, x in inputs().items()}
    if not all(bool((x < torch.inf).all()) for x in given.values()):
        return
    # an empty memory and a shut gate are no large numbers
    sizes = {
        name: x.abs().max().item()
        for name, x in given.items()
        if x.numel() and not name.endswith(("log_i", "log_f", "state.m"))
    }
    name = max(sizes, key=sizes.__getitem__)
    dtype = torch.promote_types(given[name].dtype, torch.float32)
    raise ValueError(
        f"{caller}: finite inputs overflow {dtype}, whose largest number is "
        f"{torch.finfo(dtype).max:.1e}: {name} has magnitudes up to {sizes[name]:.1e}; scale the "
        f"inputs down{'' if dtype == torch.float64 else ', or compute in float64'}."
    )
