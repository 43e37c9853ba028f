"""Python bindings of the kernel's single step: tensors to pointers."""

import ctypes
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .bindings import load_kernel

__all__ = ["NormParams", "StepInputs", "kernel_step", "kernel_step_backward"]

_NORMS = ("q", "k", "v", "gates", "heads")
_FIRST_STATE, _LAST_STATE = ("p", "c", "n"), ("next_h", "next_c", "next_n")


def _fields(prefix: str, names: Iterable[str], kind: type = ctypes.c_void_p) -> list:
    return [(prefix + name, kind) for name in names]


class _StepArgs(ctypes.Structure):
    """``StepArgs`` of step.h. All fields are numbers, since nested ones take longer to fill."""

    _fields_ = [
        *_fields("", ("B", "NH", "d"), ctypes.c_int64),
        *_fields("", (*_FIRST_STATE, *_LAST_STATE)),
        *_fields("weight_", _NORMS),
        *_fields("bias_", _NORMS),
        *_fields("eps_", _NORMS, ctypes.c_double),
        *_fields("grad_", (*_LAST_STATE, *_FIRST_STATE)),
        *_fields("grad_weight_", _NORMS),
        *_fields("grad_bias_", _NORMS),
    ]


class NormParams(NamedTuple):
    """Parameters of the norms of q, k, v, all gates, and the heads; None where there is none."""

    weights: Sequence[Tensor | None]
    biases: Sequence[Tensor | None]
    eps: Sequence[float]


class StepInputs(NamedTuple):
    """What a step reads, all dense: see ``ops/step.py``."""

    p: Tensor
    c: Tensor
    n: Tensor
    norms: NormParams


def kernel_step(x: StepInputs) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return h, c and n after the step, and whether they are finite."""
    results = torch.empty_like(x.n), torch.empty_like(x.c), torch.empty_like(x.n)
    finite = _run(x, results)
    return *results, finite


def kernel_step_backward(
    x: StepInputs, next_c: Tensor, next_n: Tensor, grads: Sequence[Tensor | None]
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]:
    """Return the gradients of p, c and n, of all weights, and of all biases.

    They are computed from the results of the step, and the dense gradients of h, c and n; None is a
    gradient of 0.
    """
    inputs = [torch.empty_like(y) for y in x[:3]]
    weights, biases = (
        [None if y is None else torch.zeros_like(y) for y in parameters]
        for parameters in x.norms[:2]
    )
    _run(x, (None, next_c, next_n), *grads, *inputs, *weights, *biases)
    return inputs, weights, biases


def _run(x: StepInputs, results: Sequence[Tensor | None], *grads: Tensor | None) -> bool:
    """Call the kernel; with gradients it runs the backward pass."""
    p, c, n, (weights, biases, eps) = x
    (B, H), NH, is_float32 = n.shape, c.shape[1], p.dtype == torch.float32
    tensors = (p, c, n, *results, *weights, *biases)
    addresses, grad_addresses = (
        [None if y is None else y.data_ptr() for y in some] for some in (tensors, grads)
    )
    args = _StepArgs(B, NH, H // NH, *addresses, *eps, *grad_addresses)
    library = load_kernel()
    function = library.step_float if is_float32 else library.step_double
    status = function(ctypes.byref(args), bool(grads))
    if status < 0:
        raise MemoryError(f"use_kernel: no memory for a step of {NH} heads of {H // NH} units.")
    return status == 1
