"""The Triton kernels on a CUDA device, as users run them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from helpers.layers import gradients
from helpers.tolerances import assert_close
from helpers.triton_kernels import needs_triton
from pytorch_forecasting_mlstm import backend, mLSTMLayer, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import mlstm_chunkwise
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import backend as triton

pytestmark = [
    pytest.mark.cuda,
    needs_triton,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the calls of the backend."""
    calls: list[str] = []
    for name in ("gated_fwd", "gated_bwd", "chunkwise_fwd", "chunkwise_bwd"):
        original = getattr(triton, name)

        def spy(*args: object, name: str = name, original: object = original) -> object:
            calls.append(name)
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(triton, name, spy)
    return calls


@contextmanager
def synchronization_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def tf32_allowed() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_kernels_are_used_by_default() -> None:
    info = backend().cuda
    assert info is not None and info.name == "triton", info


@pytest.mark.parametrize("hidden_size", [64, 128, 256])
def test_layer_matches_the_layer_on_the_cpu(calls: list[str], hidden_size: int) -> None:
    layer = mLSTMLayer(3, hidden_size, dropout=0.0)
    x = torch.randn(200, 3, 3)
    mask = torch.rand(200, 3) < 0.8
    use_kernel(False)
    expected = layer(x, mask=mask)
    expected_gradients = gradients(expected, list(layer.parameters()))
    use_kernel()
    layer.cuda()
    result = layer(x.cuda(), mask=mask.cuda())
    found = torch.autograd.grad(loss_of(result), list(layer.parameters()))
    assert calls == ["gated_fwd", "gated_bwd"]
    # 200 steps of float32, in another order
    assert_close(result[0].cpu(), expected[0], 1e-4)
    assert_close(tuple(part.cpu() for part in found), expected_gradients, 1e-3)


def loss_of(result: tuple[Tensor, tuple[Tensor, ...]]) -> Tensor:
    """Return the loss of ``helpers.layers.gradients``, for results on a device."""
    generator = torch.Generator().manual_seed(1)
    return sum(
        (part.cpu() * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum()
        for part in (result[0], *result[1])
    )


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_forward_and_backward_do_not_synchronize(calls: list[str]) -> None:
    layer = mLSTMLayer(3, 64, num_layers=2).cuda()
    x = torch.randn(96, 8, 3, device="cuda", requires_grad=True)
    lengths = torch.randint(1, 97, (8,), device="cuda")
    for _ in range(2):  # the first compiles the kernels
        output, _ = layer(x, lengths=lengths)
        output.sum().backward()
    torch.cuda.synchronize()
    with synchronization_is_an_error():
        output, _ = layer(x, lengths=lengths)
        output.sum().backward()
    assert calls


def test_device_that_is_not_current(calls: list[str]) -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    q, k, v = torch.randn(3, 2, 2, 70, 16).to(last).unbind(0)
    gates = -torch.rand(2, 2, 70, device=last)
    h, _ = mlstm_chunkwise(q, k, v, gates, gates)
    assert calls == ["chunkwise_fwd"] and h.device == last
    use_kernel(False)
    assert_close(h, mlstm_chunkwise(q, k, v, gates, gates)[0], 1e-4)


@pytest.mark.parametrize("d", [16, 128])  # as sequences, and in chunks
def test_tf32_matches_float32_to_its_digits(calls: list[str], d: int) -> None:
    q, k, v = torch.randn(3, 2, 64, 70, d).unbind(0)
    gates = -torch.rand(2, 64, 70)
    inputs = (q, k / d**0.5, v, gates, gates)
    expected, _ = mlstm_chunkwise(*inputs)
    with tf32_allowed():
        h, _ = mlstm_chunkwise(*(x.cuda() for x in inputs))
    assert calls == ["chunkwise_fwd"]
    assert_close(h.cpu(), expected, 1e-2)  # ten bits after the leading one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
def test_compiled_layer_matches_the_eager_layer(calls: list[str]) -> None:
    layer = mLSTMLayer(3, 64, dropout=0.0).cuda()
    x = torch.randn(96, 8, 3, device="cuda")
    expected = layer(x)
    torch._dynamo.reset()
    result = torch.compile(layer, fullgraph=True)(x)
    assert calls == ["gated_fwd"] * 2
    assert_close(result, expected, 1e-4)
