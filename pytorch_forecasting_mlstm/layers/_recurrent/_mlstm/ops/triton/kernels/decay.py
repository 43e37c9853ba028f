"""Functions that several kernels share: the gates of a chunk, and the decays between its steps."""

import triton
import triton.language as tl

__all__ = ["decays_between", "decays_to_end", "load_gates", "load_rows", "nan_unless_finite"]

LOG_EMPTY = tl.constexpr(-1e30)


@triton.jit
def nan_unless_finite(x):
    """Return x, with NaN in place of infinity: both affect the same later results."""
    return tl.where(tl.abs(x) < float("inf"), x, float("nan"))


@triton.jit
def load_gates(log_i, log_f, g, start, T, BT: tl.constexpr):
    """Return the logarithms of the gates of a chunk of sequence g, (BT) each.

    -inf in log_f becomes a finite number, whose product with 0 is 0. +inf becomes NaN.
    """
    steps = start + tl.arange(0, BT)
    inside = steps < T
    at = g.to(tl.int64) * T + steps
    i = tl.load(log_i + at, mask=inside, other=float("-inf"))
    f = tl.load(log_f + at, mask=inside, other=0.0)
    i = tl.where(i < float("inf"), i, float("nan"))
    f = tl.where(f < float("inf"), f, float("nan"))
    return i, tl.where(f < LOG_EMPTY, LOG_EMPTY, f)


@triton.jit
def decays_to_end(log_i, log_f, g, start, T, BT: tl.constexpr):
    """Return the logarithm of the weight of each step after the chunk, (BT), and their maximum."""
    i, _ = load_gates(log_i, log_f, g, start, T, BT)
    # The gates after each step: those at its position are summed, not subtracted from a sum.
    steps = start + 1 + tl.arange(0, BT)
    inside = (steps < T) & (steps < start + BT)
    f = tl.load(log_f + g.to(tl.int64) * T + steps, mask=inside, other=0.0)
    f = tl.where(f < float("inf"), f, float("nan"))
    f = tl.where(f < LOG_EMPTY, LOG_EMPTY, f)
    weights = tl.cumsum(f, 0, reverse=True) + i
    return weights, tl.max(weights, 0)


@triton.jit
def decays_between(i, f, BT: tl.constexpr):
    """Return D (BT, BT): the logarithm of the weight of step l after step j, -inf for l > j.

    Each entry is a sum of its own. A difference of two sums would lose digits, or be inf - inf.
    """
    j = tl.arange(0, BT)[:, None]
    l = tl.arange(0, BT)[None, :]  # noqa: E741
    between = tl.where(j > l, f[:, None], 0.0)
    return tl.where(j >= l, tl.cumsum(between, 0) + i[None, :], float("-inf"))


@triton.jit
def load_rows(x, steps, T, columns, width, step_stride, DTYPE: tl.constexpr):
    """Return a block of rows (steps) and columns, with zeros outside of (T, width)."""
    at = x + steps.to(tl.int64)[:, None] * step_stride + columns[None, :]
    inside = (steps < T)[:, None] & (columns < width)[None, :]
    return tl.load(at, mask=inside, other=0.0).to(DTYPE)
