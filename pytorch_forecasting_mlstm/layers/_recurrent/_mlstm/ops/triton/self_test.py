"""Compare the kernels with the naive form before they are used.

That is done once for each machine, model of device, version and precision of products.

The first comparison compiles the kernels, for several sizes and dtypes. That should take half a
minute to a minute; with kernels in Triton's cache, the comparison takes five seconds.
"""

import hashlib
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..agreement import Tensors, agrees, shared_sources
from ..cpp.cache import has_note, write_note
from ..layer_norm import LayerNormParams, naive_layer_norm
from ..naive import naive_chunkwise, naive_gated
from ..types import Inputs, OutputGrads, mLSTMState
from . import backend
from .device import CudaDevice
from .layer_norm import LAYER_NORM
from .options import product_precision

__all__ = ["TritonSelfTestError", "self_test"]

_EPS = 1e-5
_T, _L = 70, 32  # two chunks, and a part of one
#: K and V of ``mlstm_chunkwise``: no powers of 2, and one that needs several blocks.
_SIZES = ((24, 40), (96, 16))
#: Samples, heads, steps and head size of layers: with small blocks, with so many sequences that one
#: program computes each of them, with even more, and with the largest blocks.
_LAYERS = ((2, 2, _T, 16), (64, 2, _T, 16), (512, 2, 20, 16), (2, 1, _T, 64))
#: Of float32, by how products are rounded.
_TOLERANCES = {"tf32x3": 2e-4, "tf32": 5e-3}
_TOLERANCE_16_BITS = 3e-2


class TritonSelfTestError(RuntimeError):
    """The kernels do not compute what PyTorch does."""


def self_test(device: CudaDevice) -> None:
    """Raise unless the kernels have the results of the naive form on a device.

    A success is noted in the user's cache, so that other processes need not repeat the test.
    """
    note = f"triton-self-test-{_key(device)}"
    if has_note(note):
        return
    # A new thread has no modes: no autocast, default device, transform or trace of the caller.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_test, torch.device("cuda", device.number)).result()
    write_note(note)


def _key(device: CudaDevice) -> str:
    """Return a key that changes with everything on which the outcome depends.

    That includes the machine: others may share the home directory, and have no compiler.
    """
    texts = (platform.node(), device.key, product_precision(torch.float32))
    content = b"\0".join([*map(str.encode, texts), _sources_digest()])
    return hashlib.sha256(content).hexdigest()[:32]


@cache
def _sources_digest() -> bytes:
    """Return a digest of the modules of the kernels, and of what they are compared with."""
    modules = [path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    return hashlib.sha256(b"\0".join([*modules, *shared_sources()])).digest()


def _test(device: torch.device) -> None:
    """Compare results and gradients of both operations, and of inputs in 16 bits.

    Sizes and dtypes decide which blocks and loops are compiled: see ``options.py``. The references
    are computed in float64.
    """
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tolerance = _TOLERANCES[product_precision(torch.float32)]
    for K, V in _SIZES:
        q, k = (draw(2, 1, _T, K) for _ in range(2))
        gates = (draw(2, 1, _T), F.logsigmoid(draw(2, 1, _T) + 2))
        state = (draw(2, 1, V, K), draw(2, 1, K), draw(2, 1))
        # Rounding a large h would change the gradient of its sine.
        inputs = (q, k / K**0.5, draw(2, 1, _T, V) / 10, *gates, *state)
        kernel = partial(_chunkwise_kernel, device, torch.float32)
        _compare(kernel, _chunkwise_naive, inputs, tolerance)
    narrow = (x.bfloat16().double() for x in inputs[:3])  # of the largest size
    kernel = partial(_chunkwise_kernel, device, torch.bfloat16)
    _compare(kernel, _chunkwise_naive, (*narrow, *inputs[3:]), _TOLERANCE_16_BITS)
    for B, NH, T, d in _LAYERS:
        p = draw(B, T, NH * (4 * d + 2))
        state = (draw(B, NH, d, d), draw(B, NH, d), draw(B, NH))
        _compare(partial(_gated_kernel, device), _gated_naive, (p, *state), tolerance)
        _compare(partial(_training_kernel, device), _training_naive, (p, *state), tolerance)
    widths = (48, 48, 48, 50)  # of q, k, v and all gates
    affine = [draw(width) for width in (*widths, *widths)]
    _compare(
        partial(_norm_kernel, device), _norm_naive, (3 * draw(_T, sum(widths)), *affine), tolerance
    )


def _compare(kernel: object, naive: object, inputs: Sequence[Tensor], tolerance: float) -> None:
    """Raise unless the kernels agree with the naive form."""
    if not agrees(kernel, naive, inputs, tolerance):  # type: ignore[arg-type]
        raise TritonSelfTestError(
            "the Triton kernels do not compute what PyTorch does, and are not used; install the "
            "release of Triton that torch was built with"
        )


def _chunkwise_kernel(
    device: torch.device, dtype: torch.dtype, *tensors: Tensor
) -> tuple[Tensors, Tensors]:
    q, k, v = (x.to(device, dtype) for x in tensors[:3])
    log_i, log_f, *state = (x.to(device, torch.float32) for x in tensors[3:])
    inputs, first = Inputs(q, k, v, log_i, log_f), mLSTMState(*state)
    h, last, saved = backend.chunkwise_fwd(inputs, first, _L, False)
    grads = OutputGrads(*(x.cos() for x in (h, *last)))
    saved = (h, *saved)
    gradients = backend.chunkwise_bwd(inputs, first, last.c, last.n, saved, grads, _L, False)
    return _to_cpu(h, *last), _to_cpu(*gradients)


def _chunkwise_naive(*tensors: Tensor) -> Tensors:
    h, last = naive_chunkwise(Inputs(*tensors[:5]), mLSTMState(*tensors[5:]), _L)
    return h, *last


def _gated_kernel(device: torch.device, *tensors: Tensor) -> tuple[Tensors, Tensors]:
    """Pad every third step, and take the gradients of h and of the last state."""
    p, *state = (x.to(device, torch.float32) for x in tensors)
    padding = _padding(p)
    h, last, saved = backend.gated_fwd([p], mLSTMState(*state), padding, _L, False)
    grads = OutputGrads(*(x.cos() for x in (h, *last)))
    return _to_cpu(h, *last), _gated_gradients(p, state, padding, last, saved, grads)


def _gated_naive(p: Tensor, *state: Tensor) -> Tensors:
    h, last = naive_gated(p, mLSTMState(*state), _padding(p))
    return h, *last


def _training_kernel(device: torch.device, *tensors: Tensor) -> tuple[Tensors, Tensors]:
    """Pad nothing, and take the gradient of h alone, as most trainings do."""
    p, *state = (x.to(device, torch.float32) for x in tensors)
    h, last, saved = backend.gated_fwd([p], mLSTMState(*state), None, _L, False)
    grads = OutputGrads(h.cos(), None, None, None)
    return _to_cpu(h), _gated_gradients(p, state, None, last, saved, grads)


def _training_naive(p: Tensor, *state: Tensor) -> Tensors:
    return (naive_gated(p, mLSTMState(*state), None)[0],)


def _gated_gradients(
    p: Tensor,
    state: Sequence[Tensor],
    padding: Tensor | None,
    last: mLSTMState,
    saved: Sequence[Tensor],
    grads: OutputGrads,
) -> Tensors:
    first = mLSTMState(*state)
    (grad_p,), grad_state = backend.gated_bwd(
        [p], first, padding, last.c, last.n, saved, grads, _L, False
    )
    return _to_cpu(grad_p, *grad_state)


def _norm_kernel(device: torch.device, *tensors: Tensor) -> tuple[Tensors, Tensors]:
    p, *affine = (x.to(device, torch.float32) for x in tensors)
    norms = LayerNormParams.of(_EPS, *affine)
    parts, statistics = LAYER_NORM.forward(p, norms)
    grads = [part.cos() for part in parts]
    grad_p, grad_affine = LAYER_NORM.backward(grads, p, statistics, norms)
    return _to_cpu(*parts), _to_cpu(grad_p, *grad_affine)


def _norm_naive(p: Tensor, *affine: Tensor) -> Tensors:
    return (naive_layer_norm(p, LayerNormParams.of(_EPS, *affine)),)


def _padding(p: Tensor) -> Tensor:
    """Mark every third step."""
    B, T, _ = p.shape
    return (torch.arange(T, device=p.device) % 3 == 0).expand(B, T)[..., None]


def _to_cpu(*tensors: Tensor) -> Tensors:
    return tuple(x.cpu().double() for x in tensors)
