"""The layer norms of the four parts of the pre-activations: q, k, v, and all gates."""

import triton
import triton.language as tl

__all__ = ["norms_bwd", "norms_fwd"]


@triton.jit
def load_of_part(x, part, columns, width):
    """Return the elements of one of four tensors."""
    inside = columns < width
    if part == 0:
        values = tl.load(x[0] + columns, mask=inside, other=0.0)
    elif part == 1:
        values = tl.load(x[1] + columns, mask=inside, other=0.0)
    elif part == 2:
        values = tl.load(x[2] + columns, mask=inside, other=0.0)
    else:
        values = tl.load(x[3] + columns, mask=inside, other=0.0)
    return values


@triton.jit
def normalize(x, is_row, inside, width, EPS: tl.constexpr):
    """Return rows without their mean and divided by their deviation, and 1 / deviation."""
    centered = tl.where(inside, x - (tl.sum(x, 1) / width)[:, None], 0.0)
    # Rows after the last one are 0, and EPS may be.
    variance = tl.where(is_row, tl.sum(centered * centered, 1) / width, 1.0)
    inverse = 1.0 / tl.sqrt(variance + EPS)
    return centered * inverse[:, None], inverse


@triton.jit
def norms_fwd(
    p,
    weights,
    biases,
    output,
    rows,
    H,
    W,
    EPS: tl.constexpr,
    BR: tl.constexpr,
    BW: tl.constexpr,
):
    """Write the normalized p (rows, W), of which one program computes BR rows of a part."""
    part = tl.program_id(1)
    width = tl.where(part == 3, W - 3 * H, H)
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    columns = tl.arange(0, BW)
    inside = (row < rows)[:, None] & (columns < width)[None, :]
    at = row.to(tl.int64)[:, None] * W + part * H + columns[None, :]
    x, _ = normalize(tl.load(p + at, mask=inside, other=0.0), row < rows, inside, width, EPS)
    weight = load_of_part(weights, part, columns, width)
    bias = load_of_part(biases, part, columns, width)
    tl.store(output + at, x * weight[None, :] + bias[None, :], mask=inside)


@triton.jit
def norms_bwd(
    grad,
    p,
    weights,
    grad_p,
    grad_weights,
    grad_biases,
    rows,
    H,
    W,
    EPS: tl.constexpr,
    BR: tl.constexpr,
    BW: tl.constexpr,
):
    """Write the gradient of p, and of weights and biases what each program contributes.

    The latter are (programs, W). One program computes every ``num_programs``-th block of BR rows of
    a part.
    """
    program, part = tl.program_id(0), tl.program_id(1)
    width = tl.where(part == 3, W - 3 * H, H)
    columns = tl.arange(0, BW)
    weight = load_of_part(weights, part, columns, width)
    grad_weight = tl.zeros_like(weight)
    grad_bias = tl.zeros_like(weight)
    for block in range(program, tl.cdiv(rows, BR), tl.num_programs(0)):
        row = block * BR + tl.arange(0, BR)
        inside = (row < rows)[:, None] & (columns < width)[None, :]
        at = row.to(tl.int64)[:, None] * W + part * H + columns[None, :]
        x = tl.load(p + at, mask=inside, other=0.0)
        x, inverse = normalize(x, row < rows, inside, width, EPS)
        y = tl.load(grad + at, mask=inside, other=0.0)
        grad_weight += tl.sum(y * x, 0)
        grad_bias += tl.sum(y, 0)
        y *= weight[None, :]
        mean, slope = tl.sum(y, 1) / width, tl.sum(y * x, 1) / width
        y = (y - mean[:, None] - x * slope[:, None]) * inverse[:, None]
        tl.store(grad_p + at, y, mask=inside)
    to = program.to(tl.int64) * W + part * H + columns
    tl.store(grad_weights + to, grad_weight, mask=columns < width)
    tl.store(grad_biases + to, grad_bias, mask=columns < width)
