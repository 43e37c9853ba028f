"""Functions that several kernels share: blocks of memory."""

import triton
import triton.language as tl

__all__ = ["load_rows", "nan_unless_finite", "store_rows"]


@triton.jit
def nan_unless_finite(x):
    """Return x, with NaN in place of infinity: both affect the same later results."""
    return tl.where(tl.abs(x) < float("inf"), x, float("nan"))


@triton.jit
def load_rows(x, steps, T, columns, width, step_stride, DTYPE: tl.constexpr):
    """Return a block of rows (steps) and columns, with zeros outside of (T, width)."""
    at = x + steps.to(tl.int64)[:, None] * step_stride + columns[None, :]
    inside = (steps < T)[:, None] & (columns < width)[None, :]
    return tl.load(at, mask=inside, other=0.0).to(DTYPE)


@triton.jit
def store_rows(x, steps, T, columns, width, step_stride, block):
    """Write a block of rows (steps) and columns that lie in (T, width)."""
    at = x + steps.to(tl.int64)[:, None] * step_stride + columns[None, :]
    inside = (steps < T)[:, None] & (columns < width)[None, :]
    tl.store(at, block.to(x.dtype.element_ty), mask=inside)
