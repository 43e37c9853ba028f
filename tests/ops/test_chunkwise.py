"""The choices of the fast path, by size and by gates, all give the same numbers.

Its mathematical properties are tested in test_functional.py and test_layer.py, with whatever choice
the data lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.gated import gated_function, naive_gated
from helpers.problems import Problem, make_problem, with_gradients
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMLayer
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import onednn_linear
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import run_cell as run_cell_module
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.onednn_linear import OneDNNLinear
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import tiling
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.autograd import chunkwise_op, gated_op
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.chunkwise import backend, decay


@pytest.fixture
def decay_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record how every pass computed its decays."""
    calls: list[str] = []

    def spy(name: str) -> None:
        original = getattr(decay, name)

        def recorded(*gates: Tensor) -> decay.ChunkDecays:
            calls.append(name)
            return original(*gates)

        monkeypatch.setattr(decay, name, recorded)

    spy("_factored")
    spy("_exact")
    return calls


def forbid_inspection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to trace or to run on an accelerator, where values are not inspected."""
    monkeypatch.setattr(backend, "is_eager_on_cpu", lambda x: False)


# --- factored and exact decays


@pytest.mark.parametrize("chunk_size", [1, 7, 31, 1000])
@pytest.mark.parametrize("offset", [-5, 0, 5])
def test_factored_and_exact_decays_agree(
    monkeypatch: pytest.MonkeyPatch, decay_calls: list[str], offset: float, chunk_size: int
) -> None:
    form = partial(mlstm_chunkwise, chunk_size=chunk_size)
    problem = make_problem(31, offset=offset)
    factored = with_gradients(form, problem)
    assert decay_calls == ["_factored"] * 2  # forward and backward
    forbid_inspection(monkeypatch)
    exact = with_gradients(form, problem)
    assert decay_calls[2:] == ["_exact"] * 2
    assert_close(factored, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("m", [-1e6, -100.0, 0.0, 60.0, 1e4])
@pytest.mark.parametrize(
    ("name", "span", "is_factored"),
    [
        ("log_i", 39.0, True),
        ("log_i", 41.0, False),
        ("log_f", 39.0, True),
        ("log_f", 41.0, False),
        ("log_f", 300.0, False),
    ],
)
def test_gates_at_the_limit_of_factored_decays(
    decay_calls: list[str], name: str, span: float, is_factored: bool, m: float, dtype: torch.dtype
) -> None:
    """One gate has the given span; the scale of the memory that enters does not matter."""
    flat = make_problem(16, dtype=dtype)
    gates = {"log_i": torch.zeros_like(flat.log_i), "log_f": torch.zeros_like(flat.log_f)}
    gates[name][:, :, 5] = -span
    # all positive, since cancellation would amplify the rounding errors of the terms
    problem = Problem(*(part.abs() for part in flat)).replace(**gates, m=torch.full_like(flat.m, m))
    results, gradients = with_gradients(partial(mlstm_chunkwise, chunk_size=16), problem, "h")
    assert decay_calls == ["_factored" if is_factored else "_exact"] * 2
    exact = Problem(*(part.double() for part in problem))
    expected_results, expected_gradients = with_gradients(mlstm_recurrent, exact, "h")
    assert_close(results[0].double(), expected_results[0], 1e-5 if dtype == torch.float32 else None)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    for name, actual, expected in zip(Problem._fields, gradients, expected_gradients, strict=True):
        assert actual.isfinite().all(), name
        # the gradient of a gate is a sum over all steps, with terms of both signs
        assert_close(actual.double(), expected, tolerance, name)


def test_one_extreme_head_makes_all_decays_exact(decay_calls: list[str]) -> None:
    problem = make_problem(31)
    log_f = problem.log_f.clone()
    log_f[1, 1, 20:25] = -80.0
    problem = problem.replace(log_f=log_f)
    assert_close(with_gradients(mlstm_chunkwise, problem), with_gradients(mlstm_recurrent, problem))
    assert decay_calls == ["_exact"] * 2


def test_chunks_of_padding_give_zeros(decay_calls: list[str]) -> None:
    """Padding fills whole chunks at both ends, from an empty memory; no NaN appears."""
    problem = make_problem(28)
    log_i, log_f = problem.log_i.clone(), problem.log_f.clone()
    for span in (slice(None, 7), slice(21, None)):
        log_i[:, :, span], log_f[:, :, span] = -torch.inf, 0.0
    q, k, v = problem.q, problem.k, problem.v
    h, state = mlstm_chunkwise(q, k, v, log_i, log_f, chunk_size=7)
    assert decay_calls == ["_factored"]
    expected, expected_state = mlstm_recurrent(q, k, v, log_i, log_f)
    assert_close((h, state), (expected, expected_state))
    assert_identical(h[:, :, :7], torch.zeros_like(h[:, :, :7]))


# --- the layer as one autograd function


@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
@pytest.mark.parametrize("norm", [False, True], ids=["no-norm", "norm"])
@pytest.mark.parametrize("T", [1, 33])
def test_fused_layer_matches_the_composed_layer(
    monkeypatch: pytest.MonkeyPatch, T: int, norm: bool, masked: bool
) -> None:
    inputs, run = layer_problem(T, norm, masked)
    expected = run()
    calls = []
    monkeypatch.setattr(run_cell_module, "is_eager", lambda: calls.append(True))
    assert_close(run(), expected)
    assert calls


@pytest.mark.parametrize(
    ("norm", "masked"),
    [
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
        (True, True),
    ],
    ids=["plain", "mask", "norm-mask"],
)
def test_layer_derivatives_match_finite_differences(norm: bool, masked: bool) -> None:
    """Along random directions of 300 inputs; another test compares each gradient by itself."""
    inputs, run = layer_problem(5, norm=norm, masked=masked, B=2)

    def outputs(*_: Tensor) -> tuple[Tensor, ...]:
        return run(gradients=False)

    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize("unused", ["output", "state"])
def test_layer_gradients_if_the_loss_uses_one_result(
    monkeypatch: pytest.MonkeyPatch, unused: str
) -> None:
    inputs, run = layer_problem(33, norm=False, masked=False, unused=unused)
    expected = run()
    monkeypatch.setattr(run_cell_module, "is_eager", lambda: False)
    assert_close(run(), expected)


def layer_problem(
    T: int, norm: bool, masked: bool, B: int = 3, unused: str = ""
) -> tuple[tuple[Tensor, ...], Callable[..., tuple[Tensor, ...]]]:
    """Make a layer; return its inputs, and a function that returns its results and gradients."""
    torch.manual_seed(0)
    layer = mLSTMLayer(3, 4, num_layers=2, dropout=0.0, layer_norm=norm, num_heads=2).double()
    x = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)
    h, c, n = (torch.randn_like(part).requires_grad_() for part in layer.init_hidden(B))
    mask = torch.rand(T, B) < 0.6 if masked else None
    inputs = (x, c, n, *layer.parameters())

    def run(gradients: bool = True) -> tuple[Tensor, ...]:
        output, last = layer(x, (h, c, n), mask)
        results = {"": (output, *last), "output": last[1:], "state": (output,)}[unused]
        if not gradients:
            return results
        loss = sum(part.sin().sum() for part in results)
        return (*results, *torch.autograd.grad(loss, inputs, materialize_grads=True))

    return inputs, run


@pytest.mark.parametrize("norm", [False, True], ids=["no-norm", "norm"])
def test_layer_with_closed_gates_matches_the_naive_form(norm: bool) -> None:
    """Pre-activations of both gates range from -200 to 200."""
    torch.manual_seed(0)
    p = torch.randn(3, 40, 4 * 4 + 2 * 2, dtype=torch.float64)
    p[..., 12:16] *= 100
    p.requires_grad_()
    state = (torch.randn(3, 2, 2, 2).double(), torch.randn(3, 2, 2).double())
    inputs = (p, *(part.requires_grad_() for part in (*state, torch.zeros(3, 2).double())))
    sizes = [4, 4, 4, 8] * 2 if norm else []
    affine = [(10 * torch.randn(size).double()).requires_grad_() for size in sizes]
    norms = (1e-5, *affine) if norm else ()

    def run(form: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        results = form(*inputs, None, *norms)
        loss = sum(part.sin().sum() for part in results)
        return (*results, *torch.autograd.grad(loss, (*inputs, *affine)))

    actual, expected = run(gated_function), run(naive_gated)
    assert all(part.isfinite().all() for part in actual)
    assert_close(actual, expected)


@pytest.mark.parametrize("form", ["layer", "chunkwise"])
def test_backward_under_autocast_is_not_rounded(form: str) -> None:
    """Calling backward inside an autocast region gives the float32 gradients."""
    problem = make_problem(31, dtype=torch.float32)
    p = torch.randn(3, 40, 4 * 8 + 2 * 2, requires_grad=True)

    def run(context: Any) -> tuple[Tensor, ...]:
        if form == "chunkwise":
            inputs = tuple(part.detach().requires_grad_() for part in problem)
            output = mlstm_chunkwise(*inputs[:5], mLSTMState(*inputs[5:]))[0]
        else:
            inputs = (p,)
            zeros = [torch.zeros(3, 2, *shape) for shape in ((4, 4), (4,), ())]
            output = gated_function(p, *zeros, None)[0]
        with context:
            return torch.autograd.grad(output.sum(), inputs, materialize_grads=True)

    assert_identical(run(torch.autocast("cpu", torch.bfloat16)), run(nullcontext()))


# --- the projection


@pytest.fixture
def projection() -> OneDNNLinear:
    torch.manual_seed(0)
    return OneDNNLinear(8, 20)


def output_and_gradients(linear: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    y = linear(x)
    return (y, *torch.autograd.grad(y.sin().sum(), (x, *linear.parameters())))


def test_onednn_linear_matches_nn_linear(projection: OneDNNLinear) -> None:
    plain = nn.Linear(8, 20)
    plain.load_state_dict(projection.state_dict())
    x = torch.randn(3, 700, 8, requires_grad=True)
    assert onednn_linear._suits_onednn(x) == onednn_linear._has_onednn()
    assert_close(output_and_gradients(projection, x), output_and_gradients(plain, x), 1e-5)
    assert_identical(projection(x[:1, :2]), plain(x[:1, :2]))


def test_onednn_linear_without_onednn(
    projection: OneDNNLinear, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(700, 8, requires_grad=True)
    expected = output_and_gradients(projection, x)
    monkeypatch.setattr(onednn_linear, "_has_onednn", lambda: False)
    assert_close(output_and_gradients(projection, x), expected, 1e-5)


@pytest.mark.parametrize("rows", [5, 700])
def test_onednn_linear_operator_for_the_compiler(projection: OneDNNLinear, rows: int) -> None:
    x = torch.randn(rows, 8, requires_grad=True)
    parameters = (projection.weight, projection.bias)
    y = onednn_linear._linear_op(x, *parameters)
    actual = (y, *torch.autograd.grad(y.sin().sum(), (x, *parameters)))
    assert_close(actual, output_and_gradients(projection, x), 1e-5)
    torch.library.opcheck(onednn_linear._linear_op, (x, *parameters))


def test_operator_of_the_chunkwise_form_passes_opcheck() -> None:
    """Registered shapes and strides, no aliases, and derivatives."""
    problem = make_problem(9, B=2)
    torch.library.opcheck(chunkwise_op, (list(problem), "pytorch", 4))


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_operator_of_the_layer_passes_opcheck(masked: bool) -> None:
    p = torch.randn(2, 9, 4 * 8 + 2 * 2, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(2, 2, *shape).double().requires_grad_() for shape in ((4, 4), (4,), ())]
    padding = torch.rand(2, 9, 1) < 0.5 if masked else None
    torch.library.opcheck(gated_op, (p, state, padding, "pytorch", 4))


def test_onednn_linear_second_derivatives(projection: OneDNNLinear) -> None:
    plain = nn.Linear(8, 20)
    plain.load_state_dict(projection.state_dict())
    x = torch.randn(700, 8, requires_grad=True)

    def penalty(linear: nn.Module) -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(linear(x).sin().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, *linear.parameters()))

    assert_close(penalty(projection), penalty(plain), 1e-5)


@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
def test_onednn_linear_with_a_frozen_tensor(projection: OneDNNLinear, frozen: str) -> None:
    x = torch.randn(700, 8, requires_grad=True)
    parts = {"x": x, **dict(projection.named_parameters())}
    expected = dict(zip(parts, output_and_gradients(projection, x)[1:], strict=True))
    parts.pop(frozen).requires_grad_(False)
    actual = torch.autograd.grad(projection(x).sin().sum(), tuple(parts.values()))
    assert_close(actual, tuple(expected[name] for name in parts), 1e-5)


# --- batch tiles


@pytest.mark.parametrize("tile_numel", [1, 400, 1000])
@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
def test_tiled_layer_matches_the_layer(
    monkeypatch: pytest.MonkeyPatch, masked: bool, tile_numel: int
) -> None:
    torch.manual_seed(0)
    layer = mLSTMLayer(3, 8, num_layers=2, dropout=0.0, num_heads=2).double()
    x = torch.randn(9, 5, 3, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn_like(part).requires_grad_() for part in layer.init_hidden(5))
    mask = torch.rand(9, 5) < 0.6 if masked else None
    inputs = (x, *state, *layer.parameters())

    def run() -> tuple[Any, tuple[Tensor, ...]]:
        output, last = layer(x, state, mask)
        loss = output.sin().sum() + sum(part.cos().sum() for part in last)
        return (output, *last), torch.autograd.grad(loss, inputs, materialize_grads=True)

    expected = run()
    tile_sizes = []
    original = mLSTMLayer._run

    def recorded(self: mLSTMLayer, *tile: Tensor) -> Any:
        tile_sizes.append(tile[0].shape[1])
        return original(self, *tile)

    monkeypatch.setattr(mLSTMLayer, "_run", recorded)
    monkeypatch.setattr(tiling, "_TILE_NUMEL", tile_numel)
    assert_close(run(), expected)
    assert sum(tile_sizes) == 5 and len(tile_sizes) > 1


@pytest.mark.parametrize("tile_numel", [1, 1000, 2500])
def test_tiled_chunkwise_matches_chunkwise(
    monkeypatch: pytest.MonkeyPatch, tile_numel: int
) -> None:
    problem = make_problem(31, B=5)
    expected = with_gradients(mlstm_chunkwise, problem)
    monkeypatch.setattr(tiling, "_TILE_NUMEL", tile_numel)
    assert_close(with_gradients(mlstm_chunkwise, problem), expected)


# --- function transforms


# vmap has no batched form of baddbmm_ and warns; the in-place operation saves a pass elsewhere
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_per_sample_gradients_under_vmap() -> None:
    """Compare grad inside vmap with one sample at a time."""
    problem = make_problem(31, B=3)

    def loss(*inputs: Tensor) -> Tensor:
        batch = [part[None] for part in inputs]
        h, state = mlstm_chunkwise(*batch[:5], mLSTMState(*batch[5:]))
        return h.sin().sum() + state.c.sum() + state.n.sum()

    gradient = torch.func.grad(loss, argnums=tuple(range(8)))
    expected = [gradient(*(part[b] for part in problem)) for b in range(3)]
    actual = torch.func.vmap(gradient)(*problem)
    assert_close(actual, tuple(torch.stack(parts) for parts in zip(*expected, strict=True)))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # as above
def test_ensemble_trained_under_vmap() -> None:
    """Forward inside vmap and backward outside, as in torch's tutorial on model ensembling."""
    layers = [mLSTMLayer(3, 8, num_layers=2, dropout=0.0).double() for _ in range(3)]
    x = torch.randn(40, 2, 3, dtype=torch.float64)
    weights, buffers = torch.func.stack_module_state(list(layers))

    def output(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layers[0], (weights, buffers), (x,))[0]

    torch.func.vmap(output)(weights, buffers).sin().sum().backward()
    for number, layer in enumerate(layers):
        layer(x)[0].sin().sum().backward()
        for name, parameter in layer.named_parameters():
            assert_close(weights[name].grad[number], parameter.grad)
