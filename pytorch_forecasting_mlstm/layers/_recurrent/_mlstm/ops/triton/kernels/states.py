"""States that enter chunks, and gradients of states that leave them.

Each chunk contributes to the state that leaves it; all chunks are computed at the same time. Then
the contributions are added up from chunk to chunk, each block of elements in one program, and the
sums replace them. This takes one multiplication and addition for each element and chunk.
"""

import triton
import triton.language as tl

from .chunk import larger_scale, largest
from .decay import add_up, decays_to_end, load_gates, log_decays
from .rows import load_rows, nan_unless_finite, store_rows

__all__ = ["contributions_bwd", "contributions_fwd", "states_bwd", "states_fwd"]


@triton.jit
def contributions_fwd(
    k,
    v,
    log_i,
    log_f,
    states_c,
    states_n,
    scales,
    sums_f,
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
    """Write what each chunk adds to c and n, the scale of that, and the sum of the forget gates."""
    N = tl.cdiv(T, BT)
    g, chunk = tl.program_id(0) // N, tl.program_id(0) % N
    block_k, block_v = tl.program_id(1), tl.program_id(2)
    sequence = g.to(tl.int64)
    b, head = sequence // NH, sequence % NH
    k += b * k_strides[0] + head * k_strides[1]
    v += b * v_strides[0] + head * v_strides[1]
    keys = block_k * BK + tl.arange(0, BK)
    values = block_v * BV + tl.arange(0, BV)
    row = sequence * N + chunk
    start = chunk * BT
    steps = start + tl.arange(0, BT)
    x = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
    y = load_rows(v, steps, T, values, V, v_strides[2], DTYPE)
    i, f = load_gates(log_i, log_f, g, start, T, BT)
    sums, rests, closed = add_up(f)
    to_end = decays_to_end(i, sums, rests, closed, BT)
    top = largest(to_end)
    scale = larger_scale(top, top, DTYPE)
    x *= tl.exp(to_end - scale)[:, None]
    c = tl.dot(tl.trans(y), x, input_precision=PRECISION, out_dtype=DTYPE)
    store_rows(states_c + row * V * K, values, V, keys, K, K, c)
    if block_v == 0:
        tl.store(states_n + row * K + keys, tl.sum(x, 0), mask=keys < K)
        if block_k == 0:
            tl.store(scales + row, scale)
            tl.store(sums_f + row, log_decays(sums, closed, BT)[1])


@triton.jit
def states_fwd(
    scales,
    sums_f,
    first_c,
    first_n,
    first_m,
    states_c,
    states_n,
    states_m,
    last_c,
    last_n,
    last_m,
    N,
    K: tl.constexpr,
    V: tl.constexpr,
    BE: tl.constexpr,
    BK: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Replace contributions by the state that enters each chunk; write the last state.

    One program computes BE elements of c, and the first one of a sequence n, too. BK is at least K.
    ``states_m`` (G, N + 1) holds the scale of the last state, too.
    """
    sequence, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    elements, keys = block * BE + tl.arange(0, BE), tl.arange(0, BK)
    in_c, in_n = elements < V * K, (keys < K) & (block == 0)
    states_c += sequence * N * V * K + elements
    states_n += sequence * N * K + keys
    c = nan_unless_finite(tl.load(first_c + sequence * V * K + elements, mask=in_c, other=0.0))
    n = nan_unless_finite(tl.load(first_n + sequence * K + keys, mask=in_n, other=0.0))
    m = tl.load(first_m + sequence)
    # What the next chunk adds is loaded before what this one adds is used.
    next_c = tl.load(states_c, mask=in_c, other=0.0)
    next_n = tl.load(states_n, mask=in_n, other=0.0)
    next_scale, next_sum = tl.load(scales + sequence * N), tl.load(sums_f + sequence * N)
    for chunk in range(0, N):
        added_c, added_n, scale, sum_f = next_c, next_n, next_scale, next_sum
        at = tl.minimum(tl.full((), 1, tl.int64) + chunk, N - 1)
        next_c = tl.load(states_c + at * V * K, mask=in_c, other=0.0)
        next_n = tl.load(states_n + at * K, mask=in_n, other=0.0)
        next_scale = tl.load(scales + sequence * N + at)
        next_sum = tl.load(sums_f + sequence * N + at)
        row = tl.full((), 0, tl.int64) + chunk
        tl.store(states_c + row * V * K, c, mask=in_c)
        tl.store(states_n + row * K, n, mask=in_n)
        if block == 0:
            tl.store(states_m + sequence * (N + 1) + row, m)
        decayed_m = sum_f + m
        m = larger_scale(decayed_m, scale, DTYPE)
        carry, gain = tl.exp(decayed_m - m), tl.exp(scale - m)
        c = nan_unless_finite(c * carry + added_c * gain)
        n = nan_unless_finite(n * carry + added_n * gain)
    tl.store(last_c + sequence * V * K + elements, c, mask=in_c)
    tl.store(last_n + sequence * K + keys, n, mask=in_n)
    if block == 0:
        tl.store(states_m + sequence * (N + 1) + N, m)
        tl.store(last_m + sequence, m)


@triton.jit
def contributions_bwd(
    q,
    log_i,
    log_f,
    read_m,
    states_m,
    grad_read,
    grad_normalizer,
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
    """Write what the reads of each chunk add to the gradient of the state that enters it."""
    N = tl.cdiv(T, BT)
    g, chunk = tl.program_id(0) // N, tl.program_id(0) % N
    block_k, block_v = tl.program_id(1), tl.program_id(2)
    sequence = g.to(tl.int64)
    q += (sequence // NH) * q_strides[0] + (sequence % NH) * q_strides[1]
    keys = block_k * BK + tl.arange(0, BK)
    values = block_v * BV + tl.arange(0, BV)
    row = sequence * N + chunk
    start = chunk * BT
    steps = start + tl.arange(0, BT)
    inside = steps < T
    at = sequence * T + steps
    x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
    y = load_rows(grad_read + sequence * T * V, steps, T, values, V, V, DTYPE)
    _, f = load_gates(log_i, log_f, g, start, T, BT)
    sums, _, closed = add_up(f)
    m = tl.load(states_m + row + sequence)
    scale = tl.load(read_m + at, mask=inside, other=float("inf"))
    x *= tl.exp(log_decays(sums, closed, BT)[0] + m - scale)[:, None]
    c = tl.dot(tl.trans(y), x, input_precision=PRECISION, out_dtype=DTYPE)
    store_rows(grads_c + row * V * K, values, V, keys, K, K, c)
    if block_v == 0:
        z = tl.load(grad_normalizer + at, mask=inside, other=0.0)
        tl.store(grads_n + row * K + keys, tl.sum(x * z[:, None], 0), mask=keys < K)


@triton.jit
def states_bwd(
    sums_f,
    states_m,
    grad_c,
    grad_n,
    grads_c,
    grads_n,
    N,
    K: tl.constexpr,
    V: tl.constexpr,
    BE: tl.constexpr,
    BK: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Replace contributions by the gradient of the state that leaves each chunk.

    grad_c and grad_n hold the gradients of the last state, which those of the first one replace.
    The work is divided as in ``states_fwd``.
    """
    sequence, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    elements, keys = block * BE + tl.arange(0, BE), tl.arange(0, BK)
    in_c, in_n = elements < V * K, (keys < K) & (block == 0)
    grad_c += sequence * V * K + elements
    grad_n += sequence * K + keys
    grads_c += sequence * N * V * K + elements
    grads_n += sequence * N * K + keys
    c = tl.load(grad_c, mask=in_c, other=0.0)
    n = tl.load(grad_n, mask=in_n, other=0.0)
    at = tl.full((), 0, tl.int64) + (N - 1)  # N may be the constant 1
    states_m += sequence * (N + 1)
    m = tl.load(states_m + N)
    # What the chunk before adds is loaded before what this one adds is used.
    next_c = tl.load(grads_c + at * V * K, mask=in_c, other=0.0)
    next_n = tl.load(grads_n + at * K, mask=in_n, other=0.0)
    next_m, next_sum = tl.load(states_m + at), tl.load(sums_f + sequence * N + at)
    for number in range(0, N):
        added_c, added_n, entered_m, sum_f = next_c, next_n, next_m, next_sum
        row = tl.full((), 0, tl.int64) + (N - 1 - number)
        at = tl.maximum(row - 1, 0)
        next_c = tl.load(grads_c + at * V * K, mask=in_c, other=0.0)
        next_n = tl.load(grads_n + at * K, mask=in_n, other=0.0)
        next_m, next_sum = tl.load(states_m + at), tl.load(sums_f + sequence * N + at)
        tl.store(grads_c + row * V * K, c, mask=in_c)
        tl.store(grads_n + row * K, n, mask=in_n)
        carry = tl.exp(sum_f + entered_m - m)
        c = c * carry + added_c
        n = n * carry + added_n
        m = entered_m
    tl.store(grad_c, c, mask=in_c)
    tl.store(grad_n, n, mask=in_n)
