"""The read-out of each chunk, and the gradient through its division and its output gate."""

import triton
import triton.language as tl

from .chunk import causal, divide, divide_bwd, gate_bwd, read_weights, sigmoid, weigh_values
from .decay import add_up, load_gates
from .rows import load_rows, store_rows

__all__ = ["division_bwd", "reads_fwd"]


@triton.jit
def reads_fwd(
    q,
    k,
    v,
    o,
    log_i,
    log_f,
    states_c,
    states_n,
    states_m,
    h,
    output,
    normalizer,
    read_m,
    q_strides,
    k_strides,
    v_strides,
    o_strides,
    output_strides,
    NH,
    T,
    K: tl.constexpr,
    V: tl.constexpr,
    K_SCALE: tl.constexpr,
    TINY: tl.constexpr,
    GATED: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write h, the normalizer nᵀq and the scale it has; with an output gate, also σ(o) h.

    One program computes a chunk and a block of values.
    """
    N = tl.cdiv(T, BT)
    g, chunk, block_v = tl.program_id(0) // N, tl.program_id(0) % N, tl.program_id(1)
    sequence = g.to(tl.int64)
    b, head = sequence // NH, sequence % NH
    q += b * q_strides[0] + head * q_strides[1]
    k += b * k_strides[0] + head * k_strides[1]
    v += b * v_strides[0] + head * v_strides[1]
    row = sequence * N + chunk
    start = chunk * BT
    steps = start + tl.arange(0, BT)
    values = block_v * BV + tl.arange(0, BV)

    product = tl.zeros((BT, BT), DTYPE)  # q kᵀ
    entered = tl.zeros((BT, BV), DTYPE)  # C q
    entered_n = tl.zeros((BT,), DTYPE)  # nᵀ q
    for block_k in range(0, tl.cdiv(K, BK)):
        keys = block_k * BK + tl.arange(0, BK)
        x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
        y = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
        product += tl.dot(x, tl.trans(y), input_precision=PRECISION, out_dtype=DTYPE)
        c = load_rows(states_c + row * V * K, values, V, keys, K, K, DTYPE)
        entered += tl.dot(x, tl.trans(c), input_precision=PRECISION, out_dtype=DTYPE)
        n = tl.load(states_n + row * K + keys, mask=keys < K, other=0.0)
        entered_n += tl.sum(x * n[None, :], 1)

    i, f = load_gates(log_i, log_f, g, start, T, BT)
    m = tl.load(states_m + row + sequence)
    sums, rests, closed = add_up(f)
    weights, decay, scale = read_weights(i, sums, rests, closed, m, BT)
    weights = causal(product * weights, BT)
    y = load_rows(v, steps, T, values, V, v_strides[2], DTYPE)
    read = weigh_values(weights, y, DTYPE, PRECISION) + decay[:, None] * entered
    size = tl.sum(weights, 1) + decay * entered_n
    read = divide(read, size, scale, TINY)

    inside = steps < T
    at = sequence * T + steps
    store_rows(h + sequence * T * V, steps, T, values, V, V, read)
    if block_v == 0:
        tl.store(normalizer + at, size, mask=inside)
        tl.store(read_m + at, scale, mask=inside)
    if GATED:
        o += b * o_strides[0] + head * o_strides[1]
        gate = sigmoid(load_rows(o, steps, T, values, V, o_strides[2], DTYPE))
        output += b * output_strides[0] + head * output_strides[1]
        store_rows(output, steps, T, values, V, output_strides[2], gate * read)


@triton.jit
def division_bwd(
    grad,
    o,
    h,
    normalizer,
    read_m,
    grad_o,
    grad_read,
    grad_normalizer,
    read_products,
    grad_strides,
    o_strides,
    grad_o_strides,
    NH,
    T,
    V: tl.constexpr,
    TINY: tl.constexpr,
    GATED: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Write the gradients of what was read, of the normalizer and of o, from that of the result.

    One program computes BT steps, and BV is at least V. ``read_products`` gets the sum of the
    gradients of the logarithms of all weights of a read, which is q · grad_q.
    """
    blocks = tl.cdiv(T, BT)
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    b, head = sequence // NH, sequence % NH
    steps = (tl.program_id(0) % blocks) * BT + tl.arange(0, BT)
    values = tl.arange(0, BV)
    inside = steps < T
    at = sequence * T + steps
    grad += b * grad_strides[0] + head * grad_strides[1]
    x = load_rows(grad, steps, T, values, V, grad_strides[2], DTYPE)
    y = load_rows(h + sequence * T * V, steps, T, values, V, V, DTYPE)
    if GATED:
        o += b * o_strides[0] + head * o_strides[1]
        before = load_rows(o, steps, T, values, V, o_strides[2], DTYPE)
        x, d_o = gate_bwd(x, y, before)
        grad_o += b * grad_o_strides[0] + head * grad_o_strides[1]
        store_rows(grad_o, steps, T, values, V, grad_o_strides[2], d_o)
    total = tl.sum(x * y, 1)
    size = tl.load(normalizer + at, mask=inside, other=0.0)
    m = tl.load(read_m + at, mask=inside, other=0.0)
    x, grad_size, unbounded = divide_bwd(x, total, size, m, TINY)
    tl.store(grad_normalizer + at, grad_size, mask=inside)
    tl.store(read_products + at, unbounded, mask=inside)
    store_rows(grad_read + sequence * T * V, steps, T, values, V, V, x)
