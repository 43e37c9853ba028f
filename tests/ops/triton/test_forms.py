"""The theorems of the forms hold for the Triton kernels, at sizes for which a CPU is fast enough.

The slow tests of tests/layers run all of their theorems over these kernels.
"""

from __future__ import annotations

import math
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from helpers.forms import paper_form
from helpers.problems import Problem, with_gradients
from helpers.products import spread
from helpers.tolerances import assert_close, assert_identical
from helpers.triton_kernels import (
    DEVICE,
    SLOW_WITHOUT_A_GPU,
    WIDE,
    assert_matches,
    needs_triton,
    triton_chunkwise,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import functional
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_recurrent,
    mLSTMState,
)

pytestmark = [needs_triton, pytest.mark.usefixtures("both_plans")]


def draw_problem(
    T: int,
    K: int,
    V: int,
    dtype: torch.dtype = WIDE,
    offset: float = 0.0,
    B: int = 1,
    NH: int = 1,
) -> Problem:
    """Draw a problem whose normalizer is on both sides of 1."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(T), dtype=torch.float64)
    problem = Problem(
        q=draw(B, NH, T, K),
        k=draw(B, NH, T, K) / math.sqrt(K),
        v=draw(B, NH, T, V),
        log_i=draw(B, NH, T) + offset,
        log_f=torch.nn.functional.logsigmoid(2 * draw(B, NH, T) + 2),
        c=draw(B, NH, V, K),
        n=draw(B, NH, K),
        m=draw(B, NH),
    )
    return Problem(*(part.to(dtype) for part in problem))


@pytest.mark.parametrize(
    ("T", "K", "V", "offset", "outputs"),
    [
        (1, 3, 5, 0, "hcnm"),
        (16, 8, 8, -5, "h"),
        (21, 8, 20, 0, "hcnm"),
        (21, 20, 8, 5, "cm"),
        (70, 3, 5, 0, "hcnm"),
        (20, 3, 5, 0, "n"),
        pytest.param(70, 70, 40, 0, "hcnm", marks=SLOW_WITHOUT_A_GPU),
        pytest.param(33, 40, 130, -60, "hcnm", marks=SLOW_WITHOUT_A_GPU),
        pytest.param(33, 256, 8, 60, "hcnm", marks=SLOW_WITHOUT_A_GPU),
        pytest.param(33, 8, 256, 0, "hm", marks=SLOW_WITHOUT_A_GPU),
    ],
)
def test_kernels_match_the_equations(T: int, K: int, V: int, offset: int, outputs: str) -> None:
    """With sizes that are no powers of 2, and with less than a chunk."""
    problem = draw_problem(T, K, V, offset=offset)
    expected = with_gradients(paper_form, problem, outputs)
    assert_matches(with_gradients(triton_chunkwise, problem, outputs), expected, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("K", [8, 16, 24, 32, 64, 100, 128, 256])
@pytest.mark.parametrize("chunk_size", [None, 1, 40, 1000])
def test_head_and_chunk_sizes_match_the_recurrent_form(K: int, chunk_size: int | None) -> None:
    problem = draw_problem(70, K, K)
    form = partial(triton_chunkwise, chunk_size=chunk_size)
    assert_matches(with_gradients(form, problem), with_gradients(mlstm_recurrent, problem), 1e-10)


@spread(
    "log_i, log_f",
    [
        [-math.inf, -50.0, 0.1, 50.0],
        [2e4, -2e4],
        [-900.0, -700.0],
        [-math.inf],
    ],
    [[-math.inf, -50.0, -0.1, 0.0, 50.0], [1e4, -1e4, -1.0]],
)
def test_extreme_gates_match_the_recurrent_form(log_i: list[float], log_f: list[float]) -> None:
    problem = draw_problem(20, 3, 5)
    generator = torch.Generator().manual_seed(3)
    gates = [
        torch.tensor(values)[torch.randint(len(values), (1, 1, 20), generator=generator)].to(WIDE)
        for values in (log_i, log_f)
    ]
    problem = problem.replace(
        q=problem.q.abs(), k=problem.k.abs(), n=problem.n.abs(), log_i=gates[0], log_f=gates[1]
    )
    actual = with_gradients(triton_chunkwise, problem, "h")
    assert_matches(actual, with_gradients(mlstm_recurrent, problem, "h"), 1e-10)


@spread("name, value", ["q", "k", "v", "log_i", "log_f", "c", "n", "m"], [math.nan, math.inf])
def test_nan_pattern_matches_the_recurrent_form(name: str, value: float) -> None:
    """For example, a NaN in v reaches one row of the memory and one component of h.

    +inf counts as NaN: see docs/maths.md.
    """
    problem = draw_problem(20, 3, 5)
    part = getattr(problem, name).clone()
    index = (9, 1)[: part.dim() - 2] if name in "qkv" or "log" in name else (2, 1)[: part.dim() - 2]
    part[(0, 0, *index)] = value  # in the middle of a chunk, and of a row
    problem = problem.replace(**{name: part})
    h, state = triton_chunkwise(*problem[:5], problem.state)
    marked = problem.replace(**{name: part.where(part.isfinite(), math.nan)})
    expected_h, expected_state = mlstm_recurrent(*marked[:5], marked.state)
    for actual, expected in zip((h, *state), (expected_h, *expected_state), strict=True):
        if name == "q":  # the value of q is used as it is
            assert torch.equal(actual.isfinite(), expected.isfinite())
        else:
            assert torch.equal(actual.isnan(), expected.isnan())
            assert_matches(actual.nan_to_num(0.0), expected.nan_to_num(0.0), 1e-11)


def test_future_has_no_influence_on_the_past() -> None:
    problem = draw_problem(20, 3, 5)
    before, _ = triton_chunkwise(*problem[:5], problem.state)
    changed = Problem(*(x.clone() for x in problem))
    for part in changed[:5]:
        part[:, :, 13] *= 3
    after, _ = triton_chunkwise(*changed[:5], problem.state)
    assert_identical(after[:, :, :13], before[:, :, :13])
    assert not torch.equal(after[:, :, 13], before[:, :, 13])


def test_read_of_nothing_is_zero_at_any_scale() -> None:
    """The normalizer is 0, and 1 divided by exp of the scale underflows."""
    problem = draw_problem(20, 3, 5, offset=800.0)
    h, _ = triton_chunkwise(torch.zeros_like(problem.q), *problem[1:5], problem.state)
    assert_identical(h, torch.zeros_like(h))


def test_normalizer_that_overflows_is_not_silent() -> None:
    """What is read is finite, so that the quotient would be 0."""
    problem = draw_problem(20, 3, 5, torch.float32)
    q, k = (torch.full_like(x, 5e18) for x in problem[:2])
    gates = torch.zeros_like(problem.log_i)
    with patch.object(functional, "raise_on_overflow"):  # on a CPU only
        h, _ = triton_chunkwise(q, k, problem.v / 1000, gates, gates)
    assert h[:, :, :4].isfinite().all() and h[:, :, 4:].isnan().all()


@pytest.mark.parametrize("value", [-1e9, -1e12, -1e30, torch.finfo(torch.float32).min])
def test_finite_gates_that_are_nearly_closed_are_closed(value: float) -> None:
    problem = draw_problem(20, 3, 5, torch.float32)
    log_f, log_i = problem.log_f.clone(), problem.log_i.clone()
    log_f[..., 3:12:2] = value
    log_i[..., 14] = 100.0
    problem = problem.replace(log_f=log_f, log_i=log_i)
    exact = Problem(*(x.double() for x in problem))
    actual, _ = triton_chunkwise(*problem[:5], problem.state)
    assert_close(actual, mlstm_recurrent(*exact[:5], exact.state)[0].float())


def test_huge_input_gates_lose_no_weight() -> None:
    """Sums of logarithms of such a size are wrong by 128, and exp(128) overflows."""
    problem = draw_problem(40, 8, 8, torch.float32)
    problem = problem.replace(
        k=problem.k.abs(),
        log_i=torch.full_like(problem.log_i, 2.0**31 - 256),
        log_f=torch.full_like(problem.log_f, -300.0),
    )
    exact = Problem(*(x.double() for x in problem))
    actual, _ = triton_chunkwise(*problem[:5], problem.state)
    assert_close(actual, mlstm_recurrent(*exact[:5], exact.state)[0].float())


def test_float32_keeps_digits_after_nearly_closed_gates() -> None:
    """The weights of open gates are differences of sums of many thousands."""
    problem = draw_problem(32, 3, 5, torch.float32)
    log_f = problem.log_f.clone()
    log_f[..., :8] = -997.3
    problem = problem.replace(log_f=log_f)
    exact = Problem(*(x.double() for x in problem))
    actual, _ = triton_chunkwise(*problem[:5], problem.state)
    expected, _ = mlstm_recurrent(*exact[:5], exact.state)
    assert_close(actual, expected.float())


def test_padding_leaves_the_state_unchanged() -> None:
    problem = draw_problem(20, 3, 5, torch.float32)
    problem = problem.replace(
        log_i=torch.full_like(problem.log_i, -math.inf),
        log_f=torch.zeros_like(problem.log_f),
        m=torch.full_like(problem.m, 1e4),
    )
    _, state = triton_chunkwise(*problem[:5], problem.state)
    assert_identical(state, problem.state)


def test_sequence_equals_prefix_then_suffix() -> None:
    problem = draw_problem(20, 3, 5)
    h, last = triton_chunkwise(*problem[:5], problem.state)
    first, state = triton_chunkwise(*problem.span(None, 7), problem.state)
    second, state = triton_chunkwise(*problem.span(7, None), state)
    assert_matches((torch.cat([first, second], dim=2), state), (h, last))


def test_strided_and_expanded_inputs_match_dense_copies() -> None:
    problem = draw_problem(9, 3, 5, B=2)
    strided = problem.replace(
        q=torch.stack([problem.q, problem.k], dim=-1)[..., 0],
        k=problem.k.transpose(0, -1).contiguous().transpose(0, -1),
        v=problem.v[:, :, :, :1].expand_as(problem.v),
        log_i=problem.log_i.transpose(0, -1).contiguous().transpose(0, -1),
        log_f=problem.log_f.transpose(0, -1).contiguous().transpose(0, -1),
        c=problem.c.transpose(2, 3).contiguous().transpose(2, 3),
    )
    dense = Problem(*(part.contiguous() for part in strided))
    assert_matches(
        with_gradients(triton_chunkwise, strided), with_gradients(triton_chunkwise, dense)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_inputs_in_16_bits(dtype: torch.dtype) -> None:
    """They are read as they are; sums and states are float32."""
    problem = draw_problem(20, 8, 8)
    narrow = [x.to(dtype) for x in problem[:3]]
    rounded = problem.replace(**{name: x.double() for name, x in zip("qkv", narrow, strict=True)})
    leaves = [x.requires_grad_() for x in (*narrow, *(x.float() for x in problem[3:]))]
    h, state = triton_chunkwise(*leaves[:5], mLSTMState(*leaves[5:]))
    assert h.dtype == dtype and all(x.dtype == torch.float32 for x in state)
    expected_results, expected_gradients = with_gradients(mlstm_recurrent, rounded, "h")
    # Products of numbers of 16 bits are exact in float32, and so is the state but for sums. A GPU
    # rounds the weights of steps to TF32.
    tolerance = None if DEVICE.type == "cpu" else 1e-3
    assert_close(state, mLSTMState(*(x.float() for x in expected_results[1:])), tolerance)
    epsilon = torch.finfo(dtype).eps
    assert_close(h.double(), expected_results[0], epsilon)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(h.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(h, leaves[:7], weights.to(dtype))
    for x, leaf, expected in zip(gradients, leaves, expected_gradients, strict=False):
        assert x.dtype == leaf.dtype
        assert_close(x.double(), expected, 8 * epsilon)  # of rounded weights, h and results


def test_second_derivatives_are_those_of_pytorch() -> None:
    """They use the naive form, for inputs in 16 bits, too."""
    problem = [x.requires_grad_() for x in draw_problem(3, 3, 5)]

    def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = triton_chunkwise(*inputs[:5], mLSTMState(*inputs[5:]))
        return h, *state

    if WIDE == torch.float64:  # differences of float32 are no derivatives
        assert torch.autograd.gradgradcheck(flat, problem, fast_mode=True)
    narrow = [x.detach().bfloat16().requires_grad_() for x in problem[:3]]
    h, _ = triton_chunkwise(*narrow, *(x.detach().float() for x in problem[3:5]))
    first = torch.autograd.grad(h.square().sum(), narrow, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), narrow)
    assert all(x.dtype == torch.bfloat16 and x.isfinite().all() for x in second)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [-60, 0, 60])
def test_float32_stays_accurate_over_long_sequences(offset: int) -> None:
    problem = draw_problem(500, 8, 8, torch.float32, offset)
    problem = problem.replace(log_f=10 * problem.log_f, q=problem.q.abs(), k=problem.k.abs())
    exact = Problem(*(x.double() for x in problem))
    actual = with_gradients(partial(triton_chunkwise, chunk_size=64), problem)
    expected = with_gradients(mlstm_recurrent, exact)
    assert_close(actual[0][0], expected[0][0].float())
    # m is a sum of decays of up to a hundred, and gradients are sums over all steps.
    rounded = tuple(tuple(x.float() for x in part) for part in expected)
    assert_close((actual[0], tuple(actual[1])), rounded, 1e-4)
