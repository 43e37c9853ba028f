"""The sequence forms equal each other and the paper's equations, and are differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.forms import (
    INF,
    SEQUENCE_FORMS,
    attention,
    empty_state,
    paper_form,
    parametrize_forms,
    stepped,
    true_memory,
)
from helpers.problems import Form, Problem, make_problem, with_gradients
from helpers.products import alternate, spread
from helpers.reference import collapsed_mlstm, reference_mlstm, running_maximum
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mLSTMState,
)

# --- equality of the forms, with each other and with the paper


@parametrize_forms
@pytest.mark.parametrize(
    ("T", "B", "offset"),
    [(1, 2, 0), (31, 2, -5), (31, 2, 0), (31, 1, 5), (64, 1, 0), (200, 1, 0)],
    ids=lambda value: str(value),
)
def test_form_matches_the_equations(form: Form, T: int, B: int, offset: float) -> None:
    """Outputs, final state and all gradients, including those of the initial state."""
    problem = make_problem(T, B, offset)
    results, gradients = with_gradients(form, problem)
    expected_results, expected_gradients = with_gradients(paper_form, problem)
    assert_close(results, expected_results)
    assert_close(gradients, expected_gradients)


def test_problems_reach_both_sides_of_the_denominator() -> None:
    problem = make_problem(31)
    _, _, n = reference_mlstm(*problem[:5], problem.c, problem.n)
    overlap = (n.unsqueeze(2) * problem.q).sum(-1).abs()
    assert (overlap < 1).any() and (overlap > 1).any()


@parametrize_forms
@pytest.mark.parametrize("offset", [-5, 0, 5])
def test_no_state_means_an_empty_memory(form: Form, offset: float) -> None:
    problem = make_problem(31, offset=offset)
    h, (c, n, m) = form(*problem[:5])
    assert_identical((h, (c, n, m)), form(*problem[:5], empty_state(problem)))
    expected_h, expected_c, expected_n = reference_mlstm(
        *problem[:5], torch.zeros_like(problem.c), torch.zeros_like(problem.n)
    )
    assert_close(h, expected_h)
    assert_close(c * m.exp()[..., None, None], expected_c)
    assert_close(n * m.exp()[..., None], expected_n)
    assert_close(m, running_maximum(problem.log_i, problem.log_f, torch.full_like(problem.m, -INF)))


@alternate("chunk_size", [1, 2, None, 5], first=1)
def test_chunkwise_gradients_match_finite_differences(chunk_size: int | None) -> None:
    gradcheck(partial(mlstm_chunkwise, chunk_size=chunk_size))


def test_recurrent_gradients_match_finite_differences() -> None:
    gradcheck(mlstm_recurrent)


@pytest.mark.parametrize("form", [mlstm_recurrent, mlstm_chunkwise], ids=["recurrent", "chunkwise"])
def test_second_derivatives_match_finite_differences(form: Form) -> None:
    problem = [part.requires_grad_() for part in make_problem(3, B=1)]

    def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = form(*inputs[:5], mLSTMState(*inputs[5:]))
        return (h, *state)

    assert torch.autograd.gradgradcheck(flat, problem, fast_mode=True)


def gradcheck(form: Form) -> None:
    """Compare the gradients of h, c, n and m with finite differences."""
    problem = [part.requires_grad_() for part in make_problem(5, B=1)]

    def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = form(*inputs[:5], mLSTMState(*inputs[5:]))
        return (h, *state)

    assert torch.autograd.gradcheck(flat, problem)


@parametrize_forms
@pytest.mark.parametrize("outputs", ["h", "c", "n", "m", "hm", "cn"])
def test_gradients_match_the_equations_if_the_loss_uses_some_outputs(
    form: Form, outputs: str
) -> None:
    """A loss may use h alone, as most losses do, or any part of the last state."""
    problem = make_problem(31)
    _, gradients = with_gradients(form, problem, outputs)
    assert_close(gradients, with_gradients(paper_form, problem, outputs)[1])


@parametrize_forms
@pytest.mark.parametrize("name", Problem._fields)
def test_gradient_of_one_input_matches_the_equations(form: Form, name: str) -> None:
    """The other inputs may be constants, and the graph may be used twice."""
    problem = make_problem(31)
    leaf = getattr(problem, name).clone().requires_grad_()
    problem = problem.replace(**{name: leaf})
    h, state = form(*problem[:5], problem.state)
    loss = h.sin().sum() + sum(part.cos().sum() for part in state)
    (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    assert_identical(torch.autograd.grad(loss, leaf), (gradient,))
    h, state = paper_form(*problem[:5], problem.state)
    loss = h.sin().sum() + sum(part.cos().sum() for part in state)
    assert_close((gradient,), torch.autograd.grad(loss, leaf))


def test_tensor_in_several_places_counts_once() -> None:
    """If q, k and v are one tensor, both ways to its gradient agree."""
    x = torch.randn(1, 2, 9, 4, dtype=torch.float64, requires_grad=True)
    gates = -torch.rand(1, 2, 9, dtype=torch.float64)
    loss = mlstm_chunkwise(x, x, x, gates, gates)[0].sin().sum()
    (plain,) = torch.autograd.grad(loss, x, retain_graph=True)
    (differentiable,) = torch.autograd.grad(loss, x, create_graph=True)
    assert_close(differentiable, plain)


@cache
def long_problem(offset: float) -> tuple[Problem, Tensor, mLSTMState]:
    """Return a float32 problem, and its results in float64."""
    problem = make_problem(1100, B=1, offset=offset)
    problem = problem.replace(log_f=10 * problem.log_f, q=problem.q.abs(), k=problem.k.abs())
    problem = Problem(*(part.float() for part in problem))
    exact = Problem(*(part.double() for part in problem))
    return problem, *stepped(*exact[:5], exact.state)


@spread("form, offset", SEQUENCE_FORMS, [-30, 0, 30])
def test_float32_stays_accurate_over_long_strongly_decaying_sequences(
    form: Form, offset: float
) -> None:
    """Differences of long cumulative sums (here 20,000, precise to 1e-3) lose three digits."""
    problem, expected_h, expected_state = long_problem(offset)
    h, state = form(*problem[:5], problem.state)
    assert_close(h, expected_h.float())
    # m is a sum of decays of up to a hundred, which float32 rounds at 1e-5.
    assert_close(state, mLSTMState(*(part.float() for part in expected_state)), 1e-4)


# --- theorems


def assert_recalls(memory: Form, gate: float) -> None:
    """Store 8 values under 8 orthonormal keys, then recall all of them."""
    keys, _ = torch.linalg.qr(torch.randn(2, 2, 8, 8, dtype=torch.float64))
    values = torch.randn(2, 2, 8, 5, dtype=torch.float64)
    queries = torch.cat([torch.zeros_like(keys), keys], dim=2)
    keys = torch.cat([keys, torch.ones_like(keys)], dim=2)
    log_i = torch.cat([torch.full((2, 2, 8), gate), torch.full((2, 2, 8), -INF)], dim=2).double()
    inputs = torch.cat([values, torch.ones_like(values)], dim=2)
    h, *_ = memory(queries, keys, inputs, log_i, torch.zeros_like(log_i))
    assert_close(h[:, :, 8:], values)


@parametrize_forms
@pytest.mark.parametrize("gate", [0.0, 3.0, 50.0])
def test_memory_recalls_every_stored_value(form: Form, gate: float) -> None:
    assert_recalls(form, gate)


def test_recall_fails_for_the_stock_memory_and_passes_for_the_paper() -> None:
    def from_empty_state(memory: Callable[..., Any]) -> Form:
        return lambda *x: memory(*x, x[0].new_zeros(2, 2, 5, 8), x[0].new_zeros(2, 2, 8))

    assert_recalls(from_empty_state(reference_mlstm), 3.0)
    with pytest.raises(AssertionError, match="expected at most"):
        assert_recalls(from_empty_state(collapsed_mlstm), 3.0)


@parametrize_forms
@pytest.mark.parametrize("shift", [-20.0, -0.3, 20.0])
def test_rescaling_the_memory_and_shifting_m_changes_nothing(form: Form, shift: float) -> None:
    problem = make_problem(31)
    rescaled = mLSTMState(
        problem.c * math.exp(-shift), problem.n * math.exp(-shift), problem.m + shift
    )
    expected_h, expected_state = form(*problem[:5], problem.state)
    h, state = form(*problem[:5], rescaled)
    assert_close(h, expected_h)
    assert_close(true_memory(state), true_memory(expected_state))


@parametrize_forms
@pytest.mark.parametrize("cut", [1, 7, 30])
def test_sequence_equals_prefix_then_suffix(form: Form, cut: int) -> None:
    """The state carries all information, and gradients flow through it."""

    def in_two_parts(*inputs: Any) -> tuple[Tensor, mLSTMState]:
        problem = Problem(*inputs[:5], *inputs[5])
        h_prefix, state = form(*problem.span(None, cut), problem.state)
        h_suffix, state = form(*problem.span(cut, None), state)
        return torch.cat([h_prefix, h_suffix], dim=2), state

    problem = make_problem(31)
    assert_close(with_gradients(in_two_parts, problem), with_gradients(form, problem))


def test_state_may_pass_from_one_form_to_another() -> None:
    problem = make_problem(64)
    h, expected = paper_form(*problem[:5], problem.state)
    state, outputs = problem.state, []
    for form, start in zip((mlstm_chunkwise, mlstm_recurrent, stepped), (0, 20, 45), strict=True):
        part, state = form(*problem.span(start, {0: 20, 20: 45, 45: 64}[start]), state)
        outputs.append(part)
    assert_close((torch.cat(outputs, dim=2), state), (h, expected))


@parametrize_forms
@spread("name, t", ["q", "k", "v", "log_i", "log_f"], [0, 13, 14, 63])
def test_future_has_no_influence_on_the_past(form: Form, t: int, name: str) -> None:
    """h before t stays the same to the last bit; h at t changes, so that the test can fail."""
    problem = make_problem(64)
    changed = getattr(problem, name).clone()
    changed[:, :, t] = changed[:, :, t] * 3 - 1
    before, _ = form(*problem[:5], problem.state)
    after, _ = form(*problem.replace(**{name: changed})[:5], problem.state)
    assert_identical(after[:, :, :t], before[:, :, :t])
    assert not torch.equal(after[:, :, t], before[:, :, t])


@parametrize_forms
@pytest.mark.parametrize("m", [-1e6, -50.0, 0.0, 3.7, 50.0, 1e4])
def test_padding_leaves_the_state_unchanged(form: Form, m: float) -> None:
    """With log_i = -inf and log_f = 0, no bit changes, even where 1e4 + x - 1e4 is not x."""
    problem = make_problem(9, dtype=torch.float32)
    problem = problem.replace(
        log_i=torch.full_like(problem.log_i, -INF),
        log_f=torch.zeros_like(problem.log_f),
        m=torch.full_like(problem.m, m),
    )
    _, state = form(*problem[:5], problem.state)
    assert_identical(state, problem.state)


@parametrize_forms
def test_padding_is_equivalent_to_removing_steps(form: Form) -> None:
    valid = torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0], dtype=torch.bool)
    problem = make_problem(len(valid))
    padded = problem.replace(
        log_i=problem.log_i.where(valid, -INF), log_f=problem.log_f.where(valid, 0.0)
    )
    short = Problem(*(part[:, :, valid] for part in problem[:5]), *problem.state)
    for state in (problem.state, None):
        h, final = form(*padded[:5], state)
        expected_h, expected = form(*short[:5], state)
        assert_close((h[:, :, valid], final), (expected_h, expected))


@parametrize_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_padding_gives_zeros_and_finite_gradients(form: Form, dtype: torch.dtype) -> None:
    problem = make_problem(9, dtype=dtype)
    problem = problem.replace(
        log_i=torch.full_like(problem.log_i, -INF), log_f=torch.zeros_like(problem.log_f)
    )
    inputs = [part.requires_grad_() for part in problem[:5]]
    h, state = form(*inputs)
    assert_identical(h, torch.zeros_like(h))
    assert_identical(true_memory(state), (torch.zeros_like(state.c), torch.zeros_like(state.n)))
    for part in torch.autograd.grad(h.sum() + state.c.sum() + state.n.sum(), inputs):
        assert part.isfinite().all()


# --- attention form


@pytest.mark.parametrize(("T", "offset"), [(1, 0), (31, -5), (31, 0), (31, 5), (200, 0)])
def test_read_weights_times_values_give_h(T: int, offset: float) -> None:
    problem = make_problem(T, B=1, offset=offset)
    inputs = [part.requires_grad_() for part in problem[:5]]
    h = attention(*inputs)
    expected, *_ = reference_mlstm(
        *inputs, torch.zeros_like(problem.c), torch.zeros_like(problem.n)
    )
    assert_close(h.detach(), expected.detach())
    assert_close(
        torch.autograd.grad(h.sin().sum(), inputs),
        torch.autograd.grad(expected.sin().sum(), inputs),
    )


def test_read_weights_of_future_and_padding_are_zero() -> None:
    problem = make_problem(31)
    log_i, log_f = problem.log_i.clone(), problem.log_f.clone()
    log_i[:, :, 5:9], log_f[:, :, 5:9] = -INF, 0.0
    weights = mlstm_read_weights(problem.q, problem.k, log_i, log_f)
    assert not weights.triu(1).any() and not weights[..., 5:9].any()
    assert weights.tril().any()
