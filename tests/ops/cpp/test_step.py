"""A single step of a cell in the kernel: equal to PyTorch, and used where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.cpp_kernel import needs_compiler
from helpers.reference import reference_cell
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMCell, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import step as cpp_step

pytestmark = needs_compiler

State = tuple[Tensor, Tensor, Tensor]
SIZES = [(1, None), (2, None), (37, None), (1, 1), (2, 1), (35, 5), (66, 2), (64, 1)]


@pytest.fixture(autouse=True)
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Enable the kernel and list its steps."""
    use_kernel()
    calls: list[str] = []
    for name, direction in (("kernel_step", "forward"), ("kernel_step_backward", "backward")):
        original = getattr(cpp_step, name)

        def spy(*args: Any, direction: str = direction, original: Any = original) -> Any:
            calls.append(direction)
            return original(*args)

        monkeypatch.setattr(cpp_step, name, spy)
    yield calls
    use_kernel(False)


def make_cell(
    hidden_size: int = 12,
    num_heads: int | None = 3,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> mLSTMCell:
    """Build a cell with 3 inputs, no dropout, and no parameter at its initial value."""
    cell = mLSTMCell(3, hidden_size, 0.0, num_heads=num_heads, **options).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return cell


def draw(cell: mLSTMCell, B: int = 2) -> tuple[Tensor, ...]:
    """Draw x and a state that is not empty."""
    state = cell.init_hidden(B)
    x = torch.randn(B, 3, dtype=state[0].dtype)
    return x, *(torch.randn_like(part) for part in state)


def in_pytorch(function: Callable[[], Any]) -> Any:
    use_kernel(False)
    try:
        return function()
    finally:
        use_kernel()


def with_gradients(
    cell: mLSTMCell, inputs: tuple[Tensor, ...], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the results of a step, and the gradients of a combination of them."""
    x, h, c, n = (part.detach().requires_grad_() for part in inputs)
    results = cell(x, h, c, n)
    loss = sum(((j + 1) * part.sin()).sum() for j, part in enumerate(results))
    leaves = [x, c, n, *cell.parameters()]
    gradients = torch.autograd.grad(loss, leaves, create_graph=create_graph)
    if not create_graph:
        return *results, *gradients
    second = sum(part.square().sum() for part in gradients)
    return *results, *gradients, *torch.autograd.grad(second, leaves, allow_unused=True)


@pytest.mark.parametrize("B", [0, 1, 3])
@pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "no-norm"])
@pytest.mark.parametrize(("hidden_size", "num_heads"), SIZES)
def test_step_and_gradients_match_pytorch(
    kernel_calls: list[str], hidden_size: int, num_heads: int | None, layer_norm: bool, B: int
) -> None:
    cell = make_cell(hidden_size, num_heads, layer_norm=layer_norm)
    inputs = draw(cell, B)
    actual = with_gradients(cell, inputs)
    assert kernel_calls == ["forward", "backward"]
    assert_close(actual, in_pytorch(lambda: with_gradients(cell, inputs)), 1e-10)
    with torch.no_grad():
        assert_identical(cell(*inputs), actual[:3])


@pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "no-norm"])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_norm_of_heads_matches_pytorch(
    kernel_calls: list[str], num_heads: int, layer_norm: bool
) -> None:
    cell = make_cell(12, num_heads, layer_norm=layer_norm, norm_heads=True)
    inputs = draw(cell)
    actual = with_gradients(cell, inputs)
    assert kernel_calls == ["forward", "backward"]
    assert_close(actual, in_pytorch(lambda: with_gradients(cell, inputs)), 1e-10)


@pytest.mark.parametrize("num_heads", [None, 3])
def test_step_follows_the_equations(kernel_calls: list[str], num_heads: int | None) -> None:
    cell = make_cell(num_heads=num_heads)
    heads = num_heads or 12
    x, h, _, n = draw(cell)
    c = torch.randn(2, heads, 12 // heads, 12 // heads, dtype=torch.float64)
    expected = reference_cell(dict(cell.named_parameters()), heads, x, c, n)
    h, c, n = cell(x, h, c if num_heads else c.view(2, 12), n)
    assert kernel_calls
    assert_close((h, c.view(expected[1].shape), n), expected)


@pytest.mark.parametrize("num_heads", [None, 2])
def test_float32_is_as_close_to_float64_as_pytorch(num_heads: int | None) -> None:
    cell = make_cell(64, num_heads, torch.float32)
    inputs = tuple(part.float() for part in draw(cell, 8))
    actual, plain = cell(*inputs), in_pytorch(lambda: cell(*inputs))
    exact = in_pytorch(lambda: cell.double()(*(part.double() for part in inputs)))
    for a, p, e in zip(actual, plain, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - e).abs().max() < 4 * (p - e).abs().max() + 1e-6


def test_long_memory_keeps_its_digits() -> None:
    """A nearly open forget gate is applied as 1 - f, which float32 represents."""
    cell = mLSTMCell(1, 1, 0.0, layer_norm=False).eval()
    with torch.no_grad():
        cell.projection.weight.zero_()
        cell.projection.bias.zero_()
        cell.projection.bias[4] = 12.0  # f
        state = tuple(torch.ones(1, 1) for _ in range(3))
        for _ in range(1000):
            state = cell(torch.zeros(1, 1), *state)
    expected = math.exp(-1000 * math.log1p(math.exp(-12.0)))
    assert state[2].item() == pytest.approx(expected, rel=3e-5)


@pytest.mark.parametrize("num_heads", [None, 3])
def test_second_derivatives_match_pytorch(kernel_calls: list[str], num_heads: int | None) -> None:
    cell = make_cell(num_heads=num_heads)
    inputs = draw(cell)
    actual = with_gradients(cell, inputs, create_graph=True)
    assert "forward" in kernel_calls
    expected = in_pytorch(lambda: with_gradients(cell, inputs, create_graph=True))
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if a is not None:
            assert_close(a, e, 1e-9)


@pytest.mark.parametrize("used", range(3))
def test_gradient_of_each_result_alone(used: int) -> None:
    cell = make_cell(norm_heads=True)
    inputs = draw(cell)

    def run() -> tuple[Tensor, ...]:
        leaves = [part.detach().requires_grad_() for part in (inputs[0], *inputs[2:])]
        result = cell(leaves[0], inputs[1], *leaves[1:])[used]
        found = torch.autograd.grad(result.sin().sum(), leaves, materialize_grads=True)
        return tuple(found)

    assert_close(run(), in_pytorch(run), 1e-10)


def test_tensors_that_are_not_dense(kernel_calls: list[str]) -> None:
    cell = make_cell()
    x, h, c, n = draw(cell)
    expected = cell(x, h, c, n)
    strided = [part.mT.contiguous().mT for part in (x, h, c, n)]
    assert not any(part.is_contiguous() for part in strided)
    assert_close(cell(*strided), expected)
    expanded = [part[:1].expand(part.shape) for part in (x, h, c, n)]
    assert_close(cell(*expanded), cell(*(part.contiguous() for part in expanded)))
    assert len(kernel_calls) == 4


def test_inputs_stay_unchanged_and_results_are_new() -> None:
    cell = make_cell()
    inputs = draw(cell)
    original = tuple(part.clone() for part in inputs)
    first = cell(*inputs)
    kept = tuple(part.clone() for part in first)
    cell(*inputs)
    assert_identical(inputs, original)
    assert_identical(first, kept)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients(kernel_calls: list[str], mode: Callable[[], Any]) -> None:
    cell = make_cell()
    inputs = draw(cell)
    expected = tuple(part.detach() for part in cell(*inputs))
    with mode():
        results = cell(*inputs)
    assert_identical(results, expected)
    assert not any(part.requires_grad for part in results)
    assert kernel_calls == ["forward"] * 2


def test_autocast_rounds_only_the_projection() -> None:
    for layer_norm in (True, False):
        cell = make_cell(dtype=torch.float32, layer_norm=layer_norm)
        inputs = tuple(part.float() for part in draw(cell))
        with torch.autocast("cpu", torch.bfloat16):
            results, expected = cell(*inputs), in_pytorch(lambda c=cell, i=inputs: c(*i))
        assert {part.dtype for part in results} == {torch.float32}
        assert_close(results, expected)


def test_tensor_in_two_places_counts_once() -> None:
    """The initial c and n may be one tensor; both ways to the gradient must agree."""
    cell = make_cell(num_heads=None)
    x, z, *_ = draw(cell)
    z.requires_grad_()
    loss = cell(x, z, z, z)[0].sin().sum()
    (plain,) = torch.autograd.grad(loss, z, retain_graph=True)
    (differentiable,) = torch.autograd.grad(loss, z, create_graph=True)
    assert_close(differentiable, plain)


# --- what is computed in PyTorch


def scale_output(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


class OtherNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return 3 * super().forward(input)


def with_hook(cell: mLSTMCell) -> None:
    cell.norm_gates.register_forward_hook(scale_output)


def with_other_norm(cell: mLSTMCell) -> None:
    cell.norm_k = OtherNorm(12, dtype=torch.float64)


def with_parametrization(cell: mLSTMCell) -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    nn.utils.parametrize.register_parametrization(cell.norm_v, "weight", Double())


def with_norm_without_bias(cell: mLSTMCell) -> None:
    cell.norm_q.bias = None


@pytest.mark.parametrize(
    "change", [with_hook, with_other_norm, with_parametrization, with_norm_without_bias]
)
def test_modified_norms_are_called(
    kernel_calls: list[str], change: Callable[[mLSTMCell], None]
) -> None:
    cell = make_cell()
    inputs = draw(cell)
    before = cell(*inputs)
    change(cell)
    kernel_calls.clear()
    results = cell(*inputs)
    assert not kernel_calls
    assert not torch.equal(results[0], before[0])
    assert_identical(results, in_pytorch(lambda: cell(*inputs)))


@pytest.mark.parametrize("name", ["norm_gates", "norm_q"])
def test_replaced_norms_are_respected(name: str) -> None:
    cell = make_cell()
    setattr(cell, name, nn.Identity())
    inputs = draw(cell)
    assert_close(cell(*inputs), in_pytorch(lambda: cell(*inputs)))


def test_each_norm_has_its_eps() -> None:
    cell = make_cell(norm_heads=True)
    for j, norm in enumerate((cell.norm_q, cell.norm_k, cell.norm_v, cell.norm_gates)):
        norm.eps = 0.1 * (j + 1)
    inputs = draw(cell)
    assert_close(cell(*inputs), in_pytorch(lambda: cell(*inputs)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch's compiler
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # raised by vmap
def test_traces_and_transforms_skip_the_kernel(
    kernel_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # After threads have left dispatch modes, as those of other tests, torch 2.7 no longer compiles.
    flag = "torch.utils._python_dispatch._is_in_non_infra_torch_dispatch_mode"
    monkeypatch.setattr(flag, False, raising=False)
    cell = make_cell().eval()
    x, h, c, n = draw(cell)
    expected = in_pytorch(lambda: cell(x, h, c, n))
    torch._dynamo.reset()
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, h, c, n), expected)
    exported = torch.export.export(cell, (x, h, c, n)).module()
    assert_close(exported(x, h, c, n), expected)
    vmapped = torch.func.vmap(lambda *one: cell(*(part[None] for part in one)))(x, h, c, n)
    assert_close(tuple(part[:, 0] for part in vmapped), expected)
    _, tangent = torch.func.jvp(lambda c: cell(x, h, c, n)[0], (c,), (torch.ones_like(c),))
    step = 1e-6
    ahead, behind = (in_pytorch(lambda s=s: cell(x, h, c + s, n)[0]) for s in (step, -step))
    assert_close(tangent, (ahead - behind) / (2 * step), 1e-7)
    gradient = torch.func.grad(lambda c: cell(x, h, c, n)[0].sum())(c)
    c.requires_grad_()
    expected_gradient = in_pytorch(lambda: torch.autograd.grad(cell(x, h, c, n)[0].sum(), c)[0])
    assert_close(gradient, expected_gradient)
    assert not kernel_calls


def test_jacobians_in_one_batch() -> None:
    cell = make_cell()
    x, h, c, n = draw(cell)
    found = [
        torch.autograd.functional.jacobian(lambda c: cell(x, h, c, n)[0], c, vectorize=vectorize)
        for vectorize in (True, False)
    ]
    assert_close(*found)


def test_subclasses_large_batches_and_other_dtypes_skip_the_kernel(kernel_calls: list[str]) -> None:
    class Marked(Tensor):
        pass

    cell = make_cell(dtype=torch.float32)
    x, h, c, n = draw(cell)
    cell(x, h, c.as_subclass(Marked), n)
    cell(*draw(cell, 1000))
    cell.bfloat16()(x.bfloat16(), h, c, n)
    cell.to("meta")(*(part.to("meta") for part in (x.bfloat16(), h, c, n)))
    assert not kernel_calls


@pytest.mark.parametrize("num_heads", [None, 1])
@pytest.mark.parametrize("enabled", [True, False], ids=["kernel", "PyTorch"])
def test_overflow_of_the_normalizer_raises(num_heads: int | None, enabled: bool) -> None:
    """nᵀq overflows although n and q do not: C q / inf would be 0, without a word."""
    use_kernel(enabled)
    cell = mLSTMCell(1, 2, 0.0, layer_norm=False, num_heads=num_heads).eval()
    with torch.no_grad():
        cell.projection.weight.zero_()
        cell.projection.bias.zero_()
        cell.projection.weight[:2] = 1.0  # q is x
    h, c, n = cell.init_hidden(1)
    with pytest.raises(ValueError, match=r"mLSTMCell: finite inputs overflow.*scale the inputs"):
        cell(torch.full((1, 1), 1e20), h, c + 1, n + 1e20)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", range(4))
def test_nonfinite_inputs_propagate(part: int, value: float) -> None:
    cell = make_cell()
    inputs = draw(cell)
    inputs[part][0].fill_(value)
    results = cell(*inputs)
    for result in results:
        assert result[1].isfinite().all()  # the other sample
    if part != 1:  # h_prev has no influence
        assert not results[0][0].isfinite().all()
