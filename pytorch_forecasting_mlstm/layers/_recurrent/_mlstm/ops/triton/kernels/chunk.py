"""Functions that several kernels share: what is read in a chunk, and the state that leaves it."""

import triton
import triton.language as tl

from .decay import decays_between, log_decays

__all__ = [
    "causal",
    "divide",
    "divide_bwd",
    "gate_bwd",
    "larger_scale",
    "largest",
    "read_weights",
    "sigmoid",
    "weigh_values",
    "weights_at_scale",
]


LOG_EMPTY = tl.constexpr(-1e30)  # the scale of a state of zeros


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + exp(-x)), without overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def gate_bwd(grad, h, o):
    """Return the gradients of h and o, from that of the gated h, σ(o) h."""
    gate = sigmoid(o)
    grad *= gate
    product = grad * h
    return grad, product - product * gate


@triton.jit
def floor_at_scale(m, TINY: tl.constexpr):
    """Return 1 divided by exp(m), but not so small that 0 is divided by it."""
    return tl.maximum(tl.exp(-m), TINY)


@triton.jit
def read_weights(i, sums, rests, closed, m, BT: tl.constexpr):
    """Return the weights of the steps of a chunk in each read, (BT, BT), and of the state.

    Both are divided by exp of the scale of the read, which is the third result. ``sums``,
    ``rests`` and ``closed`` are the results of ``add_up``; m is the scale of the state that enters.
    """
    of_steps, of_state = log_weights(i, sums, rests, closed, m, BT)
    # Sums alone would lose the scale of gates with huge logarithms by rounding.
    scale = tl.maximum(tl.maximum(tl.max(of_steps, 1), of_state), 0.0)
    return tl.exp(of_steps - scale[:, None]), tl.exp(of_state - scale), scale


@triton.jit
def weights_at_scale(i, sums, rests, closed, m, scale, BT: tl.constexpr):
    """Return the first two results of ``read_weights``, for its third."""
    of_steps, of_state = log_weights(i, sums, rests, closed, m, BT)
    return tl.exp(of_steps - scale[:, None]), tl.exp(of_state - scale)


@triton.jit
def log_weights(i, sums, rests, closed, m, BT: tl.constexpr):
    """Return the logarithms of the weights of ``read_weights``, at no scale."""
    decays, _ = log_decays(sums, closed, BT)
    return decays_between(i, sums, rests, closed, BT), decays + m


@triton.jit
def causal(x, BT: tl.constexpr):
    """Return x (BT, BT) with 0 where the second step is after the first, whatever x is there."""
    j, l = tl.arange(0, BT)[:, None], tl.arange(0, BT)[None, :]  # noqa: E741
    return tl.where(j >= l, x, 0.0)


@triton.jit
def weigh_values(weights, v, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """Return weights · v, with NaN of v in its own step and in later ones only; inf counts as NaN.

    In a product, both would reach earlier steps, which give them a weight of 0.
    """
    read = tl.dot(weights, v, input_precision=PRECISION, out_dtype=DTYPE)
    marks = v * 0.0
    mark = tl.sum(tl.sum(marks, 1), 0)
    if mark != mark:
        v = tl.where(marks == 0.0, v, 0.0)
        read = tl.dot(weights, v, input_precision=PRECISION, out_dtype=DTYPE)
        read += tl.cumsum(marks, 0)
    return read


@triton.jit
def divide(read, size, m, TINY: tl.constexpr):
    """Return h (BT, BV): what was read, divided by its normalizer, or by 1 at the scale m."""
    # The sum is NaN where the normalizer overflows: a quotient of 0 would hide that.
    denominator = tl.maximum(tl.abs(size), floor_at_scale(m, TINY))
    denominator += tl.where(tl.abs(size) < float("inf"), 0.0, float("nan"))
    return read / denominator[:, None]


@triton.jit
def divide_bwd(grad, total, size, m, TINY: tl.constexpr):
    """Return the gradients of what was read and of the normalizer, and q · grad_q.

    grad is the gradient of h, and ``total`` is grad · h, which is (BT). The last result is the sum
    of the gradients of the logarithms of all weights of a read.
    """
    floor = floor_at_scale(m, TINY)
    denominator = tl.maximum(tl.abs(size), floor)
    is_divided = tl.abs(size) >= floor
    sign = tl.where(size < 0, -1.0, 1.0)
    grad_size = tl.where(is_divided, -sign * total / denominator, 0.0)
    return grad / denominator[:, None], grad_size, tl.where(is_divided, 0.0, total)


@triton.jit
def largest(weights):
    """Return the maximum of logarithmic weights (BT), or NaN if there is one, which maxima drop."""
    mark = tl.sum(tl.where(weights < float("inf"), 0.0, float("nan")), 0)
    return tl.max(weights, 0) + mark


@triton.jit
def larger_scale(a, b, DTYPE: tl.constexpr):
    """Return the larger of two scales, at least that of a state of zeros; NaN if one is NaN."""
    mark = tl.where(a < float("inf"), 0.0, float("nan"))
    mark += tl.where(b < float("inf"), 0.0, float("nan"))
    empty_m = tl.full((), LOG_EMPTY, DTYPE)  # a bare number would be rounded to float32
    return tl.maximum(tl.maximum(a, b), empty_m) + mark
