"""The sequence forms at extreme gates, on unusual tensors, in 16 bits, and their cost."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.forms import (
    INF,
    attention,
    empty_state,
    paper_form,
    parametrize_forms,
    parametrize_sequence_forms,
    true_memory,
)
from helpers.problems import Form, Problem, make_problem, with_gradients
from helpers.products import spread
from helpers.reference import decimal_mlstm
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mLSTMState,
)

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
@spread("gates, start", EXTREMES, ["given state", "empty"])
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
@spread("gates, start, dtype", EXTREMES, ["given state", "empty"], [torch.float32, torch.float64])
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


# --- unusual tensors


@parametrize_forms
def test_inputs_stay_unchanged(form: Form) -> None:
    problem = make_problem(9)
    original = Problem(*(part.clone() for part in problem))
    with_gradients(form, problem)
    assert_identical(problem, original)


@parametrize_forms
def test_non_contiguous_inputs_match_contiguous_copies(form: Form) -> None:
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


@spread(
    "sizes, contiguous",
    [(80, 100, 1000), (3, 600, 600), (9, 1100, None)],
    {"time-first": False, "heads-first": True},
)
def test_large_problems_that_may_be_tiled(
    sizes: tuple[int, int, int | None], contiguous: bool
) -> None:
    """Millions of products, which an implementation may compute in uneven tiles or one by one."""
    B, T, chunk_size = sizes
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
def test_empty_batch_gives_empty_results_and_gradients(form: Form) -> None:
    results, gradients = with_gradients(form, make_problem(9, B=0))
    assert results[0].shape == (0, 2, 9, 5)
    assert [part.shape for part in gradients] == [part.shape for part in make_problem(9, B=0)]


@parametrize_sequence_forms
def test_sequence_without_steps_returns_the_state(form: Form) -> None:
    problem = make_problem(0)
    h, state = form(*problem[:5], problem.state)
    assert h.shape == (2, 2, 0, 5) and h.dtype == torch.float64
    assert_identical(state, problem.state)
    h, state = form(*problem[:5])
    assert h.shape == (2, 2, 0, 5)
    assert_identical(true_memory(state), (torch.zeros_like(state.c), torch.zeros_like(state.n)))


@parametrize_forms
def test_keys_and_values_of_size_one_match_the_equations(form: Form) -> None:
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
