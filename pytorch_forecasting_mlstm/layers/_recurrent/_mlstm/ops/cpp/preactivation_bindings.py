"""Python bindings of the kernel for what surrounds the recurrence: layer norms and gates."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..layer_norm import LayerNormParams
from .bindings import MIN_PARALLEL_GATES, NormPointers, StridedTensor, load_kernel, strided

__all__ = ["OpenedGates", "RowNorms", "join_norms", "open_gates", "preactivations_backward"]

_ROWS_PER_SLICE, _MAX_SLICES = 256, 64  # threads take slices


class _PreactivationArgs(ctypes.Structure):
    """``PreactivationArgs`` of kernel_args.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "T", "NH", "H")),
        ("eps", ctypes.c_double),
        ("p", StridedTensor),
        ("norms", NormPointers),
        *((name, ctypes.c_void_p) for name in ("padding", "i", "f")),
        ("grad_p", StridedTensor),
        ("grad_affine", ctypes.c_void_p),
        ("slices", ctypes.c_int64),
    ]


class RowNorms(NamedTuple):
    """The layer norms of pre-activations (B, T, W), as the kernel reads them.

    Attributes
    ----------
    weight, bias : Tensor
        Of all parts, (W).
    eps : float
        Added to variances.
    moments : Tensor
        Mean and inverse standard deviation of each part, (B, T, 4, 2).
    """

    weight: Tensor
    bias: Tensor
    eps: float
    moments: Tensor

    def pointers(self) -> NormPointers:
        """Return the addresses."""
        moments = strided(self.moments)
        return NormPointers(self.weight.data_ptr(), self.bias.data_ptr(), moments)


class OpenedGates(NamedTuple):
    """i and f (B, T, NH); where f is above a half, f - 1 takes its place: see RecurrenceInputs."""

    i: Tensor
    f: Tensor


def join_norms(p: Tensor, norms: LayerNormParams) -> RowNorms:
    """Join the parameters of the norms, and make room for the moments of p."""
    weight, bias = torch.cat(list(norms.weights)), torch.cat(list(norms.biases))
    return RowNorms(weight, bias, norms.eps, p.new_empty(*p.shape[:2], 4, 2))


def open_gates(p: Tensor, norms: RowNorms | None, padding: Tensor | None, NH: int) -> OpenedGates:
    """Find the moments of the parts of p (B, T, W), and open the gates.

    At padding, (B, T, 1), the gates leave the state unchanged.
    """
    i, f = p.new_empty(*p.shape[:2], NH), p.new_empty(*p.shape[:2], NH)
    args, slices = _arguments(p, norms, padding, NH)
    args.i, args.f, args.slices = i.data_ptr(), f.data_ptr(), slices
    _run(args, p, backward=False)
    return OpenedGates(i, f)


def preactivations_backward(
    grad_p: Tensor, p: Tensor, norms: RowNorms | None, padding: Tensor | None, NH: int
) -> Sequence[Tensor]:
    """Replace gradients of normalized q, k, v and o, and of log i and log f, by those of p.

    Returns the gradients of weight and bias, (2, W), or nothing without norms. ``norms`` has the
    moments that ``open_gates`` has found.
    """
    args, slices = _arguments(p, norms, padding, NH)
    args.grad_p, args.slices = strided(grad_p), slices
    sums = torch.empty(0 if norms is None else slices, 2, p.shape[-1], dtype=torch.float64)
    args.grad_affine = sums.data_ptr()
    _run(args, p, backward=True)
    return () if norms is None else sums.sum(0).to(p.dtype).unbind()


def _arguments(
    p: Tensor, norms: RowNorms | None, padding: Tensor | None, NH: int
) -> tuple[_PreactivationArgs, int]:
    B, T, W = p.shape
    args = _PreactivationArgs(B=B, T=T, NH=NH, H=(W - 2 * NH) // 4, p=strided(p))
    if norms is not None:
        args.norms, args.eps = norms.pointers(), norms.eps
    if padding is not None:
        args.padding = padding.data_ptr()
    return args, max(1, min(B * T // _ROWS_PER_SLICE, _MAX_SLICES))


def _run(args: _PreactivationArgs, p: Tensor, *, backward: bool) -> None:
    library = load_kernel()
    is_float32 = p.dtype == torch.float32
    function = library.preactivations_float if is_float32 else library.preactivations_double
    threads = torch.get_num_threads() if args.B * args.T * args.NH > MIN_PARALLEL_GATES else 1
    if function(ctypes.byref(args), backward, threads):
        raise MemoryError(f"use_kernel: no memory for the gates of {args.NH} heads.")
