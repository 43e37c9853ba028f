"""Tensors to the kernel."""

import ctypes
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._activations import Parts
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._build import build

__all__ = ["HEAD_SIZES", "Gradients", "kernel_backward", "kernel_forward", "load_kernel"]

HEAD_SIZES = (8, 16, 24, 32, 48, 64)

_FEW = 2**16  # numbers in q below which threads cost more than they save


class _Steps(ctypes.Structure):
    """Where a tensor (B, T, width) begins, and how far apart its samples and steps are."""

    _fields_ = [
        ("first", ctypes.c_void_p),
        ("of_sample", ctypes.c_int64),
        ("of_step", ctypes.c_int64),
    ]


_READ = ("q", "k", "v", "o", "i", "f")
_WRITTEN = tuple(f"grad_{name}" for name in _READ)


class _Problem(ctypes.Structure):
    """``Problem`` of recurrence.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "T", "NH", "d")),
        *((name, _Steps) for name in (*_READ, "h")),
        *((name, ctypes.c_void_p) for name in ("c", "n")),
        *((name, _Steps) for name in ("grad_h", *_WRITTEN)),
        *((name, ctypes.c_void_p) for name in ("grad_c", "grad_n")),
    ]


class Gradients(NamedTuple):
    """Of the gated h (B, T, H), and of the last c and n."""

    h: Tensor
    c: Tensor
    n: Tensor


def kernel_forward(x: Parts, h: Tensor, c: Tensor, n: Tensor) -> None:
    """Run the recurrence over parts (B, T, ...), i and f being numbers, not logarithms.

    h (B, T, H) is written, c (B, NH, d, d) and n (B, NH, d), dense, become the last state.
    """
    problem = _problem(x, c)
    problem.h = _steps(h)
    problem.c, problem.n = c.data_ptr(), n.data_ptr()
    _run(problem, c.dtype, back=False)


def kernel_backward(x: Parts, c: Tensor, n: Tensor, grads: Gradients, into: Parts) -> None:
    """Go back, from the same parts and the first c and n.

    The gradients of the parts are written ``into`` (..., those of i and f being of their
    logarithms); those of the last c and n, dense, become those of the first.
    """
    problem = _problem(x, c)
    problem.c, problem.n = c.data_ptr(), n.data_ptr()
    problem.grad_h = _steps(grads.h)
    problem.grad_c, problem.grad_n = grads.c.data_ptr(), grads.n.data_ptr()
    for name in _READ:
        setattr(problem, f"grad_{name}", _steps(getattr(into, name)))
    _run(problem, c.dtype, back=True)


def _problem(x: Parts, c: Tensor) -> _Problem:
    problem = _Problem(B=len(c), T=x.i.shape[1], NH=c.shape[1], d=c.shape[2])
    for name in _READ:
        setattr(problem, name, _steps(getattr(x, name)))
    return problem


def _steps(x: Tensor) -> _Steps:
    return _Steps(x.data_ptr(), x.stride(0), x.stride(1))


def _run(problem: _Problem, dtype: torch.dtype, *, back: bool) -> None:
    """Call the kernel, with samples shared out among threads, or heads where samples are few."""
    library = load_kernel()
    function = library.run_float if dtype == torch.float32 else library.run_double
    B, NH = problem.B, problem.NH
    threads = torch.get_num_threads() if B * problem.T * NH * problem.d > _FEW else 1
    together = NH if B >= 2 * threads or threads == 1 else 1
    if function(ctypes.byref(problem), back, together, threads):
        raise MemoryError(f"mLSTMLayer: no memory for the kernel, {problem.T} steps at a time.")


@cache
def load_kernel() -> ctypes.CDLL:
    """Return the kernel, compiled if need be."""
    library = build()
    for function in (library.run_float, library.run_double):
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int]
        function.restype = ctypes.c_int
    return library
