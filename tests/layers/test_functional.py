"""The sequence forms equal each other and the paper's equations, and are differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.forms import FORMS, INF, stepped
from helpers.problems import Form, Problem, make_problem, with_gradients
from helpers.reference import collapsed_mlstm, decimal_mlstm, reference_mlstm, running_maximum
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm.layers._recurrent import _mlstm
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import functional
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mlstm_step,
    mLSTMState,
)


def empty_state(problem: Problem) -> mLSTMState:
    """Return the empty memory in its mathematical form, with m = -inf."""
    return mLSTMState(
        torch.zeros_like(problem.c),
        torch.zeros_like(problem.n),
        torch.full_like(problem.m, -INF),
    )


def paper_form(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: mLSTMState
) -> tuple[Tensor, mLSTMState]:
    """Run the oracle with the signature of the forms: stabilized state in and out."""
    c, n, m = state
    scale = m.exp()
    h, c, n = reference_mlstm(
        q, k, v, log_i, log_f, c * scale[..., None, None], n * scale[..., None]
    )
    m = running_maximum(log_i, log_f, m)
    scale = (-m).exp()
    return h, mLSTMState(c * scale[..., None, None], n * scale[..., None], m)


def attention(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: None = None
) -> Tensor:
    """Read with the weights of the attention form, which has no initial state."""
    assert state is None
    return mlstm_read_weights(q, k, log_i, log_f) @ v


SEQUENCE_FORMS = {name: form for name, form in FORMS.items() if name != "step"}
parametrize_forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
parametrize_sequence_forms = pytest.mark.parametrize(
    "form", SEQUENCE_FORMS.values(), ids=SEQUENCE_FORMS
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


@pytest.mark.parametrize("chunk_size", [1, 2, 5, None])
def test_gradcheck_chunkwise(chunk_size: int | None) -> None:
    gradcheck(partial(mlstm_chunkwise, chunk_size=chunk_size))


def test_gradcheck_recurrent() -> None:
    gradcheck(mlstm_recurrent)


@pytest.mark.parametrize("form", [mlstm_recurrent, mlstm_chunkwise], ids=["recurrent", "chunkwise"])
def test_second_derivative(form: Form) -> None:
    problem = [part.requires_grad_() for part in make_problem(3, B=1)]

    def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = form(*inputs[:5], mLSTMState(*inputs[5:]))
        return (h, *state)

    assert torch.autograd.gradgradcheck(flat, problem)


def gradcheck(form: Form) -> None:
    """Compare the gradients of h, c, n and m with finite differences."""
    problem = [part.requires_grad_() for part in make_problem(5, B=1)]

    def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = form(*inputs[:5], mLSTMState(*inputs[5:]))
        return (h, *state)

    assert torch.autograd.gradcheck(flat, problem)


@parametrize_forms
@pytest.mark.parametrize("outputs", ["h", "c", "n", "m", "hm", "cn"])
def test_gradient_of_some_outputs(form: Form, outputs: str) -> None:
    """A loss may use h alone, as most losses do, or any part of the last state."""
    problem = make_problem(31)
    _, gradients = with_gradients(form, problem, outputs)
    assert_close(gradients, with_gradients(paper_form, problem, outputs)[1])


@parametrize_forms
@pytest.mark.parametrize("name", Problem._fields)
def test_gradient_of_one_input(form: Form, name: str) -> None:
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


@parametrize_sequence_forms
@pytest.mark.parametrize("offset", [-30, 0, 30])
def test_float32_stays_accurate_over_long_strongly_decaying_sequences(
    form: Form, offset: float
) -> None:
    """Differences of long cumulative sums (here 20,000, precise to 1e-3) lose three digits."""
    problem = make_problem(1100, B=1, offset=offset)
    problem = problem.replace(log_f=10 * problem.log_f, q=problem.q.abs(), k=problem.k.abs())
    problem = Problem(*(part.float() for part in problem))
    h, state = form(*problem[:5], problem.state)
    exact = Problem(*(part.double() for part in problem))
    expected_h, expected_state = stepped(*exact[:5], exact.state)
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


def true_memory(state: mLSTMState) -> tuple[Tensor, Tensor]:
    """Return c and n without the stabilizer."""
    return state.c * state.m.exp()[..., None, None], state.n * state.m.exp()[..., None]


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
@pytest.mark.parametrize("t", [0, 13, 14, 63])
@pytest.mark.parametrize("name", ["q", "k", "v", "log_i", "log_f"])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_read_weights_of_extreme_gates(dtype: torch.dtype) -> None:
    for gates in (
        ([-50.0, 50.0, 0.3], [-50.0, 50.0, -0.3]),
        ([-INF, 0.2, 1.5], [-INF, 0.0, -0.7]),
        ([-INF], [-INF]),
        ([2e4, -2e4], [1e4, -1e4, -1.0]),
    ):
        problem = extreme_problem(gates, dtype)
        h = attention(*problem[:5])
        assert_close(h, mlstm_recurrent(*problem[:5])[0])


# --- extreme gates

EXTREMES = {
    "±50": ([-50.0, 50.0, 0.3], [-50.0, 50.0, -0.3]),
    "±inf": ([-INF, 0.2, 1.5], [-INF, 0.0, -0.7]),
    "all": ([-INF, -50.0, 0.1, 50.0], [-INF, -50.0, -0.1, 0.0, 50.0]),
    "closed": ([-INF], [-INF]),
    "tiny": ([-900.0, -700.0], [-900.0, -0.5]),
    "huge": ([2e4, -2e4], [1e4, -1e4, -1.0]),
}


def extreme_problem(gates: tuple[list[float], list[float]], dtype: torch.dtype) -> Problem:
    """Draw gates from the lists. q and k are positive, so that no sum cancels."""
    problem = make_problem(24, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    log_i, log_f = (
        torch.tensor(values)[torch.randint(len(values), (2, 2, 24), generator=generator)].to(dtype)
        for values in gates
    )
    q, k = problem.q.abs(), problem.k.abs()
    return problem.replace(q=q, k=k, n=problem.n.abs(), log_i=log_i, log_f=log_f)


@parametrize_forms
@pytest.mark.parametrize("start", ["given state", "empty"])
@pytest.mark.parametrize("gates", EXTREMES.values(), ids=EXTREMES)
def test_extreme_gates_are_exact(
    form: Form, gates: tuple[list[float], list[float]], start: str
) -> None:
    problem = extreme_problem(gates, torch.float64)
    if start == "empty":
        h, state = form(*problem[:5])
        c, n = torch.zeros_like(problem.c), torch.zeros_like(problem.n)
    else:
        h, state = form(*problem[:5], problem.state)
        c, n = true_memory(problem.state)
    # Exponents reach 1e5, whose rounding in float64 is 1e-11.
    assert_close(h, decimal_mlstm(*problem[:5], c, n), 1e-10)
    assert state.c.isfinite().all() and state.n.isfinite().all() and not state.m.isnan().any()


@parametrize_forms
@pytest.mark.parametrize("start", ["given state", "empty"])
@pytest.mark.parametrize("gates", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_at_extreme_gates_are_finite(
    form: Form, gates: tuple[list[float], list[float]], start: str, dtype: torch.dtype
) -> None:
    problem = extreme_problem(gates, dtype)
    if start == "empty":
        problem = problem.replace(**empty_state(problem)._asdict())
    results, gradients = with_gradients(form, problem, "h")
    _, expected = with_gradients(mlstm_recurrent, problem, "h")
    assert results[0].isfinite().all()
    for name, part in gradients._asdict().items():
        assert part.isfinite().all(), name
    if dtype == torch.float64:
        assert_close(gradients, expected, 1e-10)


# --- unusual tensors


def test_inputs_stay_unchanged() -> None:
    for form in FORMS.values():
        problem = make_problem(9)
        original = Problem(*(part.clone() for part in problem))
        form(*problem[:5], problem.state)
        assert_identical(problem, original)


@parametrize_forms
def test_non_contiguous_inputs(form: Form) -> None:
    """Transposed, strided and expanded tensors give the same as contiguous copies."""
    problem = make_problem(31)
    transposed = Problem(*(part.transpose(0, -1).contiguous().transpose(0, -1) for part in problem))
    strided = transposed.replace(
        q=torch.stack([problem.q, problem.k], dim=-1)[..., 0],
        log_i=torch.stack([problem.log_i, problem.log_f], dim=-1)[..., 0],
    )
    assert not any(part.is_contiguous() for part in strided if part.dim() > 1)
    assert_close(with_gradients(form, strided), with_gradients(form, problem))

    expanded = problem.replace(v=problem.v[:, :1, :, :1].expand_as(problem.v))
    assert_close(
        form(*expanded[:5], expanded.state),
        form(*(part.contiguous() for part in expanded[:5]), expanded.state),
    )


@parametrize_forms
def test_samples_and_heads_do_not_mix(form: Form) -> None:
    problem = make_problem(31)
    h, state = form(*problem[:5], problem.state)
    single = Problem(*(part[1:, :1] for part in problem))
    assert_close(
        form(*single[:5], single.state),
        (h[1:, :1], mLSTMState(*(part[1:, :1] for part in state))),
    )


@pytest.mark.parametrize("contiguous", [True, False], ids=["heads-first", "time-first"])
@pytest.mark.parametrize(
    ("B", "T", "chunk_size"), [(80, 100, 1000), (3, 600, 600), (9, 1100, None)], ids=str
)
def test_large_problems_that_may_be_tiled(
    B: int, T: int, chunk_size: int | None, contiguous: bool
) -> None:
    """Millions of products, which an implementation may compute in uneven tiles or one by one."""
    problem = make_problem(T, B)
    if not contiguous:  # the memory layout of a layer over (T, B, H)
        problem = Problem(
            *(part.movedim(2, 0).contiguous().movedim(0, 2) for part in problem[:5]),
            *problem.state,
        )
    form = partial(mlstm_chunkwise, chunk_size=chunk_size)
    results, gradients = with_gradients(form, problem)
    expected_results, expected_gradients = with_gradients(mlstm_recurrent, problem)
    assert_close(results, expected_results)
    assert_close(gradients, expected_gradients)


@parametrize_forms
def test_empty_batch(form: Form) -> None:
    results, gradients = with_gradients(form, make_problem(9, B=0))
    assert results[0].shape == (0, 2, 9, 5)
    assert [part.shape for part in gradients] == [part.shape for part in make_problem(9, B=0)]


@parametrize_sequence_forms
def test_no_time_steps(form: Form) -> None:
    problem = make_problem(0)
    h, state = form(*problem[:5], problem.state)
    assert h.shape == (2, 2, 0, 5) and h.dtype == torch.float64
    assert_identical(state, problem.state)
    h, state = form(*problem[:5])
    assert h.shape == (2, 2, 0, 5)
    assert_identical(true_memory(state), (torch.zeros_like(state.c), torch.zeros_like(state.n)))


@parametrize_forms
def test_one_key_and_one_value(form: Form) -> None:
    problem = make_problem(31)
    scalar = Problem(
        problem.q[..., :1],
        problem.k[..., :1],
        problem.v[..., :1],
        problem.log_i,
        problem.log_f,
        problem.c[..., :1, :1],
        problem.n[..., :1],
        problem.m,
    )
    assert_close(with_gradients(form, scalar), with_gradients(paper_form, scalar))


# --- precision


@parametrize_forms
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_reduced_precision_is_float32_rounded_once(
    form: Form, dtype: torch.dtype, autocast: bool
) -> None:
    problem = make_problem(64)
    inputs = [part.to(dtype).requires_grad_() for part in problem[:5]]
    state = mLSTMState(*(part.float() for part in problem.state))
    expected_h, expected = form(*(part.float() for part in inputs), state)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        h, final = form(*inputs, state)
    assert_identical(h, expected_h.to(dtype))
    assert_identical(final, expected)
    for part in torch.autograd.grad(h.float().sum(), inputs):
        assert part.dtype == dtype and part.isfinite().all() and part.any()


@parametrize_forms
def test_autocast_does_not_change_float32(form: Form) -> None:
    problem = make_problem(64, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = form(*problem[:5], problem.state)
    assert_identical(result, form(*problem[:5], problem.state))


# --- cost


class OperationCounter(TorchDispatchMode):
    """Counts the operations that run inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def count_operations(form: Form, T: int) -> int:
    problem = make_problem(T, B=1)
    with OperationCounter() as counter:
        form(*problem[:5], problem.state)
    return counter.operations


def test_chunkwise_does_not_loop() -> None:
    """64 chunks take as many operations as 4; the recurrent form is the counterexample."""
    form = partial(mlstm_chunkwise, chunk_size=16)
    assert count_operations(form, 1024) == count_operations(form, 64)
    recurrent = [count_operations(mlstm_recurrent, T) for T in (64, 128)]
    assert recurrent[1] > recurrent[0] + 64


def test_chunkwise_memory_for_the_gradient_grows_linearly() -> None:
    def saved_bytes(T: int) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        problem = [part.requires_grad_() for part in make_problem(T, B=1, dtype=torch.float32)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = mlstm_chunkwise(*problem[:5], mLSTMState(*problem[5:]))
        del result
        return sum(storages.values())

    # Twice the length takes twice the memory, and a little for the (chunks, chunks) decays.
    assert saved_bytes(4096) < 2.5 * saved_bytes(2048)


# --- errors

parametrize_checking_forms = pytest.mark.parametrize(
    "form", [mlstm_recurrent, mlstm_chunkwise], ids=["recurrent", "chunkwise"]
)

INVALID_INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "q without heads": ({"q": torch.zeros(2, 9, 3)}, ["q", "(2, 9, 3)"]),
    "k with another length": (
        {"k": torch.zeros(2, 2, 8, 3)},
        ["k", "(2, 2, 8, 3)", "(2, 2, 9, 3)"],
    ),
    "k with another width": ({"k": torch.zeros(2, 2, 9, 4)}, ["k", "(2, 2, 9, 4)", "(2, 2, 9, 3)"]),
    "v with another batch size": ({"v": torch.zeros(1, 2, 9, 5)}, ["v", "(1, 2, 9, 5)"]),
    "v without heads": ({"v": torch.zeros(2, 9, 5)}, ["v", "(2, 9, 5)"]),
    "log_i that could be broadcast": (
        {"log_i": torch.zeros(2, 1, 9)},
        ["log_i", "(2, 1, 9)", "(2, 2, 9)"],
    ),
    "log_f with a last axis": ({"log_f": torch.zeros(2, 2, 9, 1)}, ["log_f", "(2, 2, 9, 1)"]),
    "integer q": ({"q": torch.zeros(2, 2, 9, 3, dtype=torch.int64)}, ["q", "int64"]),
    "integer gate": ({"log_i": torch.zeros(2, 2, 9, dtype=torch.int32)}, ["log_i", "int32"]),
    "c transposed": ({"c": torch.zeros(2, 2, 3, 5)}, ["c", "(2, 2, 3, 5)", "(2, 2, 5, 3)"]),
    "n with another batch size": ({"n": torch.zeros(1, 2, 3)}, ["n", "(1, 2, 3)", "(2, 2, 3)"]),
    "m with a last axis": ({"m": torch.zeros(2, 2, 1)}, ["m", "(2, 2, 1)", "(2, 2)"]),
    "half-precision state": ({"c": torch.zeros(2, 2, 5, 3).half()}, ["c", "float16", "float32"]),
    "state on another device": ({"m": torch.zeros(2, 2, device="meta")}, ["m", "meta", "cpu"]),
    "q not a tensor": ({"q": [[1.0]]}, ["q", "tensor", "list"]),
}


@parametrize_checking_forms
@pytest.mark.parametrize(("parts", "words"), INVALID_INPUTS.values(), ids=INVALID_INPUTS)
def test_invalid_input_raises(form: Form, parts: dict[str, Tensor], words: list[str]) -> None:
    problem = make_problem(9, dtype=torch.float32).replace(**parts)
    assert_raises_mentioning(lambda: form(*problem[:5], problem.state), form.__name__, *words)


@parametrize_checking_forms
@pytest.mark.parametrize("parts", [3, 2], ids=["plain tuple", "half a state"])
def test_invalid_state_raises(form: Form, parts: int) -> None:
    problem = make_problem(9)
    state = tuple(problem.state)[:parts]
    words = (form.__name__, "state", "mLSTMState", "tuple")
    assert_raises_mentioning(lambda: form(*problem[:5], state), *words)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("q", (2, 2, 1, 3), "(2, 2, 1, 3)"),
        ("k", (2, 2, 4), "(2, 2, 3)"),
        ("v", (2, 1, 5), "(2, 1, 5)"),
        ("log_i", (2,), "(2, 2)"),
        ("log_f", (2, 2, 1), "(2, 2)"),
    ],
)
def test_invalid_input_of_a_step_raises(name: str, shape: tuple, expected: str) -> None:
    problem = make_problem(1, dtype=torch.float32)
    inputs = {part: getattr(problem, part)[:, :, 0] for part in Problem._fields[:5]}
    inputs[name] = torch.zeros(shape)
    assert_raises_mentioning(
        lambda: mlstm_step(**inputs, state=problem.state), "mlstm_step", name, expected
    )


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5])
def test_invalid_chunk_size_raises(chunk_size: Any) -> None:
    assert_raises_mentioning(
        lambda: mlstm_chunkwise(*make_problem(9)[:5], chunk_size=chunk_size),
        "mlstm_chunkwise",
        "chunk_size",
        str(chunk_size),
    )


def test_functional_names_are_exported_beside_cell_and_layer() -> None:
    assert set(functional.__all__) < set(_mlstm.__all__)
    assert all(getattr(_mlstm, name) is getattr(functional, name) for name in functional.__all__)
