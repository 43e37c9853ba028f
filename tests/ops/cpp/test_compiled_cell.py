"""The whole cell in the kernel under ``torch.compile``, against eager layers and the equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.cpp_kernel import cell_reference, draw_cell, needs_compiler, with_gradients
from helpers.layers import GRADIENT_TOLERANCE, gradients, make_layer
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMLayer, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import cell_op as op_module
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import tiling
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cell_op import cell_op
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import backend

pytestmark = [
    needs_compiler,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised inside torch's compiler
]

OP = "pytorch_forecasting_mlstm.cell"


@pytest.fixture(autouse=True)
def kernel() -> Iterator[None]:
    use_kernel()
    yield
    torch.set_num_threads(1)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which forms compute cells, "whole" or "parts", forward and backward."""
    calls: list[str] = []

    def recorded(name: str, form: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*args: Any) -> Any:
            calls.append(name)
            return form(*args)

        return spy

    for name in ("cell_in_parts_forward", "cell_in_parts_backward"):
        monkeypatch.setattr(op_module, name, recorded("parts", getattr(op_module, name)))
    whole = {name: recorded("whole", getattr(backend.cell, name)) for name in PASSES}
    monkeypatch.setattr(backend, "cell", backend.cell._replace(**whole))
    return calls


PASSES = ("forward", "backward")


def use_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the whole cell never pay off, and its parts be computed in tiles of a few samples."""
    never = backend.cell._replace(pays_off=lambda x, weight: False)
    monkeypatch.setattr(backend, "cell", never)
    monkeypatch.setattr(tiling, "_TILE_NUMEL", 700)


def compile_layer(
    layer: mLSTMLayer, backend: str = "eager"
) -> tuple[Callable[..., Any], CompileCounterWithBackend]:
    """Compile into one graph for all lengths."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    return torch.compile(layer, fullgraph=True, dynamic=True, backend=counter), counter


def count_ops(counter: CompileCounterWithBackend) -> int:
    """Return how many whole cells the last graph of a compiled layer has."""
    count: int = counter.graphs[-1].code.count(OP)
    return count


def has_op(layer: mLSTMLayer, x: Tensor) -> bool:
    """Whether the graph of a compiled layer has the op of a whole cell."""
    compiled, counter = compile_layer(layer)
    compiled(x)
    return count_ops(counter) > 0


OPTIONS: dict[str, dict[str, Any]] = {
    "one": {},
    "without norms": {"layer_norm": False},
    "two layers": {"num_layers": 2, "batch_first": True},
    "both directions": {"bidirectional": True, "num_layers": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_one_graph_gives_the_numbers_of_eager_mode(
    options: dict[str, Any], computed: list[str]
) -> None:
    """For every length and batch, with masks and states, as a whole or in parts."""
    layer = make_layer(hidden_size=16, num_heads=2, **options)
    cells = len(layer.cells) + len(layer.reverse_cells)
    compiled, counter = compile_layer(layer, "aot_eager")
    torch.set_num_threads(2)
    graphs = []
    for T, B in ((40, 5), (70, 6), (17, 3), (133, 5)):
        shape = (B, T) if layer.batch_first else (T, B)
        x = torch.randn(*shape, 3, dtype=torch.float64, requires_grad=True)
        mask = torch.rand(shape) < 0.6
        state = tuple(torch.randn_like(part).requires_grad_() for part in layer.init_hidden(B))
        inputs = [x, *state, *layer.parameters()]
        expected = layer(x, state, mask=mask)
        expected_gradients = gradients(expected, inputs)
        computed.clear()
        result = compiled(x, state, mask=mask)
        assert_close(result, expected)
        assert result[0].stride() == expected[0].stride()
        assert_close(gradients(result, inputs), expected_gradients, GRADIENT_TOLERANCE)
        # two threads want four samples
        assert computed == ["parts" if B == 3 else "whole"] * 2 * cells
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 4
    assert count_ops(counter) == cells


@pytest.mark.slow
@pytest.mark.parametrize("batch_first", [False, True])
def test_compiled_by_inductor(batch_first: bool, computed: list[str]) -> None:
    """Training in float32, with a graph of the compiler's own backend."""
    layer = mLSTMLayer(
        3, 16, 2, dropout=0.0, num_heads=2, batch_first=batch_first, bidirectional=True
    )
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for T, B in ((40, 4), (33, 6)):
        x = torch.randn((B, T, 3) if batch_first else (T, B, 3), requires_grad=True)
        mask = torch.rand(x.shape[:2]) < 0.6
        results = []
        for module in (compiled, layer):
            output, state = module(x, mask=mask)
            loss = output.square().sum() + sum(part.sum() for part in state)
            grads = torch.autograd.grad(loss, (x, *layer.parameters()))
            results.append((output, *state, *grads))
        assert results[0][0].stride() == results[1][0].stride()
        for actual, expected in zip(*results, strict=True):
            assert_close(actual, expected)
    assert computed == ["whole"] * len(computed)


def test_parts_take_over_for_large_weights_in_few_steps(computed: list[str]) -> None:
    layer = mLSTMLayer(300, 32, dropout=0.0).double()
    compiled, counter = compile_layer(layer)
    graphs = []
    for T, form in ((8, "parts"), (40, "whole")):
        x = torch.randn(T, 4, 300, dtype=torch.float64)
        expected = layer(x)
        computed.clear()
        assert_close(compiled(x), expected)
        assert computed == [form]
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 2


def plain_layer(**options: Any) -> mLSTMLayer:
    return mLSTMLayer(3, 16, num_heads=2, **options)


def hook(layer: mLSTMLayer) -> mLSTMLayer:
    layer.cells[0].projection.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


OTHERS: dict[str, Callable[[], mLSTMLayer]] = {
    "norm of the heads": lambda: plain_layer(norm_heads=True),
    "heads of 2": lambda: mLSTMLayer(3, 8),
    "hook": lambda: hook(plain_layer()),
    "different eps": lambda: different_eps(plain_layer()),
    "too large a weight": lambda: mLSTMLayer(600, 64),
}


def different_eps(layer: mLSTMLayer) -> mLSTMLayer:
    layer.cells[0].norm_k.eps = 0.5
    return layer


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_layers_are_compiled_as_before(make: Callable[[], mLSTMLayer]) -> None:
    layer = make().eval()
    x = torch.randn(9, 4, layer.input_size)
    compiled, counter = compile_layer(layer)
    assert_close(compiled(x), layer(x))
    assert not count_ops(counter)


def test_kernel_and_autocast_decide() -> None:
    layer, x = plain_layer(dropout=0.0), torch.randn(9, 4, 3)
    assert has_op(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not has_op(layer, x)
    use_kernel(False)
    assert not has_op(layer, x)


def test_switch_of_the_kernel_compiles_again(computed: list[str]) -> None:
    layer, x = plain_layer(dropout=0.0), torch.randn(9, 4, 3)
    compiled, counter = compile_layer(layer)
    results, graphs = [], []
    for enabled in (True, False, True):
        use_kernel(enabled)
        results.append(compiled(x))
        assert computed == ["whole"] * enabled
        computed.clear()
        graphs.append(counter.frame_count)
    assert_close(results[0], results[1])
    assert_close(results[2], results[1])
    assert graphs[0] < graphs[1] == graphs[2]


def test_dropout_is_compiled_around_the_cell() -> None:
    layer, x = plain_layer(dropout=0.3), torch.randn(200, 8, 3, requires_grad=True)
    compiled, counter = compile_layer(layer, "aot_eager")
    output, state = compiled(x)
    assert count_ops(counter) == 1
    assert output.shape == (200, 8, 16)
    assert all(part.isfinite().all() for part in (output, *state))
    assert (output == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)
    (grad,) = torch.autograd.grad(output.square().sum(), x)
    assert grad.isfinite().all()
    assert (grad == 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    layer.eval()
    assert_close(compiled(x), layer(x))


def test_input_without_a_gradient_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel need not compute it, as for the first cell of most models."""
    needed: list[bool] = []
    original = backend.cell.backward

    def spy(*args: Any) -> Any:
        needed.append(args[2])
        return original(*args)

    monkeypatch.setattr(backend, "cell", backend.cell._replace(backward=spy))
    layer = plain_layer(dropout=0.0, num_layers=2)
    compiled, _ = compile_layer(layer, "aot_eager")
    x = torch.randn(9, 4, 3)
    found, expected = (
        torch.autograd.grad(module(x)[0].sum(), list(layer.parameters()))
        for module in (compiled, layer)
    )
    assert needed == [True, False] * 2
    assert_close(found, expected)


def test_overflow_is_an_error() -> None:
    layer = plain_layer(dropout=0.0, layer_norm=False)
    compiled, _ = compile_layer(layer)
    with pytest.raises(ValueError, match="mLSTMLayer: finite inputs overflow.*: x has"):
        compiled(torch.randn(40, 4, 3) * 1e20)
    with torch.no_grad():
        layer.cells[0].projection.weight.fill_(torch.nan)
    assert compiled(torch.randn(40, 4, 3))[0].isnan().any()


# --- the operator itself


def run_op(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, n: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """Return h and the last c, n and valid step of h; ``rest`` ends with the padding."""
    h, last_h, *state = cell_op(*op_arguments(x, weight, bias, c, n, *rest))
    return h, *state, last_h


def op_arguments(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, n: Tensor, *rest: Any
) -> tuple[Any, ...]:
    *affine, padding = rest
    return x, weight, bias, [c, n], padding, affine, 1e-5, "cpp", x.stride(0) < x.stride(1)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "parts"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("norms", [False, True])
def test_operator_matches_the_equations(
    norms: bool, padded: bool, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        use_parts(monkeypatch)
    inputs = draw_cell(11, 2, 8, 5, norms, B=5)
    padding = torch.rand(5, 11, 1) < 0.4 if padded else None
    last = [10] * 5
    if padding is not None:
        last = [max(step for step in range(11) if not sample[step]) for sample in padding]

    def reference(*inputs: Any) -> tuple[Tensor, ...]:
        h, *state = cell_reference(*inputs)
        return h, *state, h[range(5), last]

    expected = with_gradients(reference, inputs, padding)
    assert_close(with_gradients(run_op, inputs, padding), expected, GRADIENT_TOLERANCE)
    inputs = (inputs[0].detach(), *inputs[1:])  # without the gradient of x
    actual = with_gradients(lambda *rest: run_op(inputs[0], *rest), inputs[1:], padding)
    assert_close(actual, (*expected[:4], *expected[5:]), GRADIENT_TOLERANCE)


@pytest.mark.parametrize("used", range(4), ids=["h", "c", "n", "last h"])
def test_gradients_of_a_single_result(used: int) -> None:
    inputs = draw_cell(35, 2, 8, 4, norms=True)

    def reference(*inputs: Any) -> tuple[Tensor, ...]:
        h, *state = cell_reference(*inputs)
        return h, *state, h[:, -1]

    actual, expected = (
        torch.autograd.grad(form(*inputs, None)[used].sin().sum(), inputs, materialize_grads=True)
        for form in (run_op, reference)
    )
    assert_close(actual, expected, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("steps_first", [False, True])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "parts"])
@pytest.mark.parametrize("norms", [False, True])
def test_operator_passes_opcheck(
    norms: bool, whole: bool, steps_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        use_parts(monkeypatch)
    x, *others = draw_cell(11, 2, 8, 5, norms, B=5)
    if steps_first:
        x = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    padding = torch.rand(5, 11, 1) < 0.4
    torch.library.opcheck(cell_op, op_arguments(x, *others, padding))
    torch.library.opcheck(cell_op, op_arguments(x.detach(), *others, None))


def test_whole_and_parts_agree_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With as many rows as oneDNN multiplies."""
    inputs = draw_cell(300, 2, 8, 5, True, torch.float32, B=4)
    expected = with_gradients(run_op, inputs, None)
    never = backend.cell._replace(pays_off=lambda x, weight: False)
    monkeypatch.setattr(backend, "cell", never)
    assert_close(with_gradients(run_op, inputs, None), expected)
