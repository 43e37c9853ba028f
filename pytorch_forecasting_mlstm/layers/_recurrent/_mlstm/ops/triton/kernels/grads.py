"""The gradients of q, k, v and of the logarithms of the gates, chunk by chunk."""

import triton
import triton.language as tl

from .chunk import causal, weights_at_scale
from .decay import add_up, decays_to_end, load_gates, log_decays
from .rows import load_rows, store_rows

__all__ = ["chunks_bwd"]


@triton.jit
def chunks_bwd(
    q,
    k,
    v,
    log_i,
    log_f,
    read_m,
    read_products,
    states_c,
    states_n,
    states_m,
    grads_c,
    grads_n,
    grad_read,
    grad_normalizer,
    grad_q,
    grad_k,
    grad_v,
    grad_i,
    grad_f,
    q_strides,
    k_strides,
    v_strides,
    grad_q_strides,
    grad_k_strides,
    grad_v_strides,
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
    """Write all gradients of a chunk, from those of its reads and of the state that leaves it."""
    N = tl.cdiv(T, BT)
    g, chunk = tl.program_id(0) // N, tl.program_id(0) % N
    sequence = g.to(tl.int64)
    b, head = sequence // NH, sequence % NH
    q += b * q_strides[0] + head * q_strides[1]
    k += b * k_strides[0] + head * k_strides[1]
    v += b * v_strides[0] + head * v_strides[1]
    grad_q += b * grad_q_strides[0] + head * grad_q_strides[1]
    grad_k += b * grad_k_strides[0] + head * grad_k_strides[1]
    grad_v += b * grad_v_strides[0] + head * grad_v_strides[1]
    grad_read += sequence * T * V
    row = sequence * N + chunk
    states_c += row * V * K
    grads_c += row * V * K
    start = chunk * BT
    steps = start + tl.arange(0, BT)
    inside = steps < T
    at = sequence * T + steps

    i, f = load_gates(log_i, log_f, g, start, T, BT)
    sums, rests, closed = add_up(f)
    m = tl.load(states_m + row + sequence)
    next_m = tl.load(states_m + row + sequence + 1)
    scale = tl.load(read_m + at, mask=inside, other=float("inf"))
    # The weight of each step in the state that leaves the chunk
    in_decay = tl.exp(decays_to_end(i, sums, rests, closed, BT) - next_m)
    carry = tl.exp(log_decays(sums, closed, BT)[1] + m - next_m)

    # Inside the chunk: read = (P ⊙ q kᵀ) v.
    product = tl.zeros((BT, BT), DTYPE)
    for block_k in range(0, tl.cdiv(K, BK)):
        keys = block_k * BK + tl.arange(0, BK)
        x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
        y = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
        product += tl.dot(x, tl.trans(y), input_precision=PRECISION, out_dtype=DTYPE)
    z = tl.load(grad_normalizer + at, mask=inside, other=0.0)
    grad_product = tl.zeros((BT, BT), DTYPE) + z[:, None]
    for block_v in range(0, tl.cdiv(V, BV)):
        values = block_v * BV + tl.arange(0, BV)
        x = load_rows(grad_read, steps, T, values, V, V, DTYPE)
        y = load_rows(v, steps, T, values, V, v_strides[2], DTYPE)
        grad_product += tl.dot(x, tl.trans(y), input_precision=PRECISION, out_dtype=DTYPE)
    # The weights of the steps, and of the state that enters, in each read
    weights, out_decay = weights_at_scale(i, sums, rests, closed, m, scale, BT)
    product = causal(product * weights, BT)
    grad_product = causal(grad_product * weights, BT)

    key_products = tl.zeros((BT,), DTYPE)  # k · grad_k
    through_end = tl.zeros((BT,), DTYPE)  # the part that the state which leaves contributes
    carried = tl.zeros((BV,), DTYPE)  # the state that enters times the gradient of what leaves
    carried_n = tl.zeros((BK,), DTYPE)
    for block_k in range(0, tl.cdiv(K, BK)):
        keys = block_k * BK + tl.arange(0, BK)
        x = load_rows(q, steps, T, keys, K, q_strides[2], DTYPE)
        y = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
        n = tl.load(states_n + row * K + keys, mask=keys < K, other=0.0)
        grad_n = tl.load(grads_n + row * K + keys, mask=keys < K, other=0.0)
        read = z[:, None] * n[None, :]
        stored = tl.zeros((BT, BK), DTYPE) + grad_n[None, :]
        carried_n += n * grad_n
        for block_v in range(0, tl.cdiv(V, BV)):
            values = block_v * BV + tl.arange(0, BV)
            c = load_rows(states_c, values, V, keys, K, K, DTYPE)
            grad_c = load_rows(grads_c, values, V, keys, K, K, DTYPE)
            carried += tl.sum(c * grad_c, 1)
            r = load_rows(grad_read, steps, T, values, V, V, DTYPE)
            read += tl.dot(r, c, input_precision=PRECISION, out_dtype=DTYPE)
            r = load_rows(v, steps, T, values, V, v_strides[2], DTYPE)
            stored += tl.dot(r, grad_c, input_precision=PRECISION, out_dtype=DTYPE)
        read *= out_decay[:, None]
        read += tl.dot(grad_product, y, input_precision=PRECISION, out_dtype=DTYPE)
        store_rows(grad_q, steps, T, keys, K, grad_q_strides[2], read)
        stored *= in_decay[:, None]
        through_end += tl.sum(y * stored, 1)
        inner = tl.trans(grad_product)
        stored += tl.dot(inner, x, input_precision=PRECISION, out_dtype=DTYPE)
        key_products += tl.sum(y * stored, 1)
        store_rows(grad_k, steps, T, keys, K, grad_k_strides[2], stored * K_SCALE)

    for block_v in range(0, tl.cdiv(V, BV)):
        values = block_v * BV + tl.arange(0, BV)
        stored = tl.zeros((BT, BV), DTYPE)
        for block_k in range(0, tl.cdiv(K, BK)):
            keys = block_k * BK + tl.arange(0, BK)
            y = load_rows(k, steps, T, keys, K, k_strides[2], DTYPE) * K_SCALE
            grad_c = load_rows(grads_c, values, V, keys, K, K, DTYPE)
            stored += tl.dot(y, tl.trans(grad_c), input_precision=PRECISION, out_dtype=DTYPE)
        stored *= in_decay[:, None]
        x = load_rows(grad_read, steps, T, values, V, V, DTYPE)
        stored += tl.dot(tl.trans(product), x, input_precision=PRECISION, out_dtype=DTYPE)
        store_rows(grad_v, steps, T, values, V, grad_v_strides[2], stored)

    # The gates, from the gradient of the logarithm of each weight.
    outside = carry * (tl.sum(carried, 0) + tl.sum(carried_n, 0)) + tl.sum(through_end, 0)
    x = tl.load(read_products + at, mask=inside, other=0.0)
    tl.store(grad_i + at, key_products, mask=inside)
    sums = tl.cumsum(x - key_products, 0, reverse=True) + outside
    tl.store(grad_f + at, sums, mask=inside)
