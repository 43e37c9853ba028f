"""The gated recurrence, called with flat tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import naive
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.autograd import GatedFunction
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.types import mLSTMState


def gated_function(
    p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, ...]:
    """Return h and the last c, n and m from the PyTorch backend."""
    return GatedFunction.apply(p, c, n, m, padding, "pytorch", *norms)


def naive_gated(
    p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, ...]:
    """Return the same from naive operations."""
    h, last = naive.naive_gated(p, mLSTMState(c, n, m), padding, *norms)
    return h, *last


def gated_kernel(
    p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None, *norms: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h and the last c and n, at a scale of 1, from the C++ backend."""
    m = n.new_zeros(n.shape[:2])
    h, c, n, _ = GatedFunction.apply(p, c, n, m, padding, "cpp", *norms)
    return h, c, n
