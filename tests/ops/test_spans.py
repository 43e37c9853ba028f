"""The cost is linear in the length of a sequence, and spans of chunks do not change results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from helpers.gated import gated_function, naive_gated
from helpers.problems import make_problem, with_gradients
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMLayer
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import chunks
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.autograd import chunkwise_op, gated_op
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.naive import naive_chunkwise
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.types import Inputs


@pytest.fixture
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make spans of three chunks, so that short sequences cross several spans."""
    monkeypatch.setattr(chunks, "_CHUNKS_PER_SPAN", 3)


# --- the cost


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(results) if isinstance(x, Tensor)]
        self.numel = max([self.numel, *sizes])
        return results


def run_chunkwise(T: int) -> Callable[[], None]:
    problem = [part.requires_grad_() for part in make_problem(T, B=1, dtype=torch.float32)]

    def run() -> None:
        h, state = mlstm_chunkwise(*problem[:5], mLSTMState(*problem[5:]), chunk_size=4)
        torch.autograd.grad(h.sum() + state.c.sum(), problem[:3])

    return run


def run_naive(T: int) -> Callable[[], None]:
    problem = make_problem(T, B=1, dtype=torch.float32)

    def run() -> None:
        naive_chunkwise(Inputs(*problem[:5]), problem.state, L=4)

    return run


def run_layer(T: int) -> Callable[[], None]:
    """Run a layer over 16 T steps, in chunks of 64."""
    layer = mLSTMLayer(2, 4, dropout=0.0, num_heads=2)
    x = torch.randn(16 * T, 1, 2)

    def run() -> None:
        torch.autograd.grad(layer(x)[0].sum(), layer.parameters())

    return run


RUNS = {"chunkwise": run_chunkwise, "naive": run_naive, "layer": run_layer}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_arithmetic_grows_linearly(make: Callable[[int], Callable[[], None]]) -> None:
    def flops(T: int) -> int:
        run = make(T)
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    assert 3.9 < flops(4096) / flops(1024) < 4.1


@pytest.mark.parametrize("make", [run_chunkwise, run_naive], ids=["chunkwise", "naive"])
def test_largest_tensor_grows_linearly(make: Callable[[int], Callable[[], None]]) -> None:
    def largest(T: int) -> int:
        run = make(T)
        with LargestTensor() as tensors:
            run()
        return tensors.numel

    assert largest(4096) <= 4.1 * largest(1024)


def test_largest_intermediate_tensor_does_not_grow() -> None:
    """It has the same size for one span and for four, as long as the result is smaller."""

    def largest(T: int) -> int:
        q, k, v, log_i, log_f, *_ = make_problem(T, B=1)
        with LargestTensor() as tensors:
            mlstm_chunkwise(q, k, v, log_i, log_f, chunk_size=64)
        return tensors.numel

    assert largest(4 * 4096) == largest(4096)


# --- the numbers


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize("T", [1, 5, 14, 15, 16, 20, 21, 63])
@pytest.mark.parametrize("offset", [0.0, 60.0], ids=["factors", "far-apart"])
def test_chunkwise_across_spans_matches_the_recurrent_form(T: int, offset: float) -> None:
    """Values, last state and all gradients, for spans of 15 steps and an initial state."""
    problem = make_problem(T)
    problem = problem.replace(log_i=problem.log_i + offset * (torch.arange(T) % 7 == 3))
    fast = with_gradients(partial(mlstm_chunkwise, chunk_size=5), problem)
    assert_close(fast, with_gradients(mlstm_recurrent, problem), 1e-11 if offset else 1e-12)


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize("outputs", ["h", "c", "n", "m"])
def test_gradients_across_spans_if_the_loss_uses_one_output(outputs: str) -> None:
    problem = make_problem(40)
    form = partial(mlstm_chunkwise, chunk_size=4)
    expected = with_gradients(mlstm_recurrent, problem, outputs)
    assert_close(with_gradients(form, problem, outputs), expected)


def test_long_sequences_match_the_recurrent_form() -> None:
    """With the default sizes: a span of 64 chunks, one more chunk, and one more step."""
    problem = make_problem(64 * 65 + 1, B=1)
    h, state = mlstm_chunkwise(*problem[:5], problem.state)
    assert_close((h, state), mlstm_recurrent(*problem[:5], problem.state))


@pytest.mark.usefixtures("short_spans")
def test_derivatives_across_spans_match_finite_differences() -> None:
    problem = [part.requires_grad_() for part in make_problem(7, B=1)]

    def form(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = mlstm_chunkwise(*inputs[:5], mLSTMState(*inputs[5:]), chunk_size=2)
        return h, *state

    assert torch.autograd.gradcheck(form, problem)
    assert torch.autograd.gradgradcheck(form, problem, fast_mode=True)


@pytest.mark.usefixtures("short_spans")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_of_gradients_across_spans_matches_a_loop() -> None:
    problem = make_problem(31, B=3)

    def loss(*inputs: Tensor) -> Tensor:
        batch = [part[None] for part in inputs]
        h, state = mlstm_chunkwise(*batch[:5], mLSTMState(*batch[5:]), chunk_size=4)
        return h.sin().sum() + state.c.sum() + state.n.sum()

    gradient = torch.func.grad(loss, argnums=tuple(range(8)))
    expected = [gradient(*(part[b] for part in problem)) for b in range(3)]
    actual = torch.func.vmap(gradient)(*problem)
    assert_close(actual, tuple(torch.stack(parts) for parts in zip(*expected, strict=True)))


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
@pytest.mark.parametrize("norm", [False, True], ids=["no-norm", "norm"])
def test_layer_across_spans_matches_the_naive_form(norm: bool, masked: bool) -> None:
    """Chunks have up to 32 steps and spans 96; outputs, state and gradients."""
    torch.manual_seed(0)
    p = torch.randn(2, 300, 4 * 4 + 2 * 2, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(2, 2, *shape).double().requires_grad_() for shape in ((2, 2), (2,), ())]
    padding = torch.rand(2, 300, 1) < 0.3 if masked else None
    sizes = [4, 4, 4, 8] * 2 if norm else []
    affine = [torch.randn(size).double().requires_grad_() for size in sizes]
    norms = (1e-5, *affine) if norm else ()
    inputs = (p, *state, *affine)

    def run(form: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        results = form(p, *state, padding, *norms)
        loss = sum(part.sin().sum() for part in results)
        return (*results, *torch.autograd.grad(loss, inputs))

    assert_close(run(gated_function), run(naive_gated), 1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("short_spans")
def test_operators_across_spans_pass_opcheck() -> None:
    torch.library.opcheck(chunkwise_op, (list(make_problem(32, B=2)), "pytorch", 4))
    p = torch.randn(2, 29, 4 * 8 + 2 * 2, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(2, 2, *shape).double().requires_grad_() for shape in ((4, 4), (4,), ())]
    torch.library.opcheck(gated_op, (p, state, None, "pytorch", 4))
