"""An input that is not finite reaches no step before it.

In a product of matrices 0 · NaN is NaN, so a NaN would reach steps whose weight of it is 0. Inputs
that are not finite are therefore taken out, and their outputs marked as NaN: where the data cannot
be asked (traces, accelerators, transforms) always, else only where the last memory tells of one.

Dimensions: B batch, NH heads, T time, K key, V value.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..execution import is_eager_on_cpu
from ..naive import LOG_EMPTY
from ..overflow import all_finite

__all__ = ["propagate_nans_causally"]


def propagate_nans_causally(
    read: Callable[..., tuple[Tensor, ...]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
) -> tuple[Tensor, ...]:
    """Return what ``read`` does of these: h, c, n, m and more, h of T or more steps.

    A NaN or infinity at one step makes h NaN from that step on, in its sample and head, and leaves
    everything before it as it was; one in v or c only the values that it is one of, as step by
    step.
    """
    if is_eager_on_cpu(q):
        results = read(q, k, v, log_i, log_f, c, n, m)
        if all_finite(*results[1:3]):  # they hold every NaN of k, v, the gates and the first memory
            return results
    marks = _mark(k, v, log_i, log_f, c, n, m)
    k, v, c, n = (x.nan_to_num(0.0, 0.0, 0.0) for x in (k, v, c, n))
    log_i, log_f, m = (torch.where(x < torch.inf, x, 0.0) for x in (log_i, log_f, m))
    h, c, n, m, *others = read(q, k, v, log_i, log_f, c, n, m)
    h[:, :, : q.shape[2]] += marks.h
    return h, c + marks.c, n + marks.n, m + marks.m, *others


class _Marks(NamedTuple):
    """NaN for what a number that is not finite reaches, else 0."""

    h: Tensor  # (B, NH, T, V)
    c: Tensor
    n: Tensor
    m: Tensor


def _mark(
    k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, c: Tensor, n: Tensor, m: Tensor
) -> _Marks:
    # x - x is 0, or NaN where x is not finite
    k, v, c, n = (x - x for x in (k, v, c, n))
    gates, m = _zero_or_nan(log_i) + _zero_or_nan(log_f), _zero_or_nan(m)
    of_steps = (gates + k.sum(-1)).cumsum(-1) + (m + n.sum(-1))[..., None]
    of_values = v.cumsum(-2) + c.sum(-1)[..., None, :]
    m = m + gates.sum(-1)
    of_keys = k.sum(-2) + m[..., None]
    return _Marks(
        h=of_steps[..., None] + of_values,
        c=c + v.sum(-2)[..., None] + of_keys[..., None, :],
        n=n + of_keys,
        m=m,
    )


def _zero_or_nan(logarithm: Tensor) -> Tensor:
    """Return 0, or NaN for a NaN or inf; -inf is the logarithm of 0."""
    logarithm = logarithm.clamp_min(LOG_EMPTY)
    return logarithm - logarithm
