"""The activations of the gates of a layer, and their derivatives."""

import triton
import triton.language as tl

__all__ = ["gates_bwd", "gates_fwd"]

SOFT_CAP = tl.constexpr(15.0)


@triton.jit
def gates_fwd(
    i,
    f,
    padding,
    log_i,
    log_f,
    strides,
    padding_stride,
    NH,
    T,
    MASKED: tl.constexpr,
    BT: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Write the logarithms of both gates (B, NH, T); at padding they leave the state unchanged."""
    blocks = tl.cdiv(T, BT)
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    b, head = sequence // NH, sequence % NH
    steps = (tl.program_id(0) % blocks) * BT + tl.arange(0, BT)
    inside = steps < T
    at = b * strides[0] + steps.to(tl.int64) * strides[1] + head
    x = tl.load(i + at, mask=inside, other=0.0).to(DTYPE)
    e = tl.exp(-2.0 * tl.abs(x) / SOFT_CAP)
    capped = SOFT_CAP * (1.0 - e) / (1.0 + e)
    capped = tl.where(x < 0, -capped, capped)
    y = tl.load(f + at, mask=inside, other=0.0).to(DTYPE)
    # log(1 + e) of a small e, without the digits that 1 + e loses
    e = tl.exp(-tl.abs(y))
    sum_with_one = 1.0 + e
    log_sum = tl.where(
        sum_with_one == 1.0, e, tl.log(sum_with_one) * e / tl.maximum(sum_with_one - 1.0, 1e-30)
    )
    # not tl.minimum, which drops a NaN
    forget = tl.where(y > 0, 0.0, y) - log_sum
    if MASKED:
        mask = tl.load(padding + b * padding_stride + steps, mask=inside, other=0) != 0
        capped = tl.where(mask, float("-inf"), capped)
        forget = tl.where(mask, 0.0, forget)
    to = sequence * T + steps
    tl.store(log_i + to, capped, mask=inside)
    tl.store(log_f + to, forget, mask=inside)


@triton.jit
def gates_bwd(
    f,
    log_i,
    grad_log_i,
    grad_log_f,
    grad_i,
    grad_f,
    strides,
    grad_strides,
    NH,
    T,
    BT: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Write the gradients of the pre-activations of both gates; at padding they are 0."""
    blocks = tl.cdiv(T, BT)
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    b, head = sequence // NH, sequence % NH
    steps = (tl.program_id(0) % blocks) * BT + tl.arange(0, BT)
    inside = steps < T
    at = sequence * T + steps
    value = tl.load(log_i + at, mask=inside, other=float("-inf"))
    is_padding = value == float("-inf")
    ratio = tl.where(is_padding, 0.0, value) / SOFT_CAP
    x = tl.load(grad_log_i + at, mask=inside, other=0.0) * (1.0 - ratio * ratio)
    y = tl.load(f + b * strides[0] + steps.to(tl.int64) * strides[1] + head, mask=inside, other=0.0)
    y = y.to(DTYPE)
    # 1 - σ(f) with all its digits
    e = tl.exp(-tl.abs(y))
    closed = tl.where(y >= 0, e, 1.0) / (1.0 + e)
    y = tl.load(grad_log_f + at, mask=inside, other=0.0) * closed
    to = b * grad_strides[0] + steps.to(tl.int64) * grad_strides[1] + head
    tl.store(grad_i + to, tl.where(is_padding, 0.0, x), mask=inside)
    tl.store(grad_f + to, tl.where(is_padding, 0.0, y), mask=inside)
