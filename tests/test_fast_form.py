"""What the fast path chooses by size and by gates: every choice gives the same numbers.

The theorems themselves are in test_functional.py and test_layer.py, which take the choice that the
data lead to.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_forecasting_mlstm import mLSTMLayer
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import _blocks, _weights, functional
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mLSTMState,
)
from test_functional import Problem, make_problem, with_gradients
from tolerances import assert_close, assert_identical


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List how the steps were weighed, pass by pass."""
    seen: list[str] = []

    def spy(name: str) -> None:
        original = getattr(_weights, name)

        def counted(*gates: Tensor) -> _weights.Weights:
            seen.append(name)
            return original(*gates)

        monkeypatch.setattr(_weights, name, counted)

    spy("_factored")
    spy("_exact")
    return seen


def ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of a trace or an accelerator: no question to the data."""
    monkeypatch.setattr(functional, "is_eager_on_cpu", lambda x: False)


# --- the two ways of weighing


@pytest.mark.parametrize("chunk_size", [1, 7, 31, 1000])
@pytest.mark.parametrize("offset", [-5, 0, 5])
def test_both_ways_of_weighing_agree(
    monkeypatch: pytest.MonkeyPatch, ways: list[str], offset: float, chunk_size: int
) -> None:
    form = partial(mlstm_chunkwise, chunk_size=chunk_size)
    problem = make_problem(31, offset=offset)
    factored = with_gradients(form, problem)
    assert ways == ["_factored"] * 2  # forward and backward
    ask_nothing(monkeypatch)
    exact = with_gradients(form, problem)
    assert ways[2:] == ["_exact"] * 2
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
def test_gates_at_the_limit_of_the_factors(
    ways: list[str], name: str, span: float, is_factored: bool, m: float, dtype: torch.dtype
) -> None:
    """One step of the span asked for; whatever the scale of the memory that enters."""
    flat = make_problem(16, dtype=dtype)
    gates = {"log_i": torch.zeros_like(flat.log_i), "log_f": torch.zeros_like(flat.log_f)}
    gates[name][:, :, 5] = -span
    # all positive: a sum that cancels would be as wrong as its terms are rounded
    problem = Problem(*(part.abs() for part in flat)).replace(**gates, m=torch.full_like(flat.m, m))
    results, gradients = with_gradients(partial(mlstm_chunkwise, chunk_size=16), problem, "h")
    assert ways == ["_factored" if is_factored else "_exact"] * 2
    exact = Problem(*(part.double() for part in problem))
    expected_results, expected_gradients = with_gradients(mlstm_recurrent, exact, "h")
    assert_close(results[0].double(), expected_results[0], 1e-5 if dtype == torch.float32 else None)
    for name, one, other in zip(Problem._fields, gradients, expected_gradients, strict=True):
        assert one.isfinite().all(), name
        # the gradient of a gate is a sum of as many terms as there are steps, both signs
        assert_close(one.double(), other, 1e-4 if dtype == torch.float32 else 1e-11, name)


def test_one_wild_head_takes_the_exact_way_for_all(ways: list[str]) -> None:
    problem = make_problem(31)
    log_f = problem.log_f.clone()
    log_f[1, 1, 20:25] = -80.0
    problem = problem.replace(log_f=log_f)
    assert_close(with_gradients(mlstm_chunkwise, problem), with_gradients(mlstm_recurrent, problem))
    assert ways == ["_exact"] * 2


def test_an_empty_chunk_after_a_full_one_and_before(ways: list[str]) -> None:
    """Padding at both ends, in whole chunks, from an empty memory: nothing there, and no NaN."""
    problem = make_problem(28)
    log_i, log_f = problem.log_i.clone(), problem.log_f.clone()
    for span in (slice(None, 7), slice(21, None)):
        log_i[:, :, span], log_f[:, :, span] = -torch.inf, 0.0
    q, k, v = problem.q, problem.k, problem.v
    h, state = mlstm_chunkwise(q, k, v, log_i, log_f, chunk_size=7)
    assert ways == ["_factored"]
    expected, expected_state = mlstm_recurrent(q, k, v, log_i, log_f)
    assert_close((h, state), (expected, expected_state))
    assert_identical(h[:, :, :7], torch.zeros_like(h[:, :, :7]))


# --- blocks of samples


@pytest.mark.parametrize("block", [1, 400, 1000])
@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
def test_layer_in_blocks_is_the_layer_at_once(
    monkeypatch: pytest.MonkeyPatch, masked: bool, block: int
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
    calls = []
    run_block = mLSTMLayer._run

    def counted(self: mLSTMLayer, *block: Tensor) -> Any:
        calls.append(block[0].shape[1])
        return run_block(self, *block)

    monkeypatch.setattr(mLSTMLayer, "_run", counted)
    monkeypatch.setattr(_blocks, "_BLOCK", block)
    assert_close(run(), expected)
    assert sum(calls) == 5 and len(calls) > 1


@pytest.mark.parametrize("block", [1, 1000, 2500])
def test_chunkwise_in_blocks_is_chunkwise_at_once(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    problem = make_problem(31, B=5)
    expected = with_gradients(mlstm_chunkwise, problem)
    monkeypatch.setattr(_blocks, "_BLOCK", block)
    assert_close(with_gradients(mlstm_chunkwise, problem), expected)


# --- function transforms


# vmap has no batched form of baddbmm_, and says so; in place it saves a pass for everyone else
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_gradients_of_every_sample_by_vmap() -> None:
    """torch.func: grad inside vmap, against one sample at a time."""
    problem = make_problem(31, B=3)

    def loss(*inputs: Tensor) -> Tensor:
        one = [part[None] for part in inputs]
        h, state = mlstm_chunkwise(*one[:5], mLSTMState(*one[5:]))
        return h.sin().sum() + state.c.sum() + state.n.sum()

    gradient = torch.func.grad(loss, argnums=tuple(range(8)))
    expected = [gradient(*(part[b] for part in problem)) for b in range(3)]
    found = torch.func.vmap(gradient)(*problem)
    assert_close(found, tuple(torch.stack(parts) for parts in zip(*expected, strict=True)))
