"""Missing values of a history or a horizon, which are NaN: where they are, and what is read there.

A missing value reads as the line between its neighbors, before the first and after the last one as
the nearest, and as 0, the mean, if there is none at all. Statistics skip it. A network that was
made for missing values also reads a mark: 1 where a value is missing.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...layers._recurrent._mlstm.ops.execution import is_eager_on_cpu

__all__ = [
    "MissingInputs",
    "fill_columns",
    "fill_missing",
    "fill_nan",
    "mark_missing",
    "observed_steps",
]


class MissingInputs(NamedTuple):
    """Which inputs may be missing, and which of them have a mark that says where.

    In the history all may be missing, with a mark or without.

    Attributes
    ----------
    targets : list of int
        Numbers of the targets that have a mark.
    history_reals, horizon_reals : list of int
        Columns of the real variables that have a mark, in the history and in the horizon.
    lags : list of int
        Columns of the horizon that come from the history: they may be missing without a mark.
    """

    targets: list[int]
    history_reals: list[int]
    horizon_reals: list[int]
    lags: list[int]

    @property
    def in_horizon(self) -> list[int]:
        """Columns that may be missing in the horizon."""
        return sorted({*self.horizon_reals, *self.lags})


def fill_missing(x: Tensor, observed: Tensor, valid: Tensor) -> Tensor:
    """Interpolate linearly where a series is not observed.

    Parameters
    ----------
    x : Tensor
        Series, (B, T) or (B, T, F).
    observed : Tensor
        Steps that are neither missing nor padding, bool, of the same shape. Values at other steps
        have no influence.
    valid : Tensor
        Steps that are no padding, bool, (B, T). The result at others is arbitrary.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0, 0.0, 0.0, 4.0, 0.0]])
    >>> fill_missing(x, x > 0, torch.ones(1, 6, dtype=torch.bool))
    tensor([[1., 1., 2., 3., 4., 4.]])
    """
    x = x.masked_fill(~observed, 0)
    missing = ~observed & valid.view(*valid.shape, *(1,) * (x.ndim - 2))
    if _is_known_complete(missing):
        return x
    steps = x.shape[1]
    time = torch.arange(steps, device=x.device).view(-1, *(1,) * (x.ndim - 2)).expand_as(x)
    # the number of observed steps up to each step leads to its neighbors, without a scan by step
    count = observed.long().cumsum(1)
    order = torch.where(observed, count, 0)
    time_of = x.new_zeros(x.shape[0], steps + 1, *x.shape[2:], dtype=torch.long)
    time_of = time_of.scatter(1, order, time)
    before = time_of.gather(1, count)
    after = time_of.gather(1, (count + 1).clamp(max=steps))
    has_before, has_after = count > 0, count < count[:, -1:]
    left = x.gather(1, torch.where(has_before, before, after))
    right = x.gather(1, torch.where(has_after, after, before))
    between = has_before & has_after
    # whole numbers are divided in float32, which is too coarse for float64
    dtype = torch.promote_types(x.dtype, torch.float32)
    passed, gap = torch.where(between, time - before, 0), torch.where(between, after - before, 1)
    line = left + (right - left) * (passed.to(dtype) / gap.to(dtype)).to(x.dtype)
    return torch.where(observed, x, torch.where(has_before | has_after, line, 0))


def observed_steps(x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return the valid steps at which x (B, T) is not NaN; None if these are known to be all."""
    missing = _missing_steps(x)
    if missing is None:
        return valid
    return ~missing if valid is None else valid & ~missing


def fill_nan(x: Tensor, valid: Tensor | None) -> Tensor:
    """Interpolate x (B, T, F) where it is NaN, as :func:`fill_missing` does.

    ``valid`` is None if all steps are valid.
    """
    missing = _missing_steps(x)
    if missing is None:
        return x
    if valid is None:
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return fill_missing(x, valid[..., None] & ~missing, valid)


def fill_columns(x: Tensor, valid: Tensor | None, columns: list[int]) -> Tensor:
    """Interpolate some columns of x (B, T, F) where they are NaN; keep the others."""
    if not columns:
        return x
    parts = list(x.unbind(-1))
    for column, part in zip(columns, fill_nan(x[..., columns], valid).unbind(-1), strict=True):
        parts[column] = part
    return torch.stack(parts, dim=-1)


def mark_missing(x: Tensor, columns: list[int]) -> list[Tensor]:
    """Return marks (B, T, len(columns)) of where columns of x (B, T, F) are NaN, if any."""
    return [x[..., columns].isnan().to(x.dtype)] if columns else []


def _is_known_complete(missing: Tensor) -> bool:
    """Return whether nothing is missing, if that can be known at no cost.

    An accelerator would have to wait for the answer, and a graph cannot depend on it.
    """
    return is_eager_on_cpu(missing) and not bool(missing.any())


def _missing_steps(x: Tensor) -> Tensor | None:
    """Return where x is NaN; None if it is known to be NaN nowhere."""
    # A finite sum lacks nothing, and takes a tenth of the time of a look at every number.
    if is_eager_on_cpu(x) and math.isfinite(x.sum().item()):
        return None
    missing = x.isnan()
    return None if _is_known_complete(missing) else missing
