"""Layers and models that run the kernel, and the cases in which they must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.cpp_kernel import draw, needs_compiler
from helpers.datasets import fit, make_dataset
from helpers.layers import (
    GRADIENT_TOLERANCE,
    draw_input,
    draw_state,
    gradients,
    make_layer,
    parametrize_masks,
    step_cells,
)
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer, mLSTMTime, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.autograd import GatedFunction

LAYERS: dict[str, dict[str, Any]] = {
    "heads": {"hidden_size": 16, "num_heads": 2},
    "stack": {"hidden_size": 24, "num_heads": 3, "num_layers": 3},
    "no-norm": {"hidden_size": 48, "num_heads": 2, "num_layers": 2, "layer_norm": False},
}
parametrize_layers = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)


@needs_compiler
@parametrize_layers
@pytest.mark.parametrize("T", [1, 31, 70])
def test_layer_matches_a_loop_over_its_cells(
    gated_calls: list[str], options: dict[str, Any], T: int
) -> None:
    layer = make_layer(**options)
    x, state = draw_input(T).requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state), step_cells(layer, x, state)
    # without norms, h is a quotient of sums that cancel, which amplifies their rounding errors
    assert_close(result, expected, None if options.get("layer_norm", True) else 1e-11)
    gated_calls.clear()
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)
    assert gated_calls == ["backward"] * layer.num_layers


OPTIONS: dict[str, dict[str, Any]] = {
    "bidirectional": {"bidirectional": True, "num_layers": 2},
    "norm of heads": {"norm_heads": True, "num_layers": 2},
    "both": {"bidirectional": True, "norm_heads": True},
}


@needs_compiler
@pytest.mark.usefixtures("gated_calls")  # enables the kernel
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_match_a_loop_over_the_cells(options: dict[str, Any]) -> None:
    layer = make_layer(hidden_size=16, num_heads=2, **options)
    x, state = draw_input().requires_grad_(), draw_state(layer)
    mask = torch.arange(31)[:, None] < torch.tensor([31, 30, 5, 1])
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state, mask), step_cells(layer, x, state, mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)


@needs_compiler
@parametrize_masks
def test_masked_layer_matches_a_masked_loop(
    gated_calls: list[str], draw_mask: Callable[[], Tensor]
) -> None:
    layer, mask = make_layer(**LAYERS["stack"]), draw_mask()
    x, state = draw_input().requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state, mask), step_cells(layer, x, state, mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)
    assert gated_calls


@needs_compiler
def test_batch_first_and_batch_tiles_do_not_change_the_results(
    recurrence_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(**LAYERS["heads"])
    x = draw_input()
    expected = layer(x)
    layer.batch_first = True
    output, state = layer(x.transpose(0, 1))
    assert_identical((output.transpose(0, 1), state), expected)
    layer.batch_first = False
    monkeypatch.setattr(
        "pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.tiling._TILE_NUMEL", 2000
    )
    recurrence_calls.clear()
    assert_close(layer(x), expected)
    assert len(recurrence_calls) > 1


@needs_compiler
def test_forward_pass_saves_nothing_but_its_inputs() -> None:
    p, c, n = draw(500, 2, 8)
    m = n.new_zeros(n.shape[:2])
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        GatedFunction.apply(p, c, n, m, None, "cpp")
    assert [x.data_ptr() for x in saved] == [x.data_ptr() for x in (p, c, n, m)]


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch's compiler
def test_compiled_layer_runs_the_kernel(gated_calls: list[str]) -> None:
    """One graph serves every length, with masks, and gives the same numbers."""
    layer = make_layer(hidden_size=16, num_heads=2)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for T in (40, 70, 17):
        x, mask = draw_input(T).requires_grad_(), torch.rand(T, 4) < 0.6
        inputs = [x, *layer.parameters()]
        expected = layer(x, mask=mask)
        expected_gradients = gradients(expected, inputs)
        gated_calls.clear()
        result = compiled(x, mask=mask)
        assert_close(result, expected)
        assert_close(gradients(result, inputs), expected_gradients, GRADIENT_TOLERANCE)
        assert gated_calls == ["forward", "backward"]
    use_kernel(False)
    gated_calls.clear()
    assert_close(compiled(x, mask=mask), expected)
    assert not gated_calls


@needs_compiler
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # raised by vmap
def test_unsupported_layers_and_transforms_skip_the_kernel(gated_calls: list[str]) -> None:
    x = torch.randn(9, 2, 3)
    for unsupported in (
        mLSTMLayer(3, 8),  # heads of 2
        mLSTMLayer(3, 8, num_heads=None),
        mLSTMLayer(3, 16, num_heads=2).to("meta"),
    ):
        unsupported(x.to(unsupported.cells[0].projection.weight.device))
    layer = mLSTMLayer(3, 16, num_heads=2)
    torch.func.vmap(lambda x: layer(x)[0], in_dims=1, randomness="same")(x[:, :, None])
    torch.export.export(layer.eval(), (x,))
    mLSTMCell(3, 16, num_heads=2)(x[0], *layer.cells[0].init_hidden(2))
    layer(x[:0])
    assert not gated_calls
    layer(x)
    assert gated_calls == ["forward"]


@needs_compiler
def test_autocast_rounds_only_the_projection(gated_calls: list[str]) -> None:
    layer, x = mLSTMLayer(3, 16, num_heads=2, dropout=0.0), torch.randn(40, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(x)
        assert gated_calls == ["forward"]
        use_kernel(False)
        expected, expected_state = layer(x)
    assert_close(output, expected)
    assert_close(state, expected_state)


@needs_compiler
def test_training_gives_the_same_weights(gated_calls: list[str]) -> None:
    def train() -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        dataset = make_dataset()
        model = mLSTMTime.from_dataset(dataset, hidden_size=16, num_heads=2, dropout=0.0)
        fit(model, dataset)
        return tuple(parameter.detach() for parameter in model.parameters())

    actual = train()
    assert gated_calls
    use_kernel(False)
    # Adam normalizes small gradients, which amplifies rounding
    assert_close(actual, train(), 1e-3)
