"""Finite inputs give finite results, or an error: no NaN comes of an overflow in silence."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._blocks import is_eager_on_cpu

__all__ = ["are_finite", "refuse_overflow"]


def are_finite(*tensors: Tensor) -> bool:
    """Whether the sums of tensors on the CPU are finite: if so, all their numbers are."""
    return all(math.isfinite(x.detach().sum().item()) for x in tensors)


def refuse_overflow(
    caller: str, results: tuple[Tensor, ...], inputs: Mapping[str, Tensor | None]
) -> None:
    """Raise if results are not finite although all inputs are, but for gates of -inf.

    The results are read on the CPU only: an accelerator would have to wait for the answer, and a
    trace has none. Inputs that are not finite are handed on.
    """
    if not is_eager_on_cpu(results[0]) or are_finite(*results):
        return
    if all(bool(x.isfinite().all()) for x in results):  # only a sum was too large
        return
    given = {name: x.detach() for name, x in inputs.items() if x is not None and x.numel()}
    if not all(bool((x < torch.inf).all()) for x in given.values()):
        return
    sizes = {name: x.abs().max().item() for name, x in given.items() if x.isfinite().all()}
    largest = max(sizes, key=sizes.__getitem__)
    dtype = results[0].dtype
    raise ValueError(
        f"{caller}: finite inputs overflow {dtype}, which ends at {torch.finfo(dtype).max:.1e}: "
        f"{largest} has magnitudes up to {sizes[largest]:.1e}; scale the inputs down"
        f"{'' if dtype == torch.float64 else ', or pass float64'}."
    )
