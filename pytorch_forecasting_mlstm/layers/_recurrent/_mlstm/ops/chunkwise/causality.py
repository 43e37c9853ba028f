"""Non-finite inputs do not affect earlier steps.

In a matrix product 0 · NaN is NaN, so a NaN would reach steps that give it a weight of 0. Therefore
non-finite inputs are replaced, and the outputs that they affect are set to NaN. On the CPU this is
only done if the last state contains a NaN. Traces, accelerators and transforms cannot inspect the
data and always do it.

Dimensions: B batch, NH heads, T time, K key, V value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..execution import is_eager_on_cpu
from ..overflow import all_finite
from ..stabilization import LOG_EMPTY
from ..types import Inputs, mLSTMState

__all__ = ["propagate_nans_causally"]


def propagate_nans_causally(
    run: Callable[[Inputs, mLSTMState], tuple[Any, ...]],
    inputs: Inputs,
    state: mLSTMState,
) -> tuple[Any, ...]:
    """Return the results of ``run``: h of T or more steps, the last state, and any others.

    A NaN or infinity at one step makes h NaN from that step on, in its sample and head, and does
    not affect earlier steps. One in v or c only affects its own component of the values, as in the
    recurrent form.
    """
    if is_eager_on_cpu(inputs.q):
        results = run(inputs, state)
        last = results[1]
        if all_finite(last.c, last.n):  # every NaN of k, v, gates and state reaches them
            return results
    marks = _nan_marks(inputs, state)
    q, k, v, log_i, log_f = inputs
    c, n, m = state
    k, v, c, n = (x.nan_to_num(0.0, 0.0, 0.0) for x in (k, v, c, n))
    log_i, log_f, m = (torch.where(x < torch.inf, x, 0.0) for x in (log_i, log_f, m))
    h, last, *saved = run(Inputs(q, k, v, log_i, log_f), mLSTMState(c, n, m))
    h[:, :, : q.shape[2]] += marks.h
    last = mLSTMState(last.c + marks.c, last.n + marks.n, last.m + marks.m)
    return h, last, *saved


class _NaNMarks(NamedTuple):
    """NaN where a non-finite number has an effect, else 0."""

    h: Tensor  # (B, NH, T, V)
    c: Tensor
    n: Tensor
    m: Tensor


def _nan_marks(inputs: Inputs, state: mLSTMState) -> _NaNMarks:
    _, k, v, log_i, log_f = inputs
    c, n, m = state
    # x - x is 0, or NaN where x is not finite.
    k, v, c, n = (x - x for x in (k, v, c, n))
    gates, m = _zero_or_nan(log_i) + _zero_or_nan(log_f), _zero_or_nan(m)
    step_marks = (gates + k.sum(-1)).cumsum(-1) + (m + n.sum(-1))[..., None]
    value_marks = v.cumsum(-2) + c.sum(-1)[..., None, :]
    m = m + gates.sum(-1)
    key_marks = k.sum(-2) + m[..., None]
    return _NaNMarks(
        h=step_marks[..., None] + value_marks,
        c=c + v.sum(-2)[..., None] + key_marks[..., None, :],
        n=n + key_marks,
        m=m,
    )


def _zero_or_nan(logarithm: Tensor) -> Tensor:
    """Return 0, or NaN for a NaN or inf; -inf is the logarithm of 0."""
    logarithm = logarithm.clamp_min(LOG_EMPTY)
    return logarithm - logarithm
