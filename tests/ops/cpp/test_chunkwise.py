"""The kernel behind ``mlstm_chunkwise``: no output gate, and gates of any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.cpp_kernel import draw_problem, needs_compiler
from helpers.layers import GRADIENT_TOLERANCE
from helpers.problems import Problem, with_gradients
from helpers.products import spread
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import bindings


@needs_compiler
@spread("d, T", bindings.HEAD_SIZES, [1, 31, 65, 200])
def test_chunkwise_matches_the_recurrent_form(chunkwise_calls: list[str], d: int, T: int) -> None:
    problem = draw_problem(T, d)
    actual = with_gradients(mlstm_chunkwise, problem)
    assert chunkwise_calls == ["forward", "backward"]
    assert_close(actual, with_gradients(mlstm_recurrent, problem), GRADIENT_TOLERANCE)


@needs_compiler
@pytest.mark.parametrize("offset", [-300, -60, -5, 5, 60, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_chunkwise_with_gates_of_any_size_matches_the_recurrent_form(
    chunkwise_calls: list[str], dtype: torch.dtype, offset: int
) -> None:
    problem = draw_problem(100, 8, dtype)
    problem = Problem(*(x.detach() for x in problem._replace(log_i=problem.log_i + offset)))
    actual = with_gradients(mlstm_chunkwise, problem)
    assert chunkwise_calls
    exact = with_gradients(mlstm_recurrent, Problem(*(x.double() for x in problem)))
    expected = tuple(tuple(x.to(dtype) for x in part) for part in exact)
    # in float32 a logarithm of 300 is precise to 3e-5, and gradients pass through many of them
    tolerance = 3e-4 if dtype == torch.float32 else GRADIENT_TOLERANCE
    assert_close((actual[0], tuple(actual[1])), expected, tolerance)


@needs_compiler
def test_chunkwise_with_masked_steps_and_closed_gates_matches_the_recurrent_form(
    chunkwise_calls: list[str],
) -> None:
    problem = draw_problem(100, 8)
    masked = torch.rand(2, 3, 100) < 0.3
    closed = torch.rand(2, 3, 100) < 0.1
    log_i = problem.log_i.masked_fill(masked, -torch.inf)
    log_f = problem.log_f.masked_fill(masked, 0.0).masked_fill(closed, -1e4)
    q, k, v = problem[:3]
    leaves = [x.detach().requires_grad_() for x in (q, k, v, log_i, log_f)]
    results = []
    for form in (mlstm_chunkwise, mlstm_recurrent):
        h, state = form(*leaves)
        loss = (h.sin().sum() + state.c.sin().sum() + state.n.cos().sum()) / 100
        results.append((h, *state, *torch.autograd.grad(loss, leaves)))
    assert_close(tuple(results[0]), tuple(results[1]), GRADIENT_TOLERANCE)
    assert chunkwise_calls


@needs_compiler
@pytest.mark.parametrize("output", range(4))
def test_chunkwise_gradients_if_the_loss_uses_one_output(
    chunkwise_calls: list[str], output: int
) -> None:
    problem = draw_problem(70, 8)
    gradients = []
    for form in (mlstm_chunkwise, mlstm_recurrent):
        h, state = form(*problem[:5], mLSTMState(*problem[5:]))
        loss = (h, *state)[output].sin().sum()
        grads = torch.autograd.grad(loss, problem, allow_unused=True)
        gradients.append(
            tuple(
                torch.zeros_like(x) if g is None else g for x, g in zip(problem, grads, strict=True)
            )
        )
    assert_close(*gradients, GRADIENT_TOLERANCE)
    assert chunkwise_calls


@needs_compiler
def test_chunkwise_derivatives_match_finite_differences(chunkwise_calls: list[str]) -> None:
    inputs = tuple(draw_problem(4, 8, B=1, NH=1))

    def form(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = mlstm_chunkwise(*inputs[:5], mLSTMState(*inputs[5:]))
        return h, *state

    assert torch.autograd.gradcheck(form, inputs)
    assert torch.autograd.gradgradcheck(form, inputs, fast_mode=True)
    assert chunkwise_calls


@needs_compiler
def test_chunkwise_accepts_any_memory_layout(chunkwise_calls: list[str]) -> None:
    """The layout of a projection, (B, T, NH, d), and transposed gates."""
    q, k, v, log_i, log_f, *state = draw_problem(31, 8)
    expected = mlstm_chunkwise(q, k, v, log_i, log_f, mLSTMState(*state))
    by_time = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    gates = [x.mT.contiguous().mT for x in (log_i, log_f)]
    actual = mlstm_chunkwise(*by_time, *gates, mLSTMState(*state))
    assert_identical(actual, expected)
    grads = []
    for h, _ in (actual, expected):
        grads.append(torch.autograd.grad(h.sum(), (q, k, v, log_i, log_f, *state)))
    assert_identical(tuple(grads[0]), tuple(grads[1]))
    assert len(chunkwise_calls) == 4


@needs_compiler
def test_chunkwise_with_unsupported_sizes_skips_the_kernel(chunkwise_calls: list[str]) -> None:
    for K, V in ((8, 16), (5, 5)):
        mlstm_chunkwise(*draw_problem(31, K, V=V)[:5])
    problem = draw_problem(31, 8)
    mlstm_chunkwise(*problem[:5], chunk_size=7)
    assert not chunkwise_calls
