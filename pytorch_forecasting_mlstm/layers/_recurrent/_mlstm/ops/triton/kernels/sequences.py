"""A whole sequence in one program, chunk after chunk, with the state in registers.

The programs of the other kernels compute chunks at the same time, and exchange states in memory.
Where there are enough sequences to keep a device busy, these need fewer launches, and read and
write every tensor once. One block covers K, another one V.
"""

import triton
import triton.language as tl

from .chunk import (
    causal,
    divide,
    divide_bwd,
    gate_bwd,
    larger_scale,
    largest,
    read_weights,
    sigmoid,
    weigh_values,
    weights_at_scale,
)
from .decay import add_up, decays_to_end, load_gates, log_decays
from .rows import load_rows, nan_unless_finite, store_rows

__all__ = ["sequences_bwd", "sequences_fwd"]


@triton.jit
def sequences_fwd(
    q,
    k,
    v,
    o,
    log_i,
    log_f,
    first_c,
    first_n,
    first_m,
    states_c,
    states_n,
    states_m,
    last_c,
    last_n,
    last_m,
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
    """Write what ``states_fwd`` and ``reads_fwd`` do."""
    g = tl.program_id(0)
    sequence = g.to(tl.int64)
    b, head = sequence // NH, sequence % NH
    q += b * q_strides[0] + head * q_strides[1]
    k += b * k_strides[0] + head * k_strides[1]
    v += b * v_strides[0] + head * v_strides[1]
    o += b * o_strides[0] + head * o_strides[1]
    output += b * output_strides[0] + head * output_strides[1]
    h += sequence * T * V
    keys, values = tl.arange(0, BK), tl.arange(0, BV)
    in_n, in_c = keys < K, (values < V)[:, None] & (keys < K)[None, :]
    at_c = values[:, None] * K + keys[None, :]
    N = tl.cdiv(T, BT)

    c = tl.load(first_c + sequence * V * K + at_c, mask=in_c, other=0.0)
    n = tl.load(first_n + sequence * K + keys, mask=in_n, other=0.0)
    m = tl.load(first_m + sequence)
    c, n = nan_unless_finite(c), nan_unless_finite(n)
    for chunk in range(0, N):
        row = sequence * N + chunk
        tl.store(states_c + row * V * K + at_c, c, mask=in_c)
        tl.store(states_n + row * K + keys, n, mask=in_n)
        tl.store(states_m + row + sequence, m)
        start = chunk * BT
        steps = start + tl.arange(0, BT)
        inside = steps < T
        at = sequence * T + steps
        x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
        y = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
        z = load_rows(v, steps, T, values, V, v_strides[2], DTYPE)
        i, f = load_gates(log_i, log_f, g, start, T, BT)
        sums, rests, closed = add_up(f)

        product = tl.dot(x, tl.trans(y), input_precision=PRECISION, out_dtype=DTYPE)
        weights, decay, scale = read_weights(i, sums, rests, closed, m, BT)
        weights = causal(product * weights, BT)
        entered = tl.dot(x, tl.trans(c), input_precision=PRECISION, out_dtype=DTYPE)
        read = weigh_values(weights, z, DTYPE, PRECISION) + decay[:, None] * entered
        size = tl.sum(weights, 1) + decay * tl.sum(x * n[None, :], 1)
        read = divide(read, size, scale, TINY)
        store_rows(h, steps, T, values, V, V, read)
        tl.store(normalizer + at, size, mask=inside)
        tl.store(read_m + at, scale, mask=inside)
        if GATED:
            gate = sigmoid(load_rows(o, steps, T, values, V, o_strides[2], DTYPE))
            store_rows(output, steps, T, values, V, output_strides[2], gate * read)

        to_end = decays_to_end(i, sums, rests, closed, BT)
        decayed_m = log_decays(sums, closed, BT)[1] + m
        next_m = larger_scale(decayed_m, largest(to_end), DTYPE)
        carry = tl.exp(decayed_m - next_m)
        y *= tl.exp(to_end - next_m)[:, None]
        c = c * carry + tl.dot(tl.trans(z), y, input_precision=PRECISION, out_dtype=DTYPE)
        n = n * carry + tl.sum(y, 0)
        c, n = nan_unless_finite(c), nan_unless_finite(n)
        m = next_m
    tl.store(states_m + sequence * (N + 1) + N, m)
    tl.store(last_c + sequence * V * K + at_c, c, mask=in_c)
    tl.store(last_n + sequence * K + keys, n, mask=in_n)
    tl.store(last_m + sequence, m)


@triton.jit
def sequences_bwd(
    q,
    k,
    v,
    o,
    log_i,
    log_f,
    h,
    normalizer,
    read_m,
    states_c,
    states_n,
    states_m,
    grad,
    last_grad_c,
    last_grad_n,
    grad_q,
    grad_k,
    grad_v,
    grad_o,
    grad_i,
    grad_f,
    grad_c,
    grad_n,
    grad_m,
    q_strides,
    k_strides,
    v_strides,
    o_strides,
    grad_strides,
    grad_q_strides,
    grad_k_strides,
    grad_v_strides,
    grad_o_strides,
    NH,
    T,
    K: tl.constexpr,
    V: tl.constexpr,
    K_SCALE: tl.constexpr,
    TINY: tl.constexpr,
    GATED: tl.constexpr,
    FROM_STATE: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write all gradients of a sequence, from those of h and, if FROM_STATE, of the last state.

    ``grad`` is the gradient of h, or that of the gated h if GATED.
    """
    g = tl.program_id(0)
    sequence = g.to(tl.int64)
    b, head = sequence // NH, sequence % NH
    q += b * q_strides[0] + head * q_strides[1]
    k += b * k_strides[0] + head * k_strides[1]
    v += b * v_strides[0] + head * v_strides[1]
    o += b * o_strides[0] + head * o_strides[1]
    grad += b * grad_strides[0] + head * grad_strides[1]
    grad_q += b * grad_q_strides[0] + head * grad_q_strides[1]
    grad_k += b * grad_k_strides[0] + head * grad_k_strides[1]
    grad_v += b * grad_v_strides[0] + head * grad_v_strides[1]
    grad_o += b * grad_o_strides[0] + head * grad_o_strides[1]
    h += sequence * T * V
    keys, values = tl.arange(0, BK), tl.arange(0, BV)
    in_n, in_c = keys < K, (values < V)[:, None] & (keys < K)[None, :]
    at_c = values[:, None] * K + keys[None, :]
    N = tl.cdiv(T, BT)

    # The gradient of the state that leaves a chunk, and the scale of that state.
    d_c = tl.zeros((BV, BK), DTYPE)
    d_n = tl.zeros((BK,), DTYPE)
    if FROM_STATE:
        d_c += tl.load(last_grad_c + sequence * V * K + at_c, mask=in_c, other=0.0)
        d_n += tl.load(last_grad_n + sequence * K + keys, mask=in_n, other=0.0)
    next_m = tl.load(states_m + sequence * (N + 1) + N)
    for number in range(0, N):
        chunk = N - 1 - number
        row = sequence * N + chunk
        start = chunk * BT
        steps = start + tl.arange(0, BT)
        inside = steps < T
        at = sequence * T + steps
        c = tl.load(states_c + row * V * K + at_c, mask=in_c, other=0.0)
        n = tl.load(states_n + row * K + keys, mask=in_n, other=0.0)
        m = tl.load(states_m + row + sequence)
        x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
        y = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
        z = load_rows(v, steps, T, values, V, v_strides[2], DTYPE)

        d_h = load_rows(grad, steps, T, values, V, grad_strides[2], DTYPE)
        read = load_rows(h, steps, T, values, V, V, DTYPE)
        if GATED:
            before = load_rows(o, steps, T, values, V, o_strides[2], DTYPE)
            d_h, d_o = gate_bwd(d_h, read, before)
            store_rows(grad_o, steps, T, values, V, grad_o_strides[2], d_o)
        size = tl.load(normalizer + at, mask=inside, other=0.0)
        scale = tl.load(read_m + at, mask=inside, other=0.0)
        r, s, read_products = divide_bwd(d_h, tl.sum(d_h * read, 1), size, scale, TINY)

        i, f = load_gates(log_i, log_f, g, start, T, BT)
        sums, rests, closed = add_up(f)
        # A read after the last step has no weights.
        scale = tl.where(inside, scale, float("inf"))
        weights, out_decay = weights_at_scale(i, sums, rests, closed, m, scale, BT)
        in_decay = tl.exp(decays_to_end(i, sums, rests, closed, BT) - next_m)
        carry = tl.exp(log_decays(sums, closed, BT)[1] + m - next_m)

        product = tl.dot(x, tl.trans(y), input_precision=PRECISION, out_dtype=DTYPE)
        product = causal(product * weights, BT)
        d_product = tl.dot(r, tl.trans(z), input_precision=PRECISION, out_dtype=DTYPE)
        d_product = causal((d_product + s[:, None]) * weights, BT)

        d_q = tl.dot(r, c, input_precision=PRECISION, out_dtype=DTYPE) + s[:, None] * n[None, :]
        d_q *= out_decay[:, None]
        d_q += tl.dot(d_product, y, input_precision=PRECISION, out_dtype=DTYPE)
        store_rows(grad_q, steps, T, keys, K, grad_q_strides[2], d_q)

        d_k = tl.dot(z, d_c, input_precision=PRECISION, out_dtype=DTYPE) + d_n[None, :]
        d_k *= in_decay[:, None]
        outside = carry * (tl.sum(tl.sum(c * d_c, 1), 0) + tl.sum(n * d_n, 0))
        outside += tl.sum(tl.sum(y * d_k, 1), 0)
        d_k += tl.dot(tl.trans(d_product), x, input_precision=PRECISION, out_dtype=DTYPE)
        store_rows(grad_k, steps, T, keys, K, grad_k_strides[2], d_k * K_SCALE)

        d_v = tl.dot(y, tl.trans(d_c), input_precision=PRECISION, out_dtype=DTYPE)
        d_v *= in_decay[:, None]
        d_v += tl.dot(tl.trans(product), r, input_precision=PRECISION, out_dtype=DTYPE)
        store_rows(grad_v, steps, T, values, V, grad_v_strides[2], d_v)

        # The gates, from the gradient of the logarithm of each weight.
        key_products = tl.sum(y * d_k, 1)
        tl.store(grad_i + at, key_products, mask=inside)
        sums = tl.cumsum(read_products - key_products, 0, reverse=True) + outside
        tl.store(grad_f + at, sums, mask=inside)

        x *= out_decay[:, None]
        d_c = d_c * carry + tl.dot(tl.trans(r), x, input_precision=PRECISION, out_dtype=DTYPE)
        d_n = d_n * carry + tl.sum(x * s[:, None], 0)
        next_m = m
    tl.store(grad_c + sequence * V * K + at_c, d_c, mask=in_c)
    tl.store(grad_n + sequence * K + keys, d_n, mask=in_n)
    # h does not depend on m, which scales the states.
    c = tl.load(states_c + sequence * N * V * K + at_c, mask=in_c, other=0.0)
    n = tl.load(states_n + sequence * N * K + keys, mask=in_n, other=0.0)
    tl.store(grad_m + sequence, tl.sum(tl.sum(c * d_c, 1), 0) + tl.sum(n * d_n, 0))
