"""Python bindings of the kernel: tensors to pointers and strides."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from ...preactivations import Projections
from .library import build_library

__all__ = [
    "HEAD_SIZES",
    "MIN_PARALLEL",
    "MIN_PARALLEL_GATES",
    "NormPointers",
    "RecurrenceGrads",
    "RecurrenceInputs",
    "StridedTensor",
    "bind_kernel",
    "kernel_backward",
    "kernel_forward",
    "load_kernel",
    "stabilize",
    "strided",
]

HEAD_SIZES = (8, 16, 24, 32, 48, 64)

# Threads pay off for tensors with more elements than this.
MIN_PARALLEL = 2**16  # in q
MIN_PARALLEL_GATES = 2**12  # in i, whose exponentials take time


class StridedTensor(ctypes.Structure):
    """``StridedTensor`` of kernel_args.h: address and strides of a tensor (B, T, width)."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("sample_stride", ctypes.c_int64),
        ("step_stride", ctypes.c_int64),
    ]


class NormPointers(ctypes.Structure):
    """``Norms`` of kernel_args.h: the tensors of ``RowNorms``, or nothing."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("moments", StridedTensor),
    ]


_PARTS = ("q", "k", "v", "o", "i", "f")


class _KernelArgs(ctypes.Structure):
    """``KernelArgs`` of kernel_args.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "T", "NH", "d")),
        ("key_scale", ctypes.c_double),
        *((name, StridedTensor) for name in _PARTS[:4]),
        ("norms", NormPointers),
        *((name, StridedTensor) for name in (*_PARTS[4:], "floor", "h")),
        *((name, ctypes.c_void_p) for name in ("c", "n")),
        *((name, StridedTensor) for name in ("grad_h", *(f"grad_{name}" for name in _PARTS))),
        *((name, ctypes.c_void_p) for name in ("grad_c", "grad_n")),
    ]


class RecurrenceInputs(NamedTuple):
    """The inputs of the recurrence, by step.

    Attributes
    ----------
    q, k, v, o : Tensor
        (B, T, NH, d), each row dense. Without ``o`` there is no output gate.
    i, f : Tensor
        Gates (not their logarithms), (B, T, NH). Where f is above a half, f - 1 is passed in its
        place, with its sign bit set.
    floor : Tensor
        Lower bound of the denominator, (B, T, NH).
    key_scale : float
        Factor of k.
    norms : NormPointers
        Layer norms that are still to be applied to q, k, v and o.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor | None
    i: Tensor
    f: Tensor
    floor: Tensor
    key_scale: float
    norms: NormPointers = NormPointers()


class RecurrenceGrads(NamedTuple):
    """Gradients of h (B, T, H), and of the last c and n."""

    h: Tensor
    c: Tensor
    n: Tensor


def kernel_forward(x: RecurrenceInputs, h: Tensor, c: Tensor, n: Tensor) -> None:
    """Run the recurrence.

    h (B, T, H) is written. c (B, NH, d, d) and n (B, NH, d), dense, are updated to the last state.
    """
    args = _kernel_args(x, c)
    args.h = strided(h)
    args.c, args.n = c.data_ptr(), n.data_ptr()
    _run(args, c.dtype, backward=False)


def kernel_backward(
    x: RecurrenceInputs, c: Tensor, n: Tensor, grads: RecurrenceGrads, outputs: Projections
) -> None:
    """Run the backward pass, from the same inputs and the first c and n.

    The gradients of the parts are written to ``outputs``. Those of i and f are the gradients of
    their logarithms. That of o is written if there is an output gate. ``grads.c`` and ``grads.n``,
    dense, are replaced by the gradients of the first state.
    """
    args = _kernel_args(x, c)
    args.c, args.n = c.data_ptr(), n.data_ptr()
    args.grad_h = strided(grads.h)
    args.grad_c, args.grad_n = grads.c.data_ptr(), grads.n.data_ptr()
    for name in _PARTS:
        setattr(args, f"grad_{name}", strided(getattr(outputs, name)))
    _run(args, c.dtype, backward=True)


def stabilize(log_i: Tensor, log_f: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return i, f and floor (B, NH, T) at the scale of exp(m), and the last m (B, NH)."""
    log_i, log_f = (x.resolve_neg().contiguous() for x in (log_i, log_f))
    i, f, floor = (torch.empty_like(log_i) for _ in range(3))
    m = m.resolve_neg().clone(memory_format=torch.contiguous_format)
    library = load_kernel()
    is_float32 = m.dtype == torch.float32
    function = library.stabilize_float if is_float32 else library.stabilize_double
    threads = torch.get_num_threads() if log_i.numel() > MIN_PARALLEL_GATES else 1
    pointers = (x.data_ptr() for x in (log_i, log_f, m, i, f, floor))
    function(*pointers, m.numel(), log_i.shape[-1], threads)
    return i, f, floor, m


def _kernel_args(x: RecurrenceInputs, c: Tensor) -> _KernelArgs:
    args = _KernelArgs(B=len(c), T=x.i.shape[1], NH=c.shape[1], d=c.shape[2], key_scale=x.key_scale)
    args.norms = x.norms
    for name in (*_PARTS, "floor"):
        if getattr(x, name) is not None:
            setattr(args, name, strided(getattr(x, name)))
    return args


def strided(x: Tensor) -> StridedTensor:
    """Return the address and the strides of a tensor (B, T, ...) with dense rows."""
    return StridedTensor(x.data_ptr(), x.stride(0), x.stride(1))


def _run(args: _KernelArgs, dtype: torch.dtype, *, backward: bool) -> None:
    """Call the kernel: threads share the samples, or their single heads if samples are few."""
    library = load_kernel()
    function = library.run_float if dtype == torch.float32 else library.run_double
    B, NH = args.B, args.NH
    threads = torch.get_num_threads() if B * args.T * NH * args.d > MIN_PARALLEL else 1
    heads_per_task = NH if B >= 2 * threads or threads == 1 else 1
    status = function(ctypes.byref(args), backward, heads_per_task, threads)
    if status == 2:
        sizes = ", ".join(map(str, HEAD_SIZES))
        raise RuntimeError(f"use_kernel: the kernel supports heads of {sizes} units, got {args.d}.")
    if status:
        raise MemoryError(f"use_kernel: no memory for {args.T} steps of {args.NH} heads.")


#: The functions of the library in use, under the name "kernel".
_bound: dict[str, ctypes.CDLL] = {}


def load_kernel() -> ctypes.CDLL:
    """Return the kernel, compiled if necessary."""
    if not _bound:
        bind_kernel(build_library().functions)
    return _bound["kernel"]


def bind_kernel(library: ctypes.CDLL) -> ctypes.CDLL | None:
    """Declare the functions of a library and use them from now on; return the previous library."""
    for function in (library.run_float, library.run_double):
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int]
        function.restype = ctypes.c_int
    for function in (
        library.preactivations_float,
        library.preactivations_double,
        library.cell_float,
        library.cell_double,
    ):
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        function.restype = ctypes.c_int
    for function in (library.step_float, library.step_double):
        function.argtypes = [ctypes.c_void_p, ctypes.c_int]
        function.restype = ctypes.c_int
    for function in (library.stabilize_float, library.stabilize_double):
        function.argtypes = [*[ctypes.c_void_p] * 6, *[ctypes.c_int64] * 2, ctypes.c_int]
        function.restype = None
    library.set_parallel_region.argtypes = [ctypes.c_void_p]
    library.set_parallel_region.restype = None
    library.set_parallel_region(_parallel_region())
    previous, _bound["kernel"] = _bound.get("kernel"), library
    return previous


def _parallel_region() -> ctypes.c_void_p | None:
    """Find ``GOMP_parallel`` in the OpenMP runtime of torch: see threads.h."""
    torch_library = ctypes.CDLL(torch._C.__file__)  # a search includes all that it links to
    function = getattr(torch_library, "GOMP_parallel", None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p)
