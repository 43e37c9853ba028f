"""The whole cell in the kernel, against the equations of the paper."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from helpers.cpp_kernel import cell_reference, draw_cell, needs_compiler, with_gradients
from helpers.layers import GRADIENT_TOLERANCE, step_cells
from helpers.products import spread
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMLayer, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cell_autograd import CellFunction
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import backend, bindings

EPS = 1e-5


def cell_kernel(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, n: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """Return h and the last c and n; ``rest`` ends with the padding."""
    *affine, padding = rest
    norms = (EPS, *affine) if affine else ()
    m = n.new_zeros(n.shape[:2])
    return CellFunction.apply(x, weight, bias, c, n, m, padding, None, None, 0.0, "cpp", *norms)


@needs_compiler
@spread("d, T", bindings.HEAD_SIZES, [1, 5, 31, 33, 70])
@pytest.mark.parametrize("norms", [False, True], ids=["no-norm", "norm"])
def test_outputs_and_gradients_match_the_equations(d: int, T: int, norms: bool) -> None:
    """For every head size, and numbers of rows around those of the tiles of a product."""
    inputs = draw_cell(T, 2, d, 5, norms)
    actual = with_gradients(cell_kernel, inputs, None)
    assert_close(actual, with_gradients(cell_reference, inputs, None), GRADIENT_TOLERANCE)


@needs_compiler
@pytest.mark.parametrize("NH", [1, 3, 5])
@pytest.mark.parametrize("input_size", [1, 7, 16, 33, 100])
def test_sizes_need_not_fill_vectors(NH: int, input_size: int) -> None:
    inputs = draw_cell(9, NH, 8, input_size, norms=True)
    actual = with_gradients(cell_kernel, inputs, None)
    assert_close(actual, with_gradients(cell_reference, inputs, None), GRADIENT_TOLERANCE)


@needs_compiler
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_padding_leaves_the_state_unchanged(share: float) -> None:
    inputs, padding = draw_cell(40, 2, 8, 6, norms=True), torch.rand(3, 40, 1) < share
    actual = with_gradients(cell_kernel, inputs, padding)
    assert_close(actual, with_gradients(cell_reference, inputs, padding), GRADIENT_TOLERANCE)


@needs_compiler
def test_strides_of_the_input_do_not_matter() -> None:
    x, *others = draw_cell(33, 2, 8, 6, norms=True)
    expected = with_gradients(cell_kernel, (x, *others), None)
    with torch.no_grad():
        time_first = x.transpose(0, 1).contiguous().transpose(0, 1)
        by_column = x.mT.contiguous().mT
    for strided in (time_first, by_column):
        assert strided.stride() != x.stride()
        inputs = (strided.requires_grad_(), *others)
        assert_identical(with_gradients(cell_kernel, inputs, None), expected)


@needs_compiler
@pytest.mark.parametrize("B", [2, 16, 17, 40])
def test_number_of_threads_changes_no_bit(B: int) -> None:
    """Sums over samples have an order of their own."""
    inputs = draw_cell(70, 4, 16, 24, True, torch.float32, B)
    expected = with_gradients(cell_kernel, inputs, None)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        try:
            assert_identical(with_gradients(cell_kernel, inputs, None), expected)
        finally:
            torch.set_num_threads(1)


@needs_compiler
def test_derivatives_match_finite_differences() -> None:
    inputs = draw_cell(3, 1, 8, 2, norms=True, B=1)
    padding = torch.tensor([[[False], [True], [False]]])

    def form(*inputs: Tensor) -> tuple[Tensor, ...]:
        return cell_kernel(*inputs, padding)

    assert torch.autograd.gradcheck(form, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(form, inputs, fast_mode=True)


@needs_compiler
def test_batch_of_gradients() -> None:
    """As ``torch.autograd.functional.jacobian`` asks for with ``vectorize=True``."""
    inputs = draw_cell(4, 1, 8, 3, norms=True, B=2)
    results = cell_kernel(*inputs, None)
    rows = torch.randn(3, *results[0].shape, dtype=torch.float64)
    batched = torch.autograd.grad(
        results[0], inputs[:3], rows, is_grads_batched=True, retain_graph=True
    )
    for number, row in enumerate(rows):
        expected = torch.autograd.grad(results[0], inputs[:3], row, retain_graph=True)
        assert_close(tuple(part[number] for part in batched), expected, GRADIENT_TOLERANCE)


@needs_compiler
@pytest.mark.parametrize("used", [(0,), (1,), (2,)], ids="hcn")
def test_gradients_of_a_single_result(used: tuple[int]) -> None:
    inputs = draw_cell(35, 2, 8, 4, norms=True)

    def one(form: Any) -> tuple[Tensor, ...]:
        result = form(*inputs, None)[used[0]]
        return torch.autograd.grad(result.sin().sum(), inputs, materialize_grads=True)

    assert_close(one(cell_kernel), one(cell_reference), GRADIENT_TOLERANCE)


@needs_compiler
def test_input_without_a_gradient() -> None:
    inputs = draw_cell(35, 2, 8, 4, norms=True)
    expected = with_gradients(cell_kernel, inputs, None)
    x = inputs[0].detach()
    h, c, n = cell_kernel(x, *inputs[1:], None)
    loss = h.sin().sum() + 2 * c.sin().sum() + 3 * n.sin().sum()
    # without x among the results
    assert_close(torch.autograd.grad(loss, inputs[1:]), expected[4:], GRADIENT_TOLERANCE)


@needs_compiler
def test_forward_pass_saves_nothing_but_its_inputs() -> None:
    """Pre-activations are four times as large as the input."""
    inputs = draw_cell(500, 2, 8, 16, norms=True)
    saved: list[int] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x.data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        cell_kernel(*inputs, None)
    given = {x.data_ptr() for x in inputs}
    assert len(saved) == len(inputs) + 1  # and m
    assert len(set(saved) - given) == 1


@needs_compiler
def test_overflow_of_a_variance_is_not_hidden() -> None:
    """An inverse standard deviation of 0 would turn the part into its bias."""
    x, *others = draw_cell(5, 2, 8, 4, True, torch.float32)
    h, _, _ = cell_kernel(x.detach() * 1e25, *others, None)
    assert h.isnan().all()


@pytest.fixture
def cell_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Enable the kernel, and record the whole cells that it computes."""
    use_kernel()
    calls: list[str] = []
    forms = backend.cell

    def spy(*args: Any) -> Any:
        calls.append("cell")
        return forms.forward(*args)

    monkeypatch.setattr(backend, "cell", forms._replace(forward=spy))
    return calls


def small_layer(**options: Any) -> mLSTMLayer:
    return mLSTMLayer(3, 16, num_heads=2, dropout=0.0, **options)


@needs_compiler
def test_layer_uses_it(cell_calls: list[str]) -> None:
    small_layer(num_layers=2)(torch.randn(9, 4, 3))
    assert cell_calls == ["cell"] * 2


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@needs_compiler
def test_projection_that_does_more_is_called(cell_calls: list[str]) -> None:
    """Hooks, parametrizations and other modules take the place of the fused projection."""
    x = torch.randn(9, 4, 3)
    hooked = small_layer()
    seen: list[int] = []
    hooked.cells[0].projection.register_forward_hook(lambda *_: seen.append(1))
    hooked(x)
    assert seen
    parametrized = small_layer()
    plain = small_layer()
    plain.load_state_dict(parametrized.state_dict())
    with torch.no_grad():
        plain.cells[0].projection.weight.mul_(2)
    parametrize.register_parametrization(parametrized.cells[0].projection, "weight", Doubled())
    actual = parametrized(x)
    assert not cell_calls
    assert_close(actual, plain(x))
    assert cell_calls
    cell_calls.clear()
    replaced = small_layer()
    replaced.cells[0].projection = nn.Linear(3, 68)
    replaced(x)
    with torch.autocast("cpu", torch.bfloat16):
        plain(x)
    assert not cell_calls


@needs_compiler
def test_global_hooks_and_patched_forward_are_called(cell_calls: list[str]) -> None:
    layer, x = small_layer(), torch.randn(9, 4, 3)
    seen: list[nn.Module] = []
    handle = register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        layer(x)
    finally:
        handle.remove()
    projection = layer.cells[0].projection
    assert any(module is projection for module in seen)
    expected = layer(x)
    cell_calls.clear()
    original = projection.forward
    projection.forward = lambda x: original(2 * x)  # type: ignore[method-assign]
    assert (layer(x)[0] - expected[0]).abs().max() > 1e-3
    assert not cell_calls


def double_norm(layer: mLSTMLayer) -> None:
    layer.cells[0].norm_k.double()


def round_norms(layer: mLSTMLayer) -> None:
    for norm in (layer.cells[0].norm_q, layer.cells[0].norm_gates):
        norm.bfloat16()


def swap_norms(layer: mLSTMLayer) -> None:
    cell = layer.cells[0]
    cell.norm_q, cell.norm_gates = cell.norm_gates, cell.norm_q


def double_bias(layer: mLSTMLayer) -> None:
    projection = layer.cells[0].projection
    projection.bias = nn.Parameter(projection.bias.detach().double())


def shorten_bias(layer: mLSTMLayer) -> None:
    layer.cells[0].projection.bias = nn.Parameter(torch.zeros(10))


def widen_weight(layer: mLSTMLayer) -> None:
    layer.cells[0].projection.weight = nn.Parameter(torch.randn(68, 7))


@needs_compiler
@pytest.mark.parametrize("B", [3, 4])
@pytest.mark.parametrize(
    "change", [double_norm, round_norms, swap_norms, double_bias, shorten_bias, widen_weight]
)
def test_parameters_that_do_not_fit_are_not_read(
    change: Callable[[mLSTMLayer], None], B: int
) -> None:
    """The kernel has their addresses alone; torch computes or raises, for whole cells and parts."""
    layer, x = small_layer(), torch.randn(40, B, 3)
    change(layer)

    def result() -> object:
        try:
            return layer(x)[0].detach()
        except RuntimeError as error:
            return str(error)

    torch.set_num_threads(2)
    try:
        use_kernel()
        actual = result()
        use_kernel(False)
        expected = result()
    finally:
        torch.set_num_threads(1)
        use_kernel()
    if isinstance(expected, str):
        assert actual == expected
    else:
        assert isinstance(actual, Tensor)
        assert_close(actual, expected)


@needs_compiler
def test_norms_of_different_eps() -> None:
    layer, x = small_layer(), torch.randn(40, 4, 3)
    layer.cells[0].norm_k.eps = 0.5
    actual = layer(x)
    assert_close(actual[0], step_cells(layer, x, layer.init_hidden(4))[0])


@needs_compiler
def test_bit_that_negates_a_tensor_is_read(cell_calls: list[str]) -> None:
    layer, x = small_layer(batch_first=True), torch.randn(4, 20, 3)
    negated = torch._neg_view(x)
    assert negated.is_neg()
    assert_close(layer(negated), layer(-x))
    output, _ = layer(x.requires_grad_())
    grads = [
        torch.autograd.grad(output, x, grad, retain_graph=True)[0]
        for grad in (torch._neg_view(torch.ones_like(output)), -torch.ones_like(output))
    ]
    assert_close(*grads)
    assert cell_calls


@needs_compiler
def test_activation_checkpoints() -> None:
    """What is saved may be unpacked only once."""
    layer, x = small_layer(), torch.randn(20, 4, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x)[0].sum(), x)
    output = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    assert_close(torch.autograd.grad(output.sum(), x)[0], expected)


@needs_compiler
def test_second_derivative_under_autocast_is_not_rounded() -> None:
    layer, x = small_layer(), torch.randn(20, 4, 3, requires_grad=True)
    output = layer(x)[0]
    (expected,) = torch.autograd.grad(output.square().mean(), x, create_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (actual,) = torch.autograd.grad(output.square().mean(), x, create_graph=True)
    # the loss is outside of the layer and is rounded
    assert_close(actual, expected, 1e-2 * expected.abs().max().item())


@needs_compiler
def test_gradients_of_parameters_keep_digits_over_many_steps() -> None:
    torch.manual_seed(0)
    layer, x = small_layer(), torch.rand(20_000, 2, 3) + 1
    exact = deepcopy(layer).double()

    def grad(layer: mLSTMLayer, x: Tensor) -> Tensor:
        weight = layer.cells[0].projection.bias, layer.cells[0].projection.weight
        return torch.autograd.grad(layer(x)[0].sum(), weight)[1].double()

    expected = grad(exact, x.double())
    error = (grad(layer, x) - expected).norm() / expected.norm()
    use_kernel(False)
    reference = (grad(layer, x) - expected).norm() / expected.norm()
    use_kernel()
    assert error < 4 * reference + 1e-6


@needs_compiler
def test_few_samples_leave_single_heads_to_threads(cell_calls: list[str]) -> None:
    layer, x = small_layer(), torch.randn(9, 3, 3)
    expected = layer(x)
    assert cell_calls
    cell_calls.clear()
    torch.set_num_threads(2)
    try:
        assert_close(layer(x), expected)
        assert not cell_calls
    finally:
        torch.set_num_threads(1)


@needs_compiler
@pytest.mark.parametrize(("input_size", "T"), [(600, 40), (300, 8)])
def test_large_weights_are_left_to_torch(cell_calls: list[str], input_size: int, T: int) -> None:
    """A weight that fits the cache is read and written for every sample, however short."""
    layer = mLSTMLayer(input_size, 64, num_heads=4)
    layer(torch.randn(T, 4, input_size))
    assert not cell_calls
    if input_size == 300:
        layer(torch.randn(32, 4, input_size))
        assert cell_calls


@needs_compiler
@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_is_that_of_pytorch(batch_first: bool) -> None:
    """The kernel drops the same elements as two modules around the cell, for the same seed."""
    layer = mLSTMLayer(12, 32, dropout=0.3, batch_first=batch_first, num_layers=2).double()
    shape = (8, 70, 12) if batch_first else (70, 8, 12)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    results = []
    for kernel in (True, False):
        use_kernel(kernel)
        torch.manual_seed(3)
        output, state = layer(x)
        loss = output.square().sum() + sum(part.sum() for part in state)
        results.append((output, *torch.autograd.grad(loss, (x, *layer.parameters()))))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, GRADIENT_TOLERANCE)
    zeros = (results[0][1] == 0).double().mean().item()
    assert zeros == pytest.approx(0.3, abs=0.05)  # of the gradient of x


@needs_compiler
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("sizes", [(8, 20, 12, 16), (4, 70, 3, 32)], ids=str)
def test_dropout_of_small_inputs_is_that_of_pytorch(
    sizes: tuple[int, ...], batch_first: bool, cell_calls: list[str]
) -> None:
    """Of inputs or outputs that are too small for 16 bits per element."""
    B, T, input_size, _ = sizes
    layer = mLSTMLayer(*sizes[2:], dropout=0.3, num_heads=2, batch_first=batch_first).double()
    shape = (B, T, input_size) if batch_first else (T, B, input_size)
    x = torch.randn(shape, dtype=torch.float64)
    results = []
    for kernel in (True, False):
        use_kernel(kernel)
        torch.manual_seed(3)
        results.append(layer(x)[0])
    assert cell_calls
    assert_close(*results, GRADIENT_TOLERANCE)


@needs_compiler
def test_hook_of_dropout_may_change_the_dtype() -> None:
    """The kernel would read memory beyond a weight of another dtype."""
    layer = mLSTMLayer(12, 32).eval()
    layer.cells[0].dropout.register_forward_hook(lambda module, args, output: output.double())
    with pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(70, 8, 12))


@needs_compiler
def test_second_derivatives_have_the_same_dropout() -> None:
    layer = mLSTMLayer(16, 16, dropout=0.3, num_heads=2).double()
    x = torch.randn(40, 8, 16, dtype=torch.float64, requires_grad=True)
    results = []
    for kernel in (True, False):
        use_kernel(kernel)
        torch.manual_seed(3)
        (first,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        results.append((first, *torch.autograd.grad(first.square().sum(), x)))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, GRADIENT_TOLERANCE)


def test_output_lies_in_memory_as_the_input() -> None:
    for batch_first in (False, True):
        output, _ = mLSTMLayer(8, 32, batch_first=batch_first).eval()(torch.randn(40, 8, 8))
        assert output.is_contiguous()
