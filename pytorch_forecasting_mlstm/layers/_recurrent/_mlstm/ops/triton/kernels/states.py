"""Passes over the chunks in order, and in reverse order: states, and gradients of states."""

import triton
import triton.language as tl

from .decay import LOG_EMPTY, decays_to_end, load_gates, load_rows, nan_unless_finite

__all__ = ["states_bwd", "states_fwd"]


@triton.jit
def states_fwd(
    k,
    v,
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
    k_strides,
    v_strides,
    NH,
    T,
    K: tl.constexpr,
    V: tl.constexpr,
    K_SCALE: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the state that enters each chunk, and the last one: one block of c per program.

    ``states_m`` (G, N + 1) holds the scale of the last state, too.
    """
    g, block_k, block_v = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = g.to(tl.int64)
    b, h = sequence // NH, sequence % NH
    k += b * k_strides[0] + h * k_strides[1]
    v += b * v_strides[0] + h * v_strides[1]
    keys = block_k * BK + tl.arange(0, BK)
    values = block_v * BV + tl.arange(0, BV)
    in_n, in_c = keys < K, (values < V)[:, None] & (keys < K)[None, :]
    at_c = values[:, None] * K + keys[None, :]
    N = tl.cdiv(T, BT)

    c = tl.load(first_c + sequence * V * K + at_c, mask=in_c, other=0.0)
    n = tl.load(first_n + sequence * K + keys, mask=in_n, other=0.0)
    m = tl.load(first_m + sequence)
    c, n = nan_unless_finite(c), nan_unless_finite(n)
    empty_m = tl.full((), LOG_EMPTY, DTYPE)  # a bare number would be rounded to float32
    for chunk in range(0, N):
        row = sequence * N + chunk
        tl.store(states_c + row * V * K + at_c, c, mask=in_c)
        if block_v == 0:
            tl.store(states_n + row * K + keys, n, mask=in_n)
            if block_k == 0:
                tl.store(states_m + row + sequence, m)
        start = chunk * BT
        steps = start + tl.arange(0, BT)
        _, f = load_gates(log_i, log_f, g, start, T, BT)
        weights, top = decays_to_end(log_i, log_f, g, start, T, BT)
        decayed_m = tl.sum(f, 0) + m
        # Maxima may drop a NaN, which this sum does not.
        mark = tl.sum(tl.where(weights < float("inf"), 0.0, float("nan")), 0)
        mark += tl.where(decayed_m < float("inf"), 0.0, float("nan"))
        next_m = tl.maximum(tl.maximum(decayed_m, top), empty_m) + mark
        carry = tl.exp(decayed_m - next_m)
        # The factor of k is applied here as in the other kernels, so that all round alike.
        x = nan_unless_finite(load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE)
        x *= tl.exp(weights - next_m)[:, None]
        y = nan_unless_finite(load_rows(v, steps, T, values, V, v_strides[2], DTYPE))
        c = c * carry + tl.dot(tl.trans(y), x, input_precision=PRECISION, out_dtype=DTYPE)
        n = n * carry + tl.sum(x, 0)
        m = next_m
    tl.store(last_c + sequence * V * K + at_c, c, mask=in_c)
    if block_v == 0:
        tl.store(last_n + sequence * K + keys, n, mask=in_n)
        if block_k == 0:
            tl.store(states_m + sequence * (N + 1) + N, m)
            tl.store(last_m + sequence, m)


@triton.jit
def states_bwd(
    q,
    log_i,
    log_f,
    read_m,
    states_m,
    grad_read,
    grad_normalizer,
    grad_c,
    grad_n,
    grads_c,
    grads_n,
    q_strides,
    NH,
    T,
    K: tl.constexpr,
    V: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient of the state that leaves each chunk.

    grad_c and grad_n hold the gradients of the last state, which those of the first one replace.
    """
    g, block_k, block_v = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = g.to(tl.int64)
    q += (sequence // NH) * q_strides[0] + (sequence % NH) * q_strides[1]
    keys = block_k * BK + tl.arange(0, BK)
    values = block_v * BV + tl.arange(0, BV)
    in_n, in_c = keys < K, (values < V)[:, None] & (keys < K)[None, :]
    at_c = values[:, None] * K + keys[None, :]
    N = tl.cdiv(T, BT)

    c = tl.load(grad_c + sequence * V * K + at_c, mask=in_c, other=0.0)
    n = tl.load(grad_n + sequence * K + keys, mask=in_n, other=0.0)
    next_m = tl.load(states_m + sequence * (N + 1) + N)
    for number in range(0, N):
        chunk = N - 1 - number
        row = sequence * N + chunk
        tl.store(grads_c + row * V * K + at_c, c, mask=in_c)
        if block_v == 0:
            tl.store(grads_n + row * K + keys, n, mask=in_n)
        start = chunk * BT
        steps = start + tl.arange(0, BT)
        inside = steps < T
        at = sequence * T + steps
        _, f = load_gates(log_i, log_f, g, start, T, BT)
        m = tl.load(states_m + row + sequence)
        carry = tl.exp(tl.sum(f, 0) + m - next_m)
        scale = tl.load(read_m + at, mask=inside, other=float("inf"))
        x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
        x *= tl.exp(tl.cumsum(f, 0) + m - scale)[:, None]
        y = load_rows(grad_read + sequence * T * V, steps, T, values, V, V, DTYPE)
        c = c * carry + tl.dot(tl.trans(y), x, input_precision=PRECISION, out_dtype=DTYPE)
        z = tl.load(grad_normalizer + at, mask=inside, other=0.0)
        n = n * carry + tl.sum(x * z[:, None], 0)
        next_m = m
    tl.store(grad_c + sequence * V * K + at_c, c, mask=in_c)
    # Another block of values may read this n after it was replaced, but does not use what it read.
    if block_v == 0:
        tl.store(grad_n + sequence * K + keys, n, mask=in_n)
