"""The table of backends: one entry is all that a new backend needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.layers import GRADIENT_TOLERANCE, draw_input, gradients, make_layer
from helpers.problems import make_problem
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMCell, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.norms import CellNorms
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import dispatch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.chunkwise import backend as pytorch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.execution import is_eager
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.naive import (
    naive_chunkwise,
    naive_gated,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.types import (
    Inputs,
    OutputGrads,
    StepResult,
)


class NaiveBackend:
    """A backend of naive operations, which lists its calls and saves nothing but its inputs."""

    NAME = "naive"
    SAVES_H = False
    READS_16_BITS = False
    cell = None
    normalizing = None
    layer_norm = None

    def __init__(self) -> None:
        self.calls: list[str] = []

    def supports_chunkwise(self, inputs: Inputs, chunk_size: int | None) -> bool:
        return torch.compiler.is_compiling() or is_eager()

    def supports_gated(self, p: Tensor, head_dim: int) -> bool:
        return True

    def plan_chunkwise(self, inputs: Inputs, L: int) -> bool:
        return True

    def plan_gated(
        self, parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int
    ) -> bool:
        return True

    def chunkwise_saved_shapes(self, state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
        return []

    gated_saved_shapes = chunkwise_saved_shapes

    def gated_tile_width(self, projected: int, NH: int, L: int) -> int:
        return projected

    op_tile_width = gated_tile_width

    def chunkwise_fwd(
        self, inputs: Inputs, state: mLSTMState, L: int, plan: bool
    ) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
        assert plan
        self.calls.append("chunkwise_fwd")
        h, last = naive_chunkwise(inputs, state, L)
        return h, last, ()

    def chunkwise_bwd(
        self,
        inputs: Inputs,
        state: mLSTMState,
        last_c: Tensor,
        last_n: Tensor,
        saved: Sequence[Tensor],
        grads: OutputGrads,
        L: int,
        plan: bool,
    ) -> tuple[Tensor, ...]:
        assert plan
        self.calls.append("chunkwise_bwd")

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            h, last = naive_chunkwise(Inputs(*tensors[:5]), mLSTMState(*tensors[5:]), L)
            return h, *last

        return differentiate(run, (*inputs, *state), grads)

    def gated_fwd(
        self,
        parts: Sequence[Tensor],
        state: mLSTMState,
        padding: Tensor | None,
        L: int,
        plan: bool,
    ) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
        assert plan
        self.calls.append("gated_fwd")
        h, last = naive_gated(torch.cat(list(parts), dim=-1), state, padding)
        return h.transpose(0, 1).contiguous().transpose(0, 1), last, ()

    def step(self, p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult | None:
        self.calls.append("step")
        return pytorch.step(p, norms, c, n)

    def gated_bwd(
        self,
        parts: Sequence[Tensor],
        state: mLSTMState,
        padding: Tensor | None,
        last_c: Tensor | None,
        last_n: Tensor | None,
        saved: Sequence[Tensor],
        grads: OutputGrads,
        L: int,
        plan: bool,
    ) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
        assert plan
        self.calls.append("gated_bwd")

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            *parts, c, n, m = tensors
            h, last = naive_gated(torch.cat(parts, dim=-1), mLSTMState(c, n, m), padding)
            return h, *last

        *grad_parts, grad_c, grad_n, grad_m = differentiate(run, (*parts, *state), grads)
        return grad_parts, (grad_c, grad_n, grad_m)


def differentiate(
    run: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], grads: OutputGrads
) -> tuple[Tensor, ...]:
    """Return the gradients of all inputs, by autograd."""
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        pairs = [(y, g) for y, g in zip(run(*leaves), grads, strict=True) if g is not None]
        outputs, output_grads = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, leaves, output_grads, allow_unused=True)
    return tuple(
        torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)
    )


class RenamedBackend:
    """The PyTorch backend by another name, which lists its calls.

    Autograd does not work inside a custom op, so the compiled forms cannot use ``NaiveBackend``.
    """

    NAME = "renamed"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.endswith(("_fwd", "_bwd")):
            self.calls.append(name)
        return getattr(pytorch, name)


@contextmanager
def registered(new: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a backend the only entry of the table, and switch it on."""
    monkeypatch.setattr(dispatch, "KERNELS", (dispatch.Kernel(new, lambda build: "a test"),))
    monkeypatch.setitem(dispatch.BACKENDS, new.NAME, new)
    use_kernel()
    yield


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[NaiveBackend]:
    new = NaiveBackend()
    with registered(new, monkeypatch):
        yield new


@pytest.fixture
def compiled_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenamedBackend]:
    new = RenamedBackend()
    with registered(new, monkeypatch):
        yield new


def second_derivative(function: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of the squared gradients of a result."""
    result = function()
    first = torch.autograd.grad(result.square().sum(), inputs, create_graph=True)
    loss = torch.stack([x.square().sum() for x in first]).sum()
    return torch.autograd.grad(loss, inputs)


def test_chunkwise_form_uses_the_backend(backend: NaiveBackend) -> None:
    problem = [x.requires_grad_() for x in make_problem(37)]

    def run() -> tuple[Tensor, ...]:
        h, state = mlstm_chunkwise(*problem[:5], mLSTMState(*problem[5:]))
        return h, *state

    results = run()
    found = torch.autograd.grad(sum(x.sin().sum() for x in results), problem)
    assert backend.calls == ["chunkwise_fwd", "chunkwise_bwd"]
    second = second_derivative(lambda: run()[0], problem)
    use_kernel(False)
    backend.calls.clear()
    expected = run()
    assert_close(results, expected)
    assert_close(
        found,
        torch.autograd.grad(sum(x.sin().sum() for x in expected), problem),
        GRADIENT_TOLERANCE,
    )
    assert_close(second, second_derivative(lambda: run()[0], problem), GRADIENT_TOLERANCE)
    assert not backend.calls


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_layer_uses_the_backend(backend: NaiveBackend, layer_norm: bool, masked: bool) -> None:
    layer = make_layer(num_layers=2, layer_norm=layer_norm)
    x = draw_input().requires_grad_()
    mask = torch.rand(x.shape[:2]) < 0.7 if masked else None
    inputs = [x, *layer.parameters()]
    result = layer(x, mask=mask)
    found = gradients(result, inputs)
    assert backend.calls == ["gated_fwd"] * 2 + ["gated_bwd"] * 2
    second = second_derivative(lambda: layer(x, mask=mask)[0], inputs)
    use_kernel(False)
    expected = layer(x, mask=mask)
    assert_close(result, expected)
    assert_close(found, gradients(expected, inputs), GRADIENT_TOLERANCE)
    assert_close(
        second, second_derivative(lambda: layer(x, mask=mask)[0], inputs), GRADIENT_TOLERANCE
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
def test_compiled_layer_uses_the_backend(compiled_backend: RenamedBackend) -> None:
    layer = make_layer()
    x = draw_input().requires_grad_()
    inputs = [x, *layer.parameters()]
    expected = layer(x)
    expected_gradients = gradients(expected, inputs)
    compiled_backend.calls.clear()
    torch._dynamo.reset()
    result = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), expected_gradients, GRADIENT_TOLERANCE)
    assert compiled_backend.calls == ["gated_fwd", "gated_bwd"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
def test_compiled_chunkwise_form_uses_the_backend(compiled_backend: RenamedBackend) -> None:
    problem = [x.requires_grad_() for x in make_problem(37)]

    def run(*tensors: Tensor) -> Tensor:
        return mlstm_chunkwise(*tensors[:5], mLSTMState(*tensors[5:]))[0]

    expected = run(*problem)
    expected_gradients = torch.autograd.grad(expected.sin().sum(), problem)
    compiled_backend.calls.clear()
    torch._dynamo.reset()
    result = torch.compile(run, fullgraph=True, backend="aot_eager")(*problem)
    assert_close(result, expected)
    assert_close(
        torch.autograd.grad(result.sin().sum(), problem), expected_gradients, GRADIENT_TOLERANCE
    )
    assert compiled_backend.calls == ["chunkwise_fwd", "chunkwise_bwd"]


def test_what_the_backend_does_not_support_is_computed_in_pytorch(
    backend: NaiveBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "supports_gated", lambda p, head_dim: False)
    monkeypatch.setattr(backend, "supports_chunkwise", lambda inputs, chunk_size: False)
    layer, x = make_layer(), draw_input()
    layer(x)
    mlstm_chunkwise(*make_problem(7)[:5])
    assert not backend.calls


def test_cell_uses_the_backend(backend: NaiveBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = mLSTMCell(3, 8, num_heads=2).eval()
    x, state = torch.randn(4, 3), cell.init_hidden(4)
    result = cell(x, *state)
    assert backend.calls == ["step"]
    monkeypatch.setattr(backend, "step", lambda p, norms, c, n: None)  # not supported
    assert_close(cell(x, *state), result)
    assert backend.calls == ["step"]


def test_failed_self_test_leaves_the_backend_off(
    backend: NaiveBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(build: bool) -> str:
        raise RuntimeError("does not compute what PyTorch does")

    use_kernel(False)
    monkeypatch.setattr(dispatch, "KERNELS", (dispatch.Kernel(backend, fail),))
    with pytest.raises(RuntimeError, match="does not compute"):
        use_kernel()
    make_layer()(draw_input())
    assert not backend.calls
