"""The Triton kernels behind a layer: gates, output gate, layer norms and masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.layers import draw_input, gradients, make_layer
from helpers.triton_kernels import DEVICE, WIDE, assert_matches, needs_triton, triton_selected
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.autograd import (
    GatedFunction,
    chunkwise_op,
    gated_op,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.naive import naive_gated
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import options
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.types import mLSTMState

pytestmark = [needs_triton, pytest.mark.usefixtures("both_plans")]


@pytest.mark.parametrize(
    ("norm", "masked", "T"),
    [
        (True, True, 20),
        (False, False, 3),
        pytest.param(True, False, 40, marks=pytest.mark.slow),
        pytest.param(False, True, 40, marks=pytest.mark.slow),
    ],
)
def test_layer_matches_pytorch(norm: bool, masked: bool, T: int) -> None:
    """Output, last states and all gradients, from a state that is not empty."""
    layer = make_layer(hidden_size=16, num_heads=2, layer_norm=norm).to(DEVICE, WIDE)
    x = draw_input(T, 2).to(DEVICE, WIDE).requires_grad_()
    mask = torch.rand(T, 2, device=DEVICE) < 0.6 if masked else None
    state = tuple(torch.randn_like(part).requires_grad_() for part in layer.init_hidden(2))
    inputs = [x, *state, *layer.parameters()]
    with triton_selected():
        result = layer(x, state, mask)
    found = gradients(result, inputs)
    use_kernel(False)
    expected = layer(x, state, mask)
    assert_matches(result, expected)
    assert_matches(found, gradients(expected, inputs), 1e-10)


def test_gates_of_any_size_match_the_naive_form() -> None:
    """Pre-activations of ±30 and more close or open a gate; an open one keeps all digits."""
    p = torch.randn(1, 20, 4 * 8 + 2, dtype=torch.float64)
    p[..., 24:26] *= 20
    p[:, 3, 25], p[:, 5, 25], p[:, 7, 24], p[:, 11, 25] = 40.0, -800.0, 300.0, 1e-9
    state = [torch.randn(shape).double() for shape in ((1, 1, 8, 8), (1, 1, 8), (1, 1))]
    padding = (torch.arange(20) % 6 == 0).expand(1, 20)[..., None]
    leaves = [x.to(DEVICE, WIDE).requires_grad_() for x in (p, *state)]
    padding = padding.to(DEVICE)

    def run(form: Any) -> tuple[Tensor, ...]:
        results = form(*leaves)
        loss = sum(x.sin().sum() for x in results)
        return (*results, *torch.autograd.grad(loss, leaves))

    def naive(*tensors: Tensor) -> tuple[Tensor, ...]:
        h, last = naive_gated(tensors[0], mLSTMState(*tensors[1:]), padding)
        return h, *last

    with triton_selected():
        actual = run(lambda *tensors: GatedFunction.apply(*tensors, padding, "triton"))
    assert_matches(actual, run(naive), 1e-11)


@pytest.mark.parametrize("unused", ["output", "state"])
def test_layer_gradients_if_the_loss_uses_one_result(unused: str) -> None:
    layer = make_layer(hidden_size=8, num_heads=1, layer_norm=False).to(DEVICE, WIDE)
    x = draw_input(9, 1).to(DEVICE, WIDE).requires_grad_()
    inputs = [x, *layer.parameters()]

    def run() -> tuple[Tensor, ...]:
        output, (_, c, n) = layer(x)
        loss = c.sin().sum() + n.sin().sum() if unused == "output" else output.sin().sum()
        return torch.autograd.grad(loss, inputs, materialize_grads=True)

    with triton_selected():
        actual = run()
    use_kernel(False)
    assert_matches(actual, run(), 1e-11)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
@pytest.mark.slow
def test_compiled_layer_matches_the_eager_layer() -> None:
    layer = make_layer(hidden_size=16, num_heads=2).to(DEVICE, WIDE)
    x = draw_input(20, 2).to(DEVICE, WIDE).requires_grad_()
    inputs = [x, *layer.parameters()]
    expected = layer(x)
    torch._dynamo.reset()
    with triton_selected():
        result = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
        found = gradients(result, inputs)
    assert_matches(result, expected)
    assert_matches(found, gradients(expected, inputs), 1e-10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
@pytest.mark.slow
def test_compiled_layer_takes_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A symbolic number of sequences decides how the work is divided."""
    monkeypatch.setattr(options, "_MANY_SEQUENCES", 8)
    layer = make_layer(hidden_size=16, num_heads=2).to(DEVICE, WIDE)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for B in (2, 5):
        x = draw_input(20, B).to(DEVICE, WIDE)
        with triton_selected():
            result = compiled(x)
        assert_matches(result, layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [WIDE, torch.bfloat16], ids=str)
def test_operators_pass_opcheck(dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = [(1, 1, 32, 8)] * 3 + [(1, 1, 32)] * 2 + [(1, 1, 8, 8), (1, 1, 8), (1, 1)]
    dtypes = [dtype] * 3 + [wide] * 5
    tensors = [
        torch.randn(shape, device=DEVICE).to(kind).requires_grad_()
        for shape, kind in zip(shapes, dtypes, strict=True)
    ]
    with triton_selected():
        tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(chunkwise_op, (tensors, "triton", 16), test_utils=tests)
        p = torch.randn(1, 20, 4 * 8 + 2, device=DEVICE, dtype=wide).requires_grad_()
        state = [x.detach().requires_grad_() for x in tensors[5:]]
        torch.library.opcheck(gated_op, (p, state, None, "triton", 16), test_utils=tests)
