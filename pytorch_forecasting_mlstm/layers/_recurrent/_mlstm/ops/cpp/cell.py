"""A whole cell in the kernel: projection, layer norms, gates and recurrence, sample by sample.

Nothing is kept for the backward pass but the inputs. Pre-activations are computed again there.

Dimensions: B batch, T time, NH heads, d head size, W = 4 H + 2 NH, H = NH·d.
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dropout_draw import largest_dropped
from ..protocol import CellForms, CellGrads, CellInputs
from ..types import OutputGrads, mLSTMState
from .bindings import HEAD_SIZES, MIN_PARALLEL, StridedTensor, load_kernel, strided
from .dense import dense, dense_copy, dense_grad, dense_rows

__all__ = ["cell"]

# The kernel has no blocks for caches, so the weight must fit one.
_MAX_WEIGHT = 2**17  # elements
# Every sample reads and writes the gradient of the weight, which takes longer than a short product.
_MIN_STEPS, _SMALL_WEIGHT = 32, 2**15
_LANES = 16  # the most numbers that a vector has
# Threads take slices of the samples in the backward pass. Each has a gradient of the weight, in
# fresh memory, which takes a while if a slice has few steps.
_MIN_SLICES, _MAX_SLICES, _STEPS_PER_SLICE = 16, 32, 512


class _CellArgs(ctypes.Structure):
    """``CellArgs`` of kernel_args.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "T", "NH", "d", "I", "wide", "input_wide")),
        ("eps", ctypes.c_double),
        ("x", StridedTensor),
        *(
            (name, ctypes.c_void_p)
            for name in ("weight", "transposed", "bias", "norm_weight", "norm_bias", "padding")
        ),
        ("h", StridedTensor),
        *((name, ctypes.c_void_p) for name in ("c", "n")),
        *((name, StridedTensor) for name in ("grad_h", "grad_x")),
        *(
            (name, ctypes.c_void_p)
            for name in ("grad_c", "grad_n", "grad_weight", "grad_bias", "grad_affine")
        ),
        ("slices", ctypes.c_int64),
        *((name, StridedTensor) for name in ("x_bits", "h_bits")),
        ("largest_dropped", ctypes.c_int64),
        ("dropout_scale", ctypes.c_double),
    ]


def supports(x: Tensor, weight: Tensor, head_dim: int) -> bool:
    """Whether the kernel computes a cell with an input like x, in any number of samples and steps.

    With a large weight it does not.
    """
    return (
        x.device.type == "cpu"
        and type(x) is Tensor
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and head_dim in HEAD_SIZES
        and weight.numel() <= _MAX_WEIGHT
    )


def pays_off(x: Tensor, weight: Tensor) -> bool:
    """Whether x (B, T, input_size) has enough samples for all threads, and steps for the weight."""
    threads = torch.get_num_threads()
    return (x.shape[1] >= _MIN_STEPS or weight.numel() <= _SMALL_WEIGHT) and (
        threads == 1 or len(x) >= 2 * threads
    )


def forward(inputs: CellInputs) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H), in memory in the order of x, and the last state."""
    c, n = inputs.state[:2]
    call = _Call(inputs)
    h = _empty_in_order_of(inputs.x, n.shape[1] * n.shape[2])
    c, n = dense_copy(c), dense_copy(n)
    call.args.h, call.args.c, call.args.n = strided(h), c.data_ptr(), n.data_ptr()
    call.run(backward=False)
    return h, mLSTMState(c, n, inputs.state.m)


def backward(inputs: CellInputs, grads: OutputGrads, needs_x: bool) -> CellGrads:
    """Return the gradients of the inputs."""
    x, weight = inputs.x, inputs.weight
    (B, T, input_size), W = x.shape, len(weight)
    call = _Call(inputs)
    args = call.args
    args.slices = min(B, max(_MIN_SLICES, min(B * T // _STEPS_PER_SLICE, _MAX_SLICES)))
    c, n = dense(inputs.state.c), dense(inputs.state.n)
    H = n.shape[1] * n.shape[2]
    grad_h = x.new_zeros(B, T, H) if grads.h is None else dense_rows(grads.h)
    grad_c, grad_n = dense_grad(grads.c, c), dense_grad(grads.n, n)
    shapes = ((W, args.input_wide), (W,), (2, W))
    grad_weight, grad_bias, grad_affine = (
        torch.empty(args.slices, *shape, dtype=torch.float64) for shape in shapes
    )
    args.c, args.n, args.grad_h = c.data_ptr(), n.data_ptr(), strided(grad_h)
    args.grad_c, args.grad_n = grad_c.data_ptr(), grad_n.data_ptr()
    args.grad_weight, args.grad_bias = grad_weight.data_ptr(), grad_bias.data_ptr()
    args.grad_affine = grad_affine.data_ptr()
    grad_x = _empty_in_order_of(x, input_size) if needs_x else None
    if grad_x is not None:
        args.grad_x = strided(grad_x)
    call.run(backward=True)
    grad_norms: list[Tensor] = []
    if inputs.norms is not None:
        joined = grad_affine.sum(0).to(x.dtype)
        grad_norms = [part for grad in joined for part in inputs.norms.split(grad)]
    return CellGrads(
        grad_x,
        grad_weight.sum(0)[:, :input_size].to(x.dtype),
        grad_bias.sum(0).to(x.dtype),
        grad_norms,
        grad_c,
        grad_n,
    )


cell = CellForms(supports, pays_off, forward, backward)


def _empty_in_order_of(x: Tensor, width: int) -> Tensor:
    """Return a tensor (B, T, width) whose samples and steps lie in memory as those of x."""
    (B, T), (sample, step) = x.shape[:2], x.stride()[:2]
    if sample < step:
        return x.new_empty(T, B, width).transpose(0, 1)
    return x.new_empty(B, T, width)


class _Call:
    """The arguments of a call, and the tensors whose addresses are in them."""

    def __init__(self, inputs: CellInputs) -> None:
        x, weight, bias, norms, state, padding, dropout = inputs
        x = dense_rows(x)
        (B, T, input_size), (_, NH, d, _), W = x.shape, state.c.shape, len(weight)
        wide, input_wide = (size + -size % _LANES for size in (W, input_size))
        tensors = {
            "weight": F.pad(weight, (0, input_wide - input_size)),
            "transposed": F.pad(weight.t(), (0, wide - W)),
            "bias": F.pad(bias, (0, wide - W)),
        }
        if norms is not None:
            tensors["norm_weight"] = torch.cat(list(norms.weights))
            tensors["norm_bias"] = torch.cat(list(norms.biases))
        if padding is not None:
            tensors["padding"] = padding
        self._tensors = {name: dense(tensor) for name, tensor in tensors.items()}
        self._x = x
        self.args = _CellArgs(
            B=B, T=T, NH=NH, d=d, I=input_size, wide=wide, input_wide=input_wide, x=strided(x)
        )
        self.args.eps = 0.0 if norms is None else norms.eps
        self.args.slices = B
        self._dropout = dropout
        if dropout is not None:
            self.args.x_bits, self.args.h_bits = strided(dropout.x_bits), strided(dropout.h_bits)
            self.args.largest_dropped = largest_dropped(dropout.p)
            self.args.dropout_scale = 1 / (1 - dropout.p)
        for name, tensor in self._tensors.items():
            setattr(self.args, name, tensor.data_ptr())

    def run(self, *, backward: bool) -> None:
        """Call the kernel."""
        library, args = load_kernel(), self.args
        is_float32 = self._x.dtype == torch.float32
        function = library.cell_float if is_float32 else library.cell_double
        large = args.B * args.T * args.NH * args.d > MIN_PARALLEL
        if function(ctypes.byref(args), backward, torch.get_num_threads() if large else 1):
            raise MemoryError(f"use_kernel: no memory for {args.T} steps of {args.NH} heads.")
