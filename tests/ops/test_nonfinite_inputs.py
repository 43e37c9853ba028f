"""A NaN does not reach earlier steps, and finite inputs give finite results or an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.forms import parametrize_forms
from helpers.problems import Form, make_problem
from helpers.products import spread
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import chunks, overflow
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.chunkwise import backend, causality

STEPS, T = (0, 13, 40), 41


def corrupt(x: Tensor, t: int, value: float) -> Tensor:
    """Put a value at step t of the second sample's first head (and its second component)."""
    x = x.clone()
    x[(1, 0, t, 1) if x.dim() == 4 else (1, 0, t)] = value
    return x


# --- a NaN does not reach earlier steps


@parametrize_forms
@pytest.mark.parametrize("value", [math.nan, math.inf])
@spread("name, t", ["q", "k", "v", "log_i", "log_f"], STEPS)
def test_nonfinite_value_reaches_only_later_steps_of_its_head(
    form: Form, name: str, t: int, value: float
) -> None:
    problem = make_problem(T)
    expected, _ = form(*problem[:5], problem.state)
    problem = problem.replace(**{name: corrupt(getattr(problem, name), t, value)})
    h, state = form(*problem[:5], problem.state)
    unaffected = torch.ones_like(h, dtype=torch.bool)
    unaffected[1, 0, t:] = False
    assert_close(h[unaffected], expected[unaffected])
    assert not h[1, 0, t].isfinite().all()
    assert (not state.c.isfinite().all()) == (name != "q")


@pytest.mark.parametrize("t", STEPS)
@pytest.mark.parametrize("name", ["q", "k", "v", "log_i", "log_f"])
@pytest.mark.parametrize("chunks_per_span", [1, 64], ids=["many spans", "one span"])
def test_nan_pattern_matches_the_recurrent_form(
    monkeypatch: pytest.MonkeyPatch, name: str, t: int, chunks_per_span: int
) -> None:
    """For example, a NaN in v reaches one row of the memory and one component of h."""
    monkeypatch.setattr(chunks, "_CHUNKS_PER_SPAN", chunks_per_span)
    problem = make_problem(T)
    problem = problem.replace(**{name: corrupt(getattr(problem, name), t, math.nan)})
    h, state = mlstm_chunkwise(*problem[:5], problem.state, chunk_size=7)
    expected_h, expected_state = mlstm_recurrent(*problem[:5], problem.state)
    for actual, expected in zip((h, *state), (expected_h, *expected_state), strict=True):
        assert torch.equal(actual.isnan(), expected.isnan())


@pytest.mark.parametrize("name", ["c", "n", "m"])
def test_nan_in_the_initial_state_stays_in_its_head(name: str) -> None:
    problem = make_problem(T)
    expected, _ = mlstm_chunkwise(*problem[:5], problem.state)
    part = getattr(problem, name).clone()
    part.view(4, -1)[2, 0] = math.nan
    problem = problem.replace(**{name: part})
    h, state = mlstm_chunkwise(*problem[:5], problem.state)
    recurrent_h, recurrent_state = mlstm_recurrent(*problem[:5], problem.state)
    for part, recurrent_part in zip((h, *state), (recurrent_h, *recurrent_state), strict=True):
        assert torch.equal(part.isnan(), recurrent_part.isnan())
    unaffected = torch.tensor([0, 1, 3])
    assert_close(h.flatten(0, 1)[unaffected], expected.flatten(0, 1)[unaffected])


@pytest.mark.parametrize("name", ["k", "v", "log_i", "log_f"])
def test_results_without_inspecting_values(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An accelerator does not inspect values, and gives the same numbers and NaNs."""
    problem = make_problem(T)
    corrupted = problem.replace(**{name: corrupt(getattr(problem, name), 13, math.nan)})
    expected = [mlstm_chunkwise(*x[:5], x.state) for x in (problem, corrupted)]
    for module in (backend, causality, overflow):
        monkeypatch.setattr(module, "is_eager_on_cpu", lambda x: False)
    monkeypatch.setattr(causality, "all_finite", None)
    actual = [mlstm_chunkwise(*x[:5], x.state) for x in (problem, corrupted)]
    assert_close(actual[0], expected[0])
    pairs = zip((actual[1][0], *actual[1][1]), (expected[1][0], *expected[1][1]), strict=True)
    for part, expected_part in pairs:
        assert torch.equal(part.isnan(), expected_part.isnan())
        assert_close(part.nan_to_num(0.0), expected_part.nan_to_num(0.0))


# vmap has no batched form of some in-place operations, and warns
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_nan_pattern_under_vmap() -> None:
    problem = make_problem(T)
    corrupted = problem.replace(k=corrupt(problem.k, 13, math.nan))

    def read(*inputs: Tensor) -> Tensor:
        return mlstm_chunkwise(*(part[None] for part in inputs))[0][0]

    h = torch.func.vmap(read)(*corrupted[:5])
    expected, _ = mlstm_chunkwise(*corrupted[:5])
    assert torch.equal(h.isnan(), expected.isnan())


@pytest.mark.parametrize("name", ["q", "k", "log_i", "log_f"])
def test_read_weights_are_unaffected_before_a_nan(name: str) -> None:
    problem = make_problem(T)
    inputs = {part: getattr(problem, part) for part in ("q", "k", "log_i", "log_f")}
    expected = mlstm_read_weights(**inputs)
    inputs[name] = corrupt(inputs[name], 13, math.nan)
    weights = mlstm_read_weights(**inputs)
    unaffected = torch.ones_like(weights, dtype=torch.bool)
    unaffected[1, 0, 13:] = False
    assert_close(weights[unaffected], expected[unaffected])


@pytest.mark.parametrize("norm", [False, True], ids=["no-norm", "norm"])
@pytest.mark.parametrize("t", STEPS)
def test_layer_is_unaffected_before_a_nan(t: int, norm: bool) -> None:
    torch.manual_seed(0)
    layer = mLSTMLayer(3, 8, num_layers=2, dropout=0.0, layer_norm=norm).double()
    x = torch.randn(T, 3, 3, dtype=torch.float64)
    expected, (weights, _) = layer(x)[0], layer.read_weights(x)
    x[t, 1, 0] = math.nan
    output, (corrupted_weights, _) = layer(x)[0], layer.read_weights(x)
    assert output[t:, 1].isnan().all()
    assert_close(output[:, [0, 2]], expected[:, [0, 2]])
    assert_close(output[:t], expected[:t])
    assert_close(corrupted_weights[:, :, :, :t], weights[:, :, :, :t])


def test_masked_nan_has_no_influence() -> None:
    torch.manual_seed(0)
    layer = mLSTMLayer(3, 8, num_layers=2, dropout=0.0).double()
    x, mask = torch.randn(T, 3, 3, dtype=torch.float64), torch.rand(T, 3) < 0.6
    expected = layer(x, mask=mask)
    assert_close(layer(x.masked_fill(~mask[..., None], math.nan), mask=mask), expected)


# --- finite inputs give finite results, or an error

SHORT = 15  # two chunks of 7, and a step
SIZES = [1e10, 1e19, 1e20, 1e30, 3e37]
PARTS = ["q", "k", "v", "qk", "qv", "kv", "qkv", "c", "n", "cn", "qcn"]


def is_finite(results: Any) -> bool:
    h, state = results
    return all(bool(part.isfinite().all()) for part in (h, *state))


@cache
def scaled_problem(
    names: str, size: float, dtype: torch.dtype
) -> tuple[list[Tensor], mLSTMState, Tensor, mLSTMState]:
    """Return sequences and a state with large parts, and their results in float64."""
    problem = make_problem(SHORT, dtype=torch.float32)
    problem = problem.replace(**{name: getattr(problem, name) * size for name in names})
    inputs = [part.to(dtype) for part in problem[:5]]
    exact = (*(part.double() for part in inputs), mLSTMState(*(x.double() for x in problem.state)))
    return inputs, problem.state, *mlstm_recurrent(*exact)


@parametrize_forms
@spread("part, dtype", product(PARTS, SIZES), [torch.float32, torch.bfloat16])
def test_forms_give_correct_results_or_raise(
    form: Form, part: tuple[str, float], dtype: torch.dtype
) -> None:
    names, size = part
    inputs, state, exact, last = scaled_problem(names, size, dtype)
    try:
        h, state = form(*inputs, state)
    except ValueError as error:
        assert "overflow torch.float32" in str(error) and "state.m" not in str(error)
        assert size > 1e10
        return
    assert is_finite((h, state))
    assert_close(h.double(), exact, 2e-2 if dtype == torch.bfloat16 else 1e-3)
    assert_close(state.c.double(), last.c, 1e-5)


@parametrize_forms
@pytest.mark.parametrize("size", [1e10, 1e150, 1e200])
def test_float64_allows_larger_inputs(form: Form, size: float) -> None:
    problem = make_problem(T)
    problem = problem.replace(q=problem.q * size, k=problem.k * size)
    if size < 1e154:
        assert is_finite(form(*problem[:5], problem.state))
        return
    with pytest.raises(ValueError, match="overflow torch.float64, whose largest number is 1.8e"):
        form(*problem[:5], problem.state)


def test_overflow_raises_if_the_quotient_is_zero() -> None:
    """If only nᵀq overflows, C q / inf would be 0."""
    q = k = torch.full((1, 1, 1, 2), 1.5e19)
    v = torch.full((1, 1, 1, 1), 0.5)
    for form in (mlstm_recurrent, mlstm_chunkwise):
        with pytest.raises(ValueError, match="finite inputs overflow"):
            form(q, k, v, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_empty_memory_is_not_an_overflow(chunk_size: int | None) -> None:
    """In float32, 1 at the scale of an empty memory is infinite, but a read gives 0."""
    q, k, v, log_i, log_f, *_ = make_problem(28, dtype=torch.float32)
    for span in (slice(None, 14), slice(21, None)):
        log_i[:, :, span], log_f[:, :, span] = -torch.inf, 0.0
    h, state = mlstm_chunkwise(q, k, v, log_i, log_f, chunk_size=chunk_size)
    expected = mlstm_recurrent(q, k, v, log_i, log_f)
    assert_close((h, state), expected)
    assert not h[:, :, :14].any()


@pytest.mark.parametrize("norm", [False, True], ids=["no-norm", "norm"])
@pytest.mark.parametrize("size", [1e10, 1e20, 1e30, 3e38])
def test_layer_and_cell_are_finite_or_raise(size: float, norm: bool) -> None:
    torch.manual_seed(0)
    layer = mLSTMLayer(3, 32, dropout=0.0, layer_norm=norm)
    x = torch.randn(T, 2, 3).clamp(-1, 1) * size

    def step_through() -> Tensor:
        state = tuple(part[0] for part in layer.init_hidden(2))
        outputs = []
        for step in x:
            state = layer.cells[0](step, *state)
            outputs.append(state[0])
        return torch.stack(outputs)

    runs: dict[str, Callable[[], Tensor]] = {
        "mLSTMLayer": lambda: layer(x)[0],
        "mLSTMCell": step_through,
    }
    for caller, run in runs.items():
        if size == 1e10:
            assert run().isfinite().all()
            continue
        with pytest.raises(ValueError, match=rf"{caller}: finite inputs overflow.*x has") as error:
            run()
        assert len(str(error.value)) < 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch's compiler
def test_compiled_layer_raises_on_overflow() -> None:
    torch.manual_seed(0)
    layer = mLSTMLayer(3, 32, dropout=0.0, layer_norm=False)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="mLSTMLayer: finite inputs overflow.*x has"):
        compiled(torch.randn(T, 2, 3) * 1e20)


def test_nonfinite_weights_are_not_an_overflow() -> None:
    """The model has its own error for training that diverged."""
    for module in (mLSTMLayer(3, 8), mLSTMCell(3, 8)):
        with torch.no_grad():
            next(module.parameters()).fill_(math.nan)
        if isinstance(module, mLSTMLayer):
            assert module(torch.randn(5, 2, 3))[0].isnan().any()
        else:
            assert module(torch.randn(2, 3), *module.init_hidden(2))[0].isnan().any()
