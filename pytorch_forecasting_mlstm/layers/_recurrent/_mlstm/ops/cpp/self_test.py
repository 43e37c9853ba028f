"""Compare the kernel with the naive form before it is used, once for each library and machine."""

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..agreement import Tensors, agrees, shared_sources
from ..layer_norm import LayerNormParams
from ..naive import naive_chunkwise, naive_gated, rescale_state
from ..protocol import CellInputs
from ..step import step as pytorch_step
from ..types import Inputs, OutputGrads, mLSTMState
from . import backend
from .bindings import HEAD_SIZES
from .cache import has_note, write_note
from .processor import processor
from .step import StepFunction, as_functions
from .step_bindings import NormParams

__all__ = ["SelfTestError", "self_test"]

_L = 35
_OPEN = 6.0  # added to the pre-activation of a forget gate, whose product over 16 steps is near 1
_EPS = 1e-5  # of layer norms
_STEP_HEADS = ((2, 37), (20, 1))  # of odd sizes: all sizes run the same code


class SelfTestError(RuntimeError):
    """The kernel does not compute what PyTorch does."""


@cache
def self_test(digest: str) -> None:
    """Raise unless the kernel in use, with this digest, has the results of the naive form.

    A success is noted in the user's cache, so that other processes need not repeat the test.
    """
    note = f"self-test-{_key(digest)}"
    if has_note(note):
        return
    # A new thread has no modes: no autocast, default device, transform or trace of the caller.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_test_alone).result()
    write_note(note)


def _key(digest: str) -> str:
    """Return a key that changes with everything on which the outcome depends."""
    modules = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    texts = [digest, processor(), torch.__version__]
    return hashlib.sha256(
        b"\0".join([*map(str.encode, texts), *modules, *shared_sources()])
    ).hexdigest()[:32]


def _test_alone() -> None:
    """Run the test with one torch thread: where all cores are busy, two wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _test()
    finally:
        torch.set_num_threads(threads)


def _test() -> None:
    """Compare results and gradients.

    Each head size and dtype is compiled separately, so all of them are compared: with the output
    gate, with and without layer norms, as whole cells, and in one dtype without an output gate. The
    forget gates of the second half of the steps are open: the decay of a span decides how its sums
    are added.
    """
    generator = torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        for d in HEAD_SIZES:
            draw = partial(torch.randn, generator=generator, dtype=dtype)
            c, n = draw(1, 1, d, d), draw(1, 1, d)
            p = draw(1, 70, 4 * d + 2)
            p[:, _L:, 3 * d + 1] += _OPEN
            _compare(_gated_kernel, _gated_naive, (p, c, n), tolerance)
            affine = [draw(width) for width in (d, d, d, d + 2) * 2]
            _compare(_normalizing_kernel, _normalizing_naive, (p, c, n, *affine), tolerance)
            weight, bias = draw(4 * d + 2, 3) / 2, draw(4 * d + 2)
            cell_inputs = (draw(1, 70, 3), weight, bias, c, n, *affine)
            _compare(_cell_kernel, _cell_naive, cell_inputs, tolerance)
            if (d % 16 == 0) != (dtype == torch.float32):
                continue
            q, k, v = (draw(1, 1, 70, d) / math.sqrt(math.sqrt(d)) for _ in range(3))
            f = draw(1, 1, 70)
            f[..., _L:] += _OPEN
            log_i, log_f = draw(1, 1, 70), F.logsigmoid(f)
            inputs = (q, k, v, log_i, log_f, c, n, draw(1, 1))
            _compare(_chunkwise_kernel, _chunkwise_naive, inputs, tolerance)
        for NH, d in _STEP_HEADS:
            # Of its own, so that what is compared before does not change the numbers, of which some
            # are so large that float32 keeps few digits of their gradients.
            draw = partial(torch.randn, generator=torch.Generator().manual_seed(d), dtype=dtype)
            H, G = NH * d, NH * (d + 2)
            c = draw(2, H) if d == 1 else draw(2, NH, d, d)
            affine = [draw(width) for width in (H, H, H, G, H, H, H, G)]
            if d > 1:  # the norm of a head would erase a single unit
                affine.append(draw(H))
            step_inputs = (draw(2, 3 * H + G), c, draw(2, H), *affine)
            _compare(_step_kernel, _step_naive, step_inputs, tolerance)


def _compare(
    kernel: Callable[..., tuple[Tensors, Tensors]],
    naive: Callable[..., Tensors],
    inputs: Sequence[Tensor],
    tolerance: float,
) -> None:
    """Raise unless the kernel agrees with the naive form."""
    if not agrees(kernel, naive, inputs, tolerance):
        raise SelfTestError(
            "the C++ library does not compute what PyTorch does, and is not used; install the "
            "package again, or name another compiler in CXX"
        )


def _gated_kernel(p: Tensor, c: Tensor, n: Tensor) -> tuple[Tensors, Tensors]:
    state = mLSTMState(c, n, _zero_scale(n))
    h, last, _ = backend.gated_fwd([p], state, None, _L, False)
    grads = OutputGrads(h.cos(), last.c.cos(), last.n.cos(), None)
    (grad_p,), (grad_c, grad_n, _) = backend.gated_bwd(
        [p], state, None, last.c, last.n, (), grads, _L, False
    )
    return (h, last.c, last.n), (grad_p, grad_c, grad_n)


def _gated_naive(p: Tensor, c: Tensor, n: Tensor) -> Tensors:
    state = mLSTMState(c, n, _zero_scale(n))
    h, last = naive_gated(p, state, None)
    last = rescale_state(last, state.m)
    return h, last.c, last.n


def _normalizing_kernel(
    p: Tensor, c: Tensor, n: Tensor, *affine: Tensor
) -> tuple[Tensors, Tensors]:
    inputs = (p, LayerNormParams.of(_EPS, *affine), mLSTMState(c, n, _zero_scale(n)), None)
    h, last = backend.normalizing.forward(*inputs)
    grads = OutputGrads(h.cos(), last.c.cos(), last.n.cos(), None)
    grad_p, grad_affine, (grad_c, grad_n, _) = backend.normalizing.backward(*inputs, grads)
    return (h, last.c, last.n), (grad_p, grad_c, grad_n, *grad_affine)


def _normalizing_naive(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> Tensors:
    state = mLSTMState(c, n, _zero_scale(n))
    h, last = naive_gated(p, state, None, _EPS, *affine)
    last = rescale_state(last, state.m)
    return h, last.c, last.n


def _cell_kernel(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, n: Tensor, *affine: Tensor
) -> tuple[Tensors, Tensors]:
    norms, state = LayerNormParams.of(_EPS, *affine), mLSTMState(c, n, _zero_scale(n))
    inputs = CellInputs(x, weight, bias, norms, state, None)
    h, last = backend.cell.forward(inputs)
    grads = OutputGrads(h.cos(), last.c.cos(), last.n.cos(), None)
    result = backend.cell.backward(inputs, grads, True)
    assert result.x is not None
    gradients = (result.x, result.weight, result.bias, result.c, result.n, *result.norms)
    return (h, last.c, last.n), gradients


def _cell_naive(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, n: Tensor, *affine: Tensor
) -> Tensors:
    return _normalizing_naive(F.linear(x, weight, bias), c, n, *affine)


def _chunkwise_kernel(*tensors: Tensor) -> tuple[Tensors, Tensors]:
    inputs, state = Inputs(*tensors[:5]), mLSTMState(*tensors[5:])
    h, last, _ = backend.chunkwise_fwd(inputs, state, _L, False)
    grads = OutputGrads(h.cos(), *(x.cos() for x in last))
    gradients = backend.chunkwise_bwd(inputs, state, last.c, last.n, (), grads, _L, False)
    return (h, *last), gradients


def _chunkwise_naive(*tensors: Tensor) -> Tensors:
    h, last = naive_chunkwise(Inputs(*tensors[:5]), mLSTMState(*tensors[5:]), _L)
    return h, *last


def _step_kernel(*tensors: Tensor) -> tuple[Tensors, Tensors]:
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_() for x in tensors]
        weights, biases, eps = _step_norms(leaves[3:])
        results = StepFunction.apply(*leaves[:3], eps, *weights, *biases)[:3]
        gradients = torch.autograd.grad(results, leaves, [x.cos() for x in results])
    return results, gradients


def _step_naive(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> Tensors:
    return pytorch_step(p, as_functions(_step_norms(affine), c.shape[1]), c, n)[:3]


def _step_norms(affine: Sequence[Tensor]) -> NormParams:
    """Return four weights and biases, and the weight of the norm of heads if there is one."""
    heads = affine[8] if len(affine) > 8 else None
    return NormParams((*affine[:4], heads), (*affine[4:8], None), (_EPS,) * 5)


def _zero_scale(n: Tensor) -> Tensor:
    return n.new_zeros(n.shape[:2])
