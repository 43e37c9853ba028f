"""One exported graph serves every batch and every length, in torch, in ONNX and compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.torch_version import TorchVersion
from torch.utils._pytree import tree_leaves

from helpers.layers import draw_input, draw_state, make_layer
from helpers.problems import make_problem
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer
from pytorch_forecasting_mlstm.layers import functional

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is:FutureWarning"),
]
#: torch 2.7 needs a largest size.
BATCH, TIME = (Dim(name, min=1, max=2**31 - 1) for name in ("batch", "time"))
#: Marks tests of graphs for every length.
EVERY_LENGTH = pytest.mark.skipif(
    TorchVersion(torch.__version__) < "2.8",
    reason="torch 2.7 exports a layer for one length: docs/versions.md",
)
#: Steps and samples: one and several chunks, whole and not, and one of everything.
SIZES = [(1, 1), (31, 3), (32, 1), (33, 2), (200, 2)]


def layer_inputs(layer: mLSTMLayer, T: int, B: int) -> tuple[Any, ...]:
    x = draw_input(T, B)
    state = tuple(part.detach() for part in draw_state(layer, B))
    return x, state, torch.rand(T, B) < 0.7


LAYER_SHAPES = {
    "x": {0: TIME, 1: BATCH},
    "state": ({1: BATCH}, {1: BATCH}, {1: BATCH}),
    "mask": {0: TIME, 1: BATCH},
}


def assert_graph_matches(program: Any, module: Callable[..., Any], inputs: Any) -> None:
    results, expected = program(*inputs), module(*inputs)
    assert_close(tuple(tree_leaves(results)), tuple(tree_leaves(expected)), 1e-10)


@EVERY_LENGTH
@pytest.mark.slow
def test_exported_layer_serves_every_batch_and_length() -> None:
    """With state and mask, in both directions, with a norm of every head."""
    layer = make_layer(bidirectional=True, norm_heads=True, num_heads=2).eval()
    program = export(layer, layer_inputs(layer, 5, 4), dynamic_shapes=LAYER_SHAPES)
    assert "pytorch_forecasting_mlstm" not in program.graph_module.code
    for T, B in SIZES:
        assert_graph_matches(program.module(), layer, layer_inputs(layer, T, B))


@pytest.mark.slow
def test_exported_layer_with_lengths_and_a_fixed_length() -> None:
    layer = make_layer(batch_first=True).eval()
    x, lengths = draw_input(31, 4).transpose(0, 1), torch.tensor([31, 0, 5, 9])
    program = export(
        layer,
        (x,),
        {"lengths": lengths},
        dynamic_shapes={"x": {0: BATCH}, "lengths": {0: BATCH}},
    )
    x, lengths = draw_input(31, 2).transpose(0, 1), torch.tensor([3, 31])
    assert_close(program.module()(x, lengths=lengths), layer(x, lengths=lengths), 1e-10)


@EVERY_LENGTH
@pytest.mark.slow
def test_non_finite_inputs_do_not_reach_earlier_steps_of_an_exported_layer() -> None:
    layer = make_layer().eval()
    program = export(layer, (draw_input(5),), dynamic_shapes={"x": {0: TIME, 1: BATCH}})
    x = draw_input(70)
    x[40, 1] = torch.nan
    output, _ = program.module()(x)
    expected, _ = layer(x)
    assert torch.equal(output.isnan(), expected.isnan()) and output.isnan().any()
    assert_close(output.nan_to_num(), expected.nan_to_num(), 1e-10)


@EVERY_LENGTH
def test_exported_layer_has_no_fixed_size() -> None:
    """A small case, for every run of the suite."""
    layer = make_layer(layer_norm=False).eval()
    program = export(layer, (draw_input(5),), dynamic_shapes={"x": {0: TIME, 1: BATCH}})
    for T, B in SIZES:
        assert_graph_matches(program.module(), layer, (draw_input(T, B),))


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exported_layer_serves_every_batch(strict: bool) -> None:
    """With plain operations only, whichever way torch reads the code."""
    layer = make_layer(layer_norm=False).eval()
    program = export(layer, (draw_input(9),), dynamic_shapes={"x": {1: BATCH}}, strict=strict)
    assert "pytorch_forecasting_mlstm" not in program.graph_module.code
    for B in (1, 3):
        assert_graph_matches(program.module(), layer, (draw_input(9, B),))


def test_exported_cell_serves_every_batch() -> None:
    cell = mLSTMCell(3, 8, num_heads=2).double().eval()

    def inputs(B: int) -> tuple[Tensor, ...]:
        return draw_input(1, B)[0], *map(torch.randn_like, cell.init_hidden(B))

    shapes = {name: {0: BATCH} for name in ("x", "h_prev", "c_prev", "n_prev")}
    program = export(cell, inputs(4), dynamic_shapes=shapes)
    for B in (1, 3):
        assert_graph_matches(program.module(), cell, inputs(B))


class Form(nn.Module):
    """A function as a module, with an optional state."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *parts: Tensor) -> Any:
        """Call the function."""
        if len(parts) <= 5:
            return self.function(*parts)
        return self.function(*parts[:5], functional.mLSTMState(*parts[5:]))


FUNCTIONS = pytest.mark.parametrize(
    ("name", "arguments"),
    [("mlstm_recurrent", 8), ("mlstm_chunkwise", 5), ("mlstm_read_weights", 4)],
)


@FUNCTIONS
def test_compiled_functions_are_one_graph(name: str, arguments: int) -> None:
    form = Form(getattr(functional, name))
    problem = make_problem(5, 2)
    inputs = [problem[index] for index in ([0, 1, 3, 4] if arguments == 4 else range(arguments))]
    torch._dynamo.reset()
    compiled = torch.compile(form, fullgraph=True, backend="eager")
    assert_graph_matches(compiled, form, inputs)


@EVERY_LENGTH
@pytest.mark.slow
@FUNCTIONS
def test_exported_functions_serve_every_batch_and_length(name: str, arguments: int) -> None:
    form = Form(getattr(functional, name))
    order = [0, 1, 3, 4] if arguments == 4 else list(range(arguments))

    def inputs(T: int, B: int) -> tuple[Tensor, ...]:
        problem = make_problem(T, B)
        return tuple(problem[index] for index in order)

    shapes = [{0: BATCH, 2: TIME} if index < 5 else {0: BATCH} for index in order]
    program = export(form, inputs(5, 4), dynamic_shapes=(tuple(shapes),))
    for T, B in ((1, 1), (70, 2)):
        assert_graph_matches(program.module(), form, inputs(T, B))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_layer_serves_every_batch_and_length() -> None:
    """``torch.jit.trace``, which torch has deprecated, but people use."""
    layer = make_layer(num_layers=2).eval()
    traced = torch.jit.trace(layer, layer_inputs(layer, 5, 4))
    for T, B in SIZES:
        assert_graph_matches(traced, layer, layer_inputs(layer, T, B))


@EVERY_LENGTH
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
def test_layer_in_onnx_serves_every_batch_and_length(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    layer = make_layer().float().eval()

    def inputs(T: int, B: int) -> tuple[Any, ...]:
        x, state, mask = layer_inputs(make_layer(), T, B)
        return x.float(), tuple(part.float() for part in state), mask

    path = tmp_path / "layer.onnx"
    torch.onnx.export(
        layer, inputs(5, 4), path, dynamo=True, dynamic_shapes=LAYER_SHAPES, verbose=False
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [part.name for part in session.get_inputs()]
    for T, B in SIZES:
        given = inputs(T, B)
        feed = {n: x.numpy() for n, x in zip(names, tree_leaves(given), strict=True)}
        results = tuple(map(torch.from_numpy, session.run(None, feed)))
        with torch.no_grad():
            expected = tuple(tree_leaves(layer(*given)))
        assert_close(results, expected, 1e-4)


@EVERY_LENGTH
@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="AOTInductor needs a compiler"
)
def test_layer_compiled_ahead_of_time_serves_every_batch_and_length(tmp_path: Path) -> None:
    layer = make_layer().eval()
    with torch.no_grad():
        program = export(layer, layer_inputs(layer, 5, 4), dynamic_shapes=LAYER_SHAPES)
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "layer.pt2")
        )
        compiled = torch._inductor.aoti_load_package(path)
        for T, B in SIZES:
            assert_graph_matches(compiled, layer, layer_inputs(layer, T, B))
