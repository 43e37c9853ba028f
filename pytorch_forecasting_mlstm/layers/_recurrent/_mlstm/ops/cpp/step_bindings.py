"""Python bindings of the kernel's single step: tensors to pointers."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .bindings import load_kernel

__all__ = ["NORMS", "StepInputs", "kernel_step", "kernel_step_backward"]

NORMS = 5  # of q, k, v, the gates and the heads

_Addresses = ctypes.c_void_p * NORMS
_Numbers = ctypes.c_double * NORMS


class _StepArgs(ctypes.Structure):
    """``StepArgs`` of step.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "NH", "d")),
        *((name, ctypes.c_void_p) for name in ("p", "c", "n", "next_h", "next_c", "next_n")),
        *((name, _Addresses) for name in ("weight", "bias")),
        ("eps", _Numbers),
        *((name, ctypes.c_void_p) for name in ("grad_next_h", "grad_next_c", "grad_next_n")),
        *((name, ctypes.c_void_p) for name in ("grad_p", "grad_c", "grad_n")),
        *((name, _Addresses) for name in ("grad_weight", "grad_bias")),
    ]


class StepInputs(NamedTuple):
    """What a step reads, all dense.

    Attributes
    ----------
    p, c, n : Tensor
        As ``ops/step.py`` documents them.
    weights, biases : sequence of Tensor or None
        Of the norms of q, k, v, the gates and the heads; None where there is none.
    eps : sequence of float
        Of the same norms.
    """

    p: Tensor
    c: Tensor
    n: Tensor
    weights: Sequence[Tensor | None]
    biases: Sequence[Tensor | None]
    eps: Sequence[float]


def kernel_step(x: StepInputs) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return h, c and n after the step, and whether they are finite."""
    h, c, n = x.n.new_empty(x.n.shape), x.c.new_empty(x.c.shape), x.n.new_empty(x.n.shape)
    finite = _run(_step_args(x, h, c, n), x.p.dtype, backward=False)
    return h, c, n, finite


def kernel_step_backward(
    x: StepInputs, next_c: Tensor, next_n: Tensor, grads: Sequence[Tensor | None]
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor | None], list[Tensor | None]]:
    """Return the gradients of p, c and n, and those of all weights and biases.

    They are computed from the results of the step, and the dense gradients of h, c and n; None is a
    gradient of 0.
    """
    args = _step_args(x, None, next_c, next_n)
    args.grad_next_h, args.grad_next_c, args.grad_next_n = map(_address, grads)
    grad_p, grad_c, grad_n = (y.new_empty(y.shape) for y in (x.p, x.c, x.n))
    args.grad_p, args.grad_c, args.grad_n = map(_address, (grad_p, grad_c, grad_n))
    grad_weights, grad_biases = (
        [None if y is None else y.new_zeros(y.shape) for y in parameters]
        for parameters in (x.weights, x.biases)
    )
    args.grad_weight, args.grad_bias = _addresses(grad_weights), _addresses(grad_biases)
    _run(args, x.p.dtype, backward=True)
    return (grad_p, grad_c, grad_n), grad_weights, grad_biases


def _step_args(x: StepInputs, h: Tensor | None, c: Tensor, n: Tensor) -> _StepArgs:
    (B, H), NH = x.n.shape, x.c.shape[1]
    tensors = map(_address, (x.p, x.c, x.n, h, c, n))
    norms = _addresses(x.weights), _addresses(x.biases), _Numbers(*x.eps)
    return _StepArgs(B, NH, H // NH, *tensors, *norms)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return _Addresses(*map(_address, tensors))


def _run(args: _StepArgs, dtype: torch.dtype, *, backward: bool) -> bool:
    library = load_kernel()
    function = library.step_float if dtype == torch.float32 else library.step_double
    status = function(ctypes.byref(args), backward)
    if status < 0:
        raise MemoryError(f"use_kernel: no memory for a step of {args.NH} heads of {args.d} units.")
    return bool(status)
