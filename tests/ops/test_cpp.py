"""The kernel in C++: what a layer computes without it. Where it cannot be built, it says so."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.datasets import fit, make_dataset
from helpers.gated import gated_function, gated_kernel
from helpers.layers import (
    GRADIENT,
    draw_input,
    draw_state,
    each_mask,
    gradients,
    make_layer,
    step_cells,
)
from helpers.problems import Problem
from helpers.problems import with_gradients as with_gradients_of
from helpers.reference import reference_mlstm
from helpers.tolerances import assert_close, assert_complains, assert_identical
from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer, mLSTMTime, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import dispatch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.autograd import GatedFunction
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import backend, bindings, build
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp.self_test import self_test

META = torch.device("meta")
needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the kernel needs Linux and a C++ compiler",
)


@pytest.fixture(scope="module", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        forget()
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Switch the kernel on, and list its calls by the layer."""
    yield from switched_on("gated", monkeypatch)


@pytest.fixture
def chunkwise_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Switch the kernel on, and list its calls by ``mlstm_chunkwise``."""
    yield from switched_on("chunkwise", monkeypatch)


def switched_on(operation: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    use_kernel()
    seen: list[str] = []
    for name, direction in (("fwd", "forward"), ("bwd", "backward")):
        original = getattr(backend, f"{operation}_{name}")

        def spy(
            *args: Any, direction: str = direction, original: Callable[..., Any] = original
        ) -> Any:
            seen.append(direction)
            return original(*args)

        monkeypatch.setattr(backend, f"{operation}_{name}", spy)
    yield seen
    use_kernel(False)


# --- the recurrence, against the equations of the paper


def gated_reference(
    p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None, norms: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Split, normalize, gate and read, one step after the other."""
    NH, d = n.shape[1:]
    H = NH * d
    parts = list(p.split([H, H, H, 2 * NH + H], dim=-1))
    if norms:
        for j, part in enumerate(parts):
            centered = part - part.mean(-1, keepdim=True)
            spread = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            parts[j] = centered / spread * norms[j] + norms[4 + j]
    q, k, v = (part.unflatten(-1, (NH, d)).transpose(1, 2) for part in parts[:3])
    i, f, o = parts[3].split([NH, NH, H], dim=-1)
    log_i, log_f = 15 * torch.tanh(i / 15), -torch.log1p(torch.exp(-f))
    if padding is not None:
        log_i, log_f = log_i.masked_fill(padding, -torch.inf), log_f.masked_fill(padding, 0.0)
    log_i, log_f = log_i.mT, log_f.mT
    h, c, n = reference_mlstm(q, k / d**0.5, v, log_i, log_f, c, n)
    return torch.sigmoid(o) * h.transpose(1, 2).flatten(-2), c, n


def draw(
    T: int, NH: int, d: int, dtype: torch.dtype = torch.float64, B: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw pre-activations and a state that is not empty."""
    shapes = (B, T, 4 * NH * d + 2 * NH), (B, NH, d, d), (B, NH, d)
    p, c, n = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return p, c, n


def with_gradients(
    form: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], *others: Any
) -> tuple[Tensor, ...]:
    """Return what a form gives, and all gradients of a combination of it."""
    results = form(*inputs, *others)
    loss = sum(((j + 1) * part.sin()).sum() for j, part in enumerate(results))
    return *results, *torch.autograd.grad(loss, inputs)


@needs_compiler
@pytest.mark.parametrize("d", bindings.HEAD_SIZES)
@pytest.mark.parametrize("T", [1, 31, 64, 65, 200])
def test_kernel_is_the_paper(d: int, T: int) -> None:
    """Every head size, lengths around the 64 steps between checkpoints, all gradients."""
    inputs = draw(T, 2, d)
    found = with_gradients(gated_kernel, inputs, None)
    assert_close(found, with_gradients(gated_reference, inputs, None, []), GRADIENT)


@needs_compiler
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_padding_leaves_the_state_alone(share: float) -> None:
    inputs, padding = draw(70, 2, 8), torch.rand(3, 70, 1) < share
    found = with_gradients(gated_kernel, inputs, padding)
    assert_close(found, with_gradients(gated_reference, inputs, padding, []), GRADIENT)
    if share == 1:
        assert_identical(found[1:3], inputs[1:])


@needs_compiler
def test_layer_norms_are_those_of_the_parts() -> None:
    H, sizes = 16, [16, 16, 16, 20]
    affine = [torch.randn(size).double().requires_grad_() for size in sizes * 2]
    p, c, n = draw(70, 2, H // 2)

    def kernel(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> tuple[Tensor, ...]:
        return gated_kernel(p, c, n, None, 1e-5, *affine)

    def reference(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> tuple[Tensor, ...]:
        return gated_reference(p, c, n, None, list(affine))

    inputs = (p, c, n, *affine)
    assert_close(with_gradients(kernel, inputs), with_gradients(reference, inputs), GRADIENT)


@needs_compiler
def test_first_and_second_derivatives() -> None:
    inputs, padding = draw(4, 1, 8, B=1), torch.tensor([[[False], [True], [False], [False]]])

    def form(*inputs: Tensor) -> tuple[Tensor, ...]:
        return gated_kernel(*inputs, padding)

    assert torch.autograd.gradcheck(form, inputs)
    assert torch.autograd.gradgradcheck(form, inputs)


@needs_compiler
@pytest.mark.parametrize("used", [0, 1, 2])
def test_what_has_no_gradient_counts_nothing(used: int) -> None:
    """Only one of h, c and n is part of the loss."""
    inputs = draw(70, 2, 8)

    def gradients_of(form: Callable[..., tuple[Tensor, ...]], *others: Any) -> tuple[Tensor, ...]:
        loss = form(*inputs, *others)[used].sin().sum()
        found = torch.autograd.grad(loss, inputs, allow_unused=True)
        return tuple(
            torch.zeros_like(x) if grad is None else grad
            for x, grad in zip(inputs, found, strict=True)
        )

    assert_close(gradients_of(gated_kernel, None), gradients_of(gated_reference, None, []))


@needs_compiler
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_gates_of_any_size(size: float) -> None:
    """Open and shut gates, as without the kernel."""
    p, c, n = draw(150, 2, 8)
    with torch.no_grad():
        p[..., 48:] *= size
    m = torch.zeros(3, 2).double()

    def chunkwise(p: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        h, c, n, last = gated_function(p, c, n, m, None)
        scale = last.exp()[..., None]
        return h, c * scale[..., None], n * scale

    found = with_gradients(lambda *x: gated_kernel(*x, None), (p, c, n))
    # memories of up to 1e7, whose rounding errors sines and gradients multiply
    assert_close(found[:3], chunkwise(p, c, n))
    inputs = (p, c, n)
    for kernel, plain in zip(
        torch.autograd.grad(gated_kernel(*inputs, None)[0].sum(), inputs),
        torch.autograd.grad(chunkwise(*inputs)[0].sum(), inputs),
        strict=True,
    ):
        assert_close(kernel, plain, 1e-9)


@needs_compiler
@pytest.mark.parametrize("d", [8, 32])
def test_float32_is_float64_rounded(d: int) -> None:
    """Of a thousand steps, errors of one chunk do not reach the next."""
    inputs = draw(1000, 2, d)
    expected = with_gradients(gated_kernel, inputs, None)
    rounded = tuple(x.detach().float().requires_grad_() for x in inputs)
    found = with_gradients(gated_kernel, rounded, None)
    # 1000 steps, and the sine of a sum of them
    assert_close(found, tuple(x.float() for x in expected), 1e-4)


@needs_compiler
@pytest.mark.parametrize("gate", [0.0, 3.0, 8.0, 12.0, 16.0, 18.0])
def test_forget_gates_keep_their_digits(gate: float) -> None:
    """In float32, an open gate is 1 - 1e-7: its gradient must not be lost in that 1."""
    p, _, _ = draw(300, 2, 16)
    with torch.no_grad():
        p[..., :96].abs_()  # nothing cancels
        p[..., 98:100] = gate
    p = p.detach().float().double().requires_grad_()

    def gradient_of_gates(p: Tensor) -> Tensor:
        state = p.new_zeros(3, 2, 16, 16), p.new_zeros(3, 2, 16)
        h = gated_kernel(p, *state, None)[0]
        return torch.autograd.grad(h[:, -1].sum(), p)[0][..., 98:100].double()

    expected = gradient_of_gates(p)
    found = gradient_of_gates(p.detach().float().requires_grad_())
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()  # 300 steps of float32


@needs_compiler
def test_long_memories_of_float32_are_those_of_float64() -> None:
    p, c, n = draw(3000, 2, 16, B=1)
    with torch.no_grad():
        p[..., 98:100] += 12  # memories of 160,000 steps
    exact = gated_kernel(p, c, n, None)
    h, last_c, last_n = gated_kernel(p.float(), c.float(), n.float(), None)
    # three thousand roundings of c, and a quotient
    assert_close((last_c, last_n), tuple(x.float() for x in exact[1:]), 1e-4)
    assert_close(h, exact[0].float(), 1e-3)


@needs_compiler
def test_a_nan_is_handed_on() -> None:
    for part in range(6):  # q, k, v, i, f, o of the first head
        p, c, n = draw(20, 2, 8)
        with torch.no_grad():
            p[1, 10, (0, 16, 32, 48, 50, 52)[part]] = torch.nan
        h = gated_kernel(p, c, n, None)[0]
        assert h[1, 10].isnan().any() or h[1, 11:].isnan().any()
        assert not h[[0, 2]].isnan().any()
        assert not h[1, :10].isnan().any()
        (grad,) = torch.autograd.grad(h.sum(), p)
        assert grad[1].isnan().any()


@needs_compiler
@pytest.mark.parametrize("v_size", [1.0, 1e-3], ids=["C q overflows", "only nq overflows"])
def test_overflow_is_refused(calls: list[str], chunkwise_calls: list[str], v_size: float) -> None:
    """As without the kernel; where nᵀq alone overflows, a quotient of 0 would hide it."""
    problem = [part.detach() for part in draw_problem(30, 8, torch.float32)]
    problem[0], problem[1] = problem[0] * 1e21, problem[1] * 1e21
    problem[2] = problem[2] * v_size * 1e-6
    with pytest.raises(ValueError, match="mlstm_chunkwise: finite inputs overflow torch.float32"):
        mlstm_chunkwise(*problem[:5])
    layer = mLSTMLayer(3, 32, dropout=0.0, layer_norm=False)
    with pytest.raises(ValueError, match="mLSTMLayer: finite inputs overflow torch.float32"):
        layer(torch.randn(20, 2, 3) * 1e21)
    assert calls and chunkwise_calls


# --- without an output gate, and with gates of any size


def draw_problem(
    T: int,
    d: int,
    dtype: torch.dtype = torch.float64,
    B: int = 2,
    NH: int = 3,
    V: int | None = None,
) -> Problem:
    """Draw a problem in which both sides of the denominator occur."""
    V = d if V is None else V
    shapes = (B, NH, T, d), (B, NH, T, d), (B, NH, T, V), (B, NH, T), (B, NH, T)
    q, k, v, log_i, log_f = (torch.randn(shape, dtype=dtype) for shape in shapes)
    k, log_f = k / d**0.5, torch.nn.functional.logsigmoid(2 * log_f + 2)
    state = (torch.randn(shape, dtype=dtype) for shape in ((B, NH, V, d), (B, NH, d), (B, NH)))
    problem = Problem(q, k, v, log_i, log_f, *state)
    return Problem(*(part.requires_grad_() for part in problem))


@needs_compiler
@pytest.mark.parametrize("d", bindings.HEAD_SIZES)
@pytest.mark.parametrize("T", [1, 31, 65, 200])
def test_chunkwise_is_the_recurrent_form(chunkwise_calls: list[str], d: int, T: int) -> None:
    problem = draw_problem(T, d)
    found = with_gradients_of(mlstm_chunkwise, problem)
    assert chunkwise_calls == ["forward", "backward"]
    assert_close(found, with_gradients_of(mlstm_recurrent, problem), GRADIENT)


@needs_compiler
@pytest.mark.parametrize("offset", [-300, -60, -5, 5, 60, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_chunkwise_takes_gates_of_any_size(
    chunkwise_calls: list[str], dtype: torch.dtype, offset: int
) -> None:
    problem = draw_problem(100, 8, dtype)
    problem = Problem(*(x.detach() for x in problem._replace(log_i=problem.log_i + offset)))
    found = with_gradients_of(mlstm_chunkwise, problem)
    assert chunkwise_calls
    exact = with_gradients_of(mlstm_recurrent, Problem(*(x.double() for x in problem)))
    expected = tuple(tuple(x.to(dtype) for x in part) for part in exact)
    # in float32 a logarithm of 300 is known to 3e-5, and gradients pass many of them
    tolerance = 3e-4 if dtype == torch.float32 else GRADIENT
    assert_close((found[0], tuple(found[1])), expected, tolerance)


@needs_compiler
def test_chunkwise_with_masked_steps_shut_gates_and_an_empty_memory(
    chunkwise_calls: list[str],
) -> None:
    problem = draw_problem(100, 8)
    masked = torch.rand(2, 3, 100) < 0.3
    shut = torch.rand(2, 3, 100) < 0.1
    log_i = problem.log_i.masked_fill(masked, -torch.inf)
    log_f = problem.log_f.masked_fill(masked, 0.0).masked_fill(shut, -1e4)
    q, k, v = problem[:3]
    leaves = [x.detach().requires_grad_() for x in (q, k, v, log_i, log_f)]
    results = []
    for form in (mlstm_chunkwise, mlstm_recurrent):
        h, state = form(*leaves)
        loss = (h.sin().sum() + state.c.sin().sum() + state.n.cos().sum()) / 100
        results.append((h, *state, *torch.autograd.grad(loss, leaves)))
    assert_close(tuple(results[0]), tuple(results[1]), GRADIENT)
    assert chunkwise_calls


@needs_compiler
@pytest.mark.parametrize("used", range(4))
def test_chunkwise_where_one_result_is_part_of_the_loss(
    chunkwise_calls: list[str], used: int
) -> None:
    problem = draw_problem(70, 8)
    found = []
    for form in (mlstm_chunkwise, mlstm_recurrent):
        h, state = form(*problem[:5], mLSTMState(*problem[5:]))
        loss = (h, *state)[used].sin().sum()
        grads = torch.autograd.grad(loss, problem, allow_unused=True)
        found.append(
            tuple(
                torch.zeros_like(x) if g is None else g for x, g in zip(problem, grads, strict=True)
            )
        )
    assert_close(*found, GRADIENT)
    assert chunkwise_calls


@needs_compiler
def test_chunkwise_first_and_second_derivatives(chunkwise_calls: list[str]) -> None:
    inputs = tuple(draw_problem(4, 8, B=1, NH=1))

    def form(*inputs: Tensor) -> tuple[Tensor, ...]:
        h, state = mlstm_chunkwise(*inputs[:5], mLSTMState(*inputs[5:]))
        return h, *state

    assert torch.autograd.gradcheck(form, inputs)
    assert torch.autograd.gradgradcheck(form, inputs)
    assert chunkwise_calls


@needs_compiler
def test_chunkwise_tensors_may_lie_as_they_like(chunkwise_calls: list[str]) -> None:
    """As they come out of a projection, (B, T, NH, d), and transposed."""
    q, k, v, log_i, log_f, *state = draw_problem(31, 8)
    expected = mlstm_chunkwise(q, k, v, log_i, log_f, mLSTMState(*state))
    by_time = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    gates = [x.mT.contiguous().mT for x in (log_i, log_f)]
    found = mlstm_chunkwise(*by_time, *gates, mLSTMState(*state))
    assert_identical(found, expected)
    grads = []
    for h, _ in (found, expected):
        grads.append(torch.autograd.grad(h.sum(), (q, k, v, log_i, log_f, *state)))
    assert_identical(tuple(grads[0]), tuple(grads[1]))
    assert len(chunkwise_calls) == 4


@needs_compiler
def test_chunkwise_of_other_sizes_takes_no_kernel(chunkwise_calls: list[str]) -> None:
    for K, V in ((8, 16), (5, 5)):
        mlstm_chunkwise(*draw_problem(31, K, V=V)[:5])
    problem = draw_problem(31, 8)
    mlstm_chunkwise(*problem[:5], chunk_size=7)
    assert not chunkwise_calls


# --- layouts, threads


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("B", [1, 3, 40])
def test_threads_do_not_matter(threads: int, B: int) -> None:
    """To the bit: whole samples go to a thread, or single heads."""
    inputs = draw(700 if B < 40 else 70, 4, 16, torch.float32, B=B)
    alone = with_gradients(gated_kernel, inputs, None)
    torch.set_num_threads(threads)
    try:
        assert_identical(with_gradients(gated_kernel, inputs, None), alone)
    finally:
        torch.set_num_threads(1)


@needs_compiler
def test_two_callers_at_once() -> None:
    """Threads of Python, each with a problem of its own, as in a server."""
    problems = [draw(300, 4, 16, torch.float32, B=8) for _ in range(4)]
    expected = [with_gradients(gated_kernel, problem, None) for problem in problems]
    found: list[Any] = [None] * 4

    def work(j: int) -> None:
        found[j] = with_gradients(gated_kernel, problems[j], None)

    workers = [threading.Thread(target=work, args=(j,)) for j in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert_identical(tuple(found), tuple(expected))


@needs_compiler
def test_tensors_may_lie_as_they_like() -> None:
    p, c, n = draw(31, 2, 8)
    lying: dict[str, tuple[Tensor, Tensor, Tensor]] = {
        "time first": (p.transpose(0, 1).contiguous().transpose(0, 1), c, n),
        "width first": (p.permute(2, 0, 1).contiguous().permute(1, 2, 0), c, n),
        "every other": (p.repeat_interleave(2, dim=1)[:, ::2], c, n),
        "state transposed": (p, c.mT.contiguous().mT, n.repeat_interleave(2, dim=-1)[..., ::2]),
        "expanded": (p[:1, :1].expand_as(p), c, n),
    }
    for name, inputs in lying.items():
        dense = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in inputs)
        dense = tuple(x.requires_grad_() for x in dense)
        others = tuple(x.detach().requires_grad_() for x in inputs)
        expected = with_gradients(gated_kernel, dense, None)
        found = with_gradients(gated_kernel, others, None)
        assert_identical(found[:3], expected[:3], name)
        assert_close(
            found, expected
        )  # torch's sigmoid differs by a bit where tensors are not dense
    # a gradient that is one number everywhere, and one that lies width first
    h = gated_kernel(p, c, n, None)[0]
    ones = torch.ones(h.shape[-1], *h.shape[:2], dtype=h.dtype).permute(1, 2, 0)
    (expected,) = torch.autograd.grad(h, p, torch.ones_like(h), retain_graph=True)
    assert_identical(torch.autograd.grad(h.sum(), p, retain_graph=True)[0], expected)
    assert_identical(torch.autograd.grad(h, p, ones)[0], expected)


@needs_compiler
def test_gradients_of_a_state_that_lies_otherwise(chunkwise_calls: list[str]) -> None:
    """Where the last state is no part of the loss, and the first is transposed in memory."""
    p, c, n = draw(31, 2, 8)
    lying = c.detach().mT.contiguous().mT.requires_grad_()

    def of_layer(c: Tensor) -> Tensor:
        return torch.autograd.grad(gated_kernel(p, c, n, None)[0].sin().sum(), c)[0]

    assert_identical(of_layer(lying), of_layer(c))

    *inputs, c, n, m = draw_problem(31, 8)
    lying = c.detach().mT.contiguous().mT.requires_grad_()

    def of_chunkwise(c: Tensor) -> Tensor:
        h, _ = mlstm_chunkwise(*inputs, mLSTMState(c, n, m))
        return torch.autograd.grad(h.sin().sum(), c)[0]

    assert_identical(of_chunkwise(lying), of_chunkwise(c))
    assert chunkwise_calls


@needs_compiler
def test_inputs_are_not_changed_and_small_numbers_stay() -> None:
    inputs = draw(31, 2, 8)
    before = [x.clone() for x in inputs]
    with_gradients(gated_kernel, inputs, None)
    assert_identical(tuple(inputs), tuple(before))
    tiny = torch.tensor([1e-40])  # the kernel takes such for 0, and nothing else does
    assert (tiny * 0.5).item() > 0


# --- in the layer

LAYERS: dict[str, dict[str, Any]] = {
    "heads": {"hidden_size": 16, "num_heads": 2},
    "stack": {"hidden_size": 24, "num_heads": 3, "num_layers": 3},
    "no-norm": {"hidden_size": 48, "num_heads": 2, "num_layers": 2, "layer_norm": False},
}
each_layer = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)


@needs_compiler
@each_layer
@pytest.mark.parametrize("T", [1, 31, 70])
def test_layer_is_a_loop_over_its_cells(calls: list[str], options: dict[str, Any], T: int) -> None:
    layer = make_layer(**options)
    x, state = draw_input(T).requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state), step_cells(layer, x, state)
    assert_close(result, expected)
    calls.clear()
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT)
    assert calls == ["backward"] * layer.num_layers


@needs_compiler
@each_mask
def test_masked_layer_is_a_masked_loop(calls: list[str], draw_mask: Callable[[], Tensor]) -> None:
    layer, mask = make_layer(**LAYERS["stack"]), draw_mask()
    x, state = draw_input().requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state, mask), step_cells(layer, x, state, mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT)
    assert calls


@needs_compiler
def test_batch_first_and_blocks_of_samples(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(**LAYERS["heads"])
    x = draw_input()
    expected = layer(x)
    layer.batch_first = True
    output, state = layer(x.transpose(0, 1))
    assert_identical((output.transpose(0, 1), state), expected)
    layer.batch_first = False
    monkeypatch.setattr(
        "pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.tiling._TILE_NUMEL", 2000
    )
    calls.clear()
    assert_close(layer(x), expected)
    assert len(calls) > 1


@needs_compiler
def test_forward_pass_saves_nothing_but_its_inputs() -> None:
    p, c, n = draw(500, 2, 8)
    m = n.new_zeros(n.shape[:2])
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        GatedFunction.apply(p, c, n, m, None, "cpp")
    assert [x.data_ptr() for x in saved] == [x.data_ptr() for x in (p, c, n, m)]


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
def test_compiled_layer_uses_it_too(calls: list[str]) -> None:
    """One graph for every length, with masks, and the same numbers."""
    layer = make_layer(**LAYERS["stack"])
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for T in (40, 70, 17):
        x, mask = draw_input(T).requires_grad_(), torch.rand(T, 4) < 0.6
        inputs = [x, *layer.parameters()]
        expected = layer(x, mask=mask)
        expected_gradients = gradients(expected, inputs)
        calls.clear()
        result = compiled(x, mask=mask)
        assert_close(result, expected)
        assert_close(gradients(result, inputs), expected_gradients, GRADIENT)
        assert calls == ["forward"] * 3 + ["backward"] * 3
    use_kernel(False)
    calls.clear()
    assert_close(compiled(x, mask=mask), expected)
    assert not calls


@needs_compiler
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of vmap
def test_what_it_is_not_for_is_computed_without_it(calls: list[str]) -> None:
    x = torch.randn(9, 2, 3)
    for other in (
        mLSTMLayer(3, 8),  # heads of 2
        mLSTMLayer(3, 8, num_heads=None),
        mLSTMLayer(3, 16, num_heads=2).to("meta"),
    ):
        other(x.to(other.cells[0].projection.weight.device))
    layer = mLSTMLayer(3, 16, num_heads=2)
    torch.func.vmap(lambda x: layer(x)[0], in_dims=1, randomness="same")(x[:, :, None])
    torch.export.export(layer.eval(), (x,))
    mLSTMCell(3, 16, num_heads=2)(x[0], *layer.cells[0].init_hidden(2))
    layer(x[:0])
    assert not calls
    layer(x)
    assert calls == ["forward"]


@needs_compiler
def test_autocast_rounds_the_projection_alone(calls: list[str]) -> None:
    layer, x = mLSTMLayer(3, 16, num_heads=2, dropout=0.0), torch.randn(40, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(x)
        assert calls == ["forward"]
        use_kernel(False)
        expected, expected_state = layer(x)
    assert_close(output, expected)
    assert_close(state, expected_state)


@needs_compiler
def test_model_learns_the_same_with_it(calls: list[str]) -> None:
    def trained() -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        dataset = make_dataset()
        model = mLSTMTime.from_dataset(dataset, hidden_size=16, num_heads=2, dropout=0.0)
        fit(model, dataset)
        return tuple(parameter.detach() for parameter in model.parameters())

    found = trained()
    assert calls
    use_kernel(False)
    # a few steps of Adam, which divides small gradients by themselves
    assert_close(found, trained(), 1e-3)


# --- building it


def test_the_switch_takes_a_bool() -> None:
    assert_complains(lambda: use_kernel("yes"), "use_kernel", "enabled", "yes")  # type: ignore[arg-type]


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Return an empty cache, with no kernel loaded or tried yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget()
    yield tmp_path / "pytorch_forecasting_mlstm"
    forget()


def forget() -> None:
    bindings.load_kernel.cache_clear()
    self_test.cache_clear()


def refusal() -> str:
    with pytest.raises(RuntimeError, match="^use_kernel: ") as raised:
        use_kernel()
    assert not dispatch._state["enabled"]
    return str(raised.value)


@pytest.mark.usefixtures("nothing_built")
def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sys, "platform", "win32")
    assert "win32" in refusal()


@pytest.mark.skipif(sys.platform != "linux", reason="refused for another reason")
@pytest.mark.usefixtures("nothing_built")
def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "looked for c++, g++, clang++" in refusal()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in refusal()


@pytest.mark.skipif(sys.platform != "linux", reason="refused for another reason")
def test_a_compiler_that_fails_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_built: Path
) -> None:
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\necho 'recurrence.cpp: what is this?' >&2\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    message = refusal()
    assert "my-compiler" in message and "what is this?" in message
    assert not list(nothing_built.glob("*"))


@needs_compiler
def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, nothing_built: Path
) -> None:
    nothing_built.write_text("a file where the folder should be")
    message = refusal()
    assert str(nothing_built) in message and "XDG_CACHE_HOME" in message


@needs_compiler
def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch, nothing_built: Path) -> None:
    try:
        use_kernel()
        (library,) = nothing_built.iterdir()
        assert nothing_built.stat().st_mode & 0o077 == 0  # nobody else writes there
        written = library.stat().st_mtime_ns
        forget()
        use_kernel()
        assert list(nothing_built.iterdir()) == [library]
        assert library.stat().st_mtime_ns == written
        # other flags, another library
        forget()
        monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-O1"))
        use_kernel()
        assert len(list(nothing_built.iterdir())) == 2
    finally:
        use_kernel(False)


@needs_compiler
def test_a_change_of_any_source_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = build._compiler()
    original = build._library_name(compiler)
    shutil.copytree(build._SOURCE.parent, tmp_path / "cpp")
    monkeypatch.setattr(build, "_SOURCE", tmp_path / "cpp" / build._SOURCE.name)
    names = [build._library_name(compiler)]
    sources = [path for path in (tmp_path / "cpp").iterdir() if path.suffix in (".cpp", ".h")]
    assert len(sources) > 1
    for source in sources:
        source.write_text(source.read_text(encoding="utf-8") + "// changed\n", encoding="utf-8")
        names.append(build._library_name(compiler))
    assert names[0] == original
    assert len(set(names)) == len(names)


@needs_compiler
@pytest.mark.parametrize("keep", [0, 1000, -1], ids=["empty", "cut off", "but for the last byte"])
def test_a_damaged_library_is_compiled_again(nothing_built: Path, keep: int) -> None:
    try:
        use_kernel()
        (library,) = nothing_built.iterdir()
        whole = library.read_bytes()
        library.unlink()  # the one that is loaded stays as it was
        library.write_bytes(whole[:keep])
        forget()
        use_kernel()
        assert library.stat().st_size == len(whole)
    finally:
        use_kernel(False)


@needs_compiler
def test_a_compiler_may_have_arguments(
    monkeypatch: pytest.MonkeyPatch, nothing_built: Path
) -> None:
    command = next(name for name in ("c++", "g++", "clang++") if shutil.which(name))
    monkeypatch.setenv("CXX", f"env {command} -DNDEBUG")
    try:
        use_kernel()
        assert list(nothing_built.iterdir())
    finally:
        use_kernel(False)


@pytest.mark.skipif(sys.platform != "linux", reason="refused for another reason")
def test_no_home_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    forget()
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RuntimeError, match="^use_kernel: there is no folder.*XDG_CACHE_HOME"):
        build._cache_folder()


@pytest.fixture
def cached(nothing_built: Path, compiled: Path) -> Path:
    """Return a library in the cache, compiled before and never loaded from there."""
    nothing_built.mkdir(mode=0o700)
    library = nothing_built / compiled.name
    library.write_bytes(compiled.read_bytes())
    library.chmod(0o600)
    return library


@pytest.fixture(scope="module")
def compiled() -> Path:
    forget()
    use_kernel()
    use_kernel(False)
    (library,) = build._cache_folder().glob("*.so")
    return library


@needs_compiler
def test_a_library_of_ours_is_loaded_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, cached: Path
) -> None:
    """Links of our own lead there, and folders with a sticky bit: nobody else can change them."""
    (elsewhere := cached.parents[1] / "link").symlink_to(cached.parents[1])
    cached.parents[1].chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere))
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    try:
        use_kernel()
    finally:
        use_kernel(False)


@needs_compiler
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_library_that_others_may_write_to_is_not_loaded(
    no_load: None, cached: Path, mode: int
) -> None:
    cached.chmod(mode)
    message = refusal()
    assert (
        f"other users can write to {cached} (mode {mode:04o})" in message and "delete it" in message
    )


@needs_compiler
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_cache_that_others_may_write_to_is_not_used(
    no_load: None, cached: Path, mode: int
) -> None:
    cached.parent.chmod(mode)
    message = refusal()
    assert f"other users can write to {cached.parent} (mode {mode:04o})" in message
    assert "delete it" in message and "XDG_CACHE_HOME" in message


@needs_compiler
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_cache_that_others_may_rename_is_not_used(no_load: None, cached: Path, mode: int) -> None:
    above = cached.parents[1]
    above.chmod(mode)
    message = refusal()
    assert f"other users can write to {above} (mode {mode:04o})" in message
    assert f"chmod go-w {above}" in message
    cached.parent.rename(above / "away")
    assert f"chmod go-w {above}" in refusal()
    assert not cached.parent.exists(), "nothing is put there either"


@needs_compiler
@pytest.mark.parametrize("part", [0, 1, 2], ids=["library", "folder", "folder above"])
def test_what_belongs_to_somebody_else_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, no_load: None, cached: Path, part: int
) -> None:
    path, lstat = (cached, *cached.parents)[part], Path.lstat

    def of_another(self: Path) -> os.stat_result:
        found = list(lstat(self))
        if self == path:
            found[stat.ST_UID] = 4711
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    assert f"{path} belongs to user 4711, not to user {os.getuid()}" in refusal()


@needs_compiler
def test_links_in_the_cache_are_not_followed(no_load: None, cached: Path) -> None:
    """They may lead to what somebody else puts there later."""
    away = cached.rename(cached.parents[1] / "away.so")
    cached.symlink_to(away)
    assert f"{cached} is not a file" in refusal()
    folder = cached.parent.rename(cached.parents[1] / "folder")
    cached.parent.symlink_to(folder)
    assert f"{cached.parent} is not a folder" in refusal()


@needs_compiler
def test_a_link_of_somebody_else_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, no_load: None, cached: Path
) -> None:
    link, lstat = cached.parents[1] / "link", Path.lstat
    link.symlink_to(cached.parents[1])

    def of_another(self: Path) -> os.stat_result:
        found = list(lstat(self))
        if self == link:
            found[stat.ST_UID] = 4711
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    monkeypatch.setenv("XDG_CACHE_HOME", str(link))
    assert f"{link} belongs to user 4711" in refusal()


@pytest.fixture
def no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a library is loaded: the code in it would run at once."""

    def load(path: str) -> None:
        pytest.fail(f"{path} was loaded")

    monkeypatch.setattr(build.ctypes, "CDLL", load)


@needs_compiler
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_what_is_written_is_for_its_user_alone(
    monkeypatch: pytest.MonkeyPatch, nothing_built: Path, compiled: Path, umask: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(nothing_built.parent / "a" / "b"))
    monkeypatch.setattr(build, "_compile", lambda _, made: made.write_bytes(compiled.read_bytes()))
    before = os.umask(umask)
    try:
        use_kernel()
        (library,) = build._cache_folder().iterdir()
        forget()
        use_kernel()
    finally:
        os.umask(before)
        use_kernel(False)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (library, *library.parents[:3])]
    assert modes == [0o600, 0o700, 0o700, 0o700]


def compiler_that(tmp_path: Path, script: str) -> str:
    """Write a compiler that says what it is, and then does this with the file ``$made``."""
    compiler = tmp_path / "my-compiler"
    compiler.write_text(
        '#!/bin/sh\nfor made; do :; done\n[ "$made" = /dev/null ] && exit\n' + script
    )
    compiler.chmod(0o700)
    return str(compiler)


@pytest.mark.skipif(sys.platform != "linux", reason="refused for another reason")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("printf 'gr\\374n' >&2; exit 1", "gr\ufffdn"),
        ("head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 1", "xxx..."),
        ("printf 'one\\ntwo\\033[2J' >&2; exit 1", "one two?[2J"),
        ("kill -9 $$", "SIGKILL"),
        ("exit 0", "wrote no library"),
        (": > $made", "wrote no library"),
        ("mkdir $made", "wrote no library"),
        ("echo text > $made", "the compiled library cannot be loaded"),
        ("head -c 100 /bin/sh > $made", "the compiled library cannot be loaded"),
        ("exec sleep 60", "timed out"),
    ],
    ids=["bytes", "long", "escapes", "signal", "none", "empty", "folder", "text", "part", "hangs"],
)
def test_whatever_a_compiler_does_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_built: Path, script: str, says: str
) -> None:
    monkeypatch.setenv("CXX", compiler_that(tmp_path, script))
    monkeypatch.setattr(build, "_TIMEOUT", 2)
    message = refusal()
    assert says in message
    assert len(message) < 2000 and message.isprintable()
    assert "CXX" in message or "XDG_CACHE_HOME" in message
    assert not list(nothing_built.glob("*")), "nothing that cannot be used is kept"


@pytest.mark.skipif(sys.platform != "linux", reason="refused for another reason")
@pytest.mark.parametrize("given", ["'", '"c++', "c++ \\"])
def test_a_compiler_that_cannot_be_parsed_is_quoted(
    monkeypatch: pytest.MonkeyPatch, nothing_built: Path, given: str
) -> None:
    monkeypatch.setenv("CXX", given)
    message = refusal()
    assert f"CXX must name a C++ compiler, got {given!r}" in message


@needs_compiler
def test_a_library_without_the_functions_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_built: Path
) -> None:
    source = tmp_path / "other.cpp"
    source.write_text('extern "C" int run_float() { return 0; }')
    monkeypatch.setattr(build, "_SOURCE", source)
    assert "lacks the function run_double" in refusal()
    assert not list(nothing_built.glob("*"))


@needs_compiler
def test_a_library_in_the_cache_without_the_functions_is_named(
    tmp_path: Path, cached: Path
) -> None:
    """Whole, by its digest."""
    (tmp_path / "other.cpp").write_text("int other() { return 0; }")
    command = next(name for name in ("c++", "g++", "clang++") if shutil.which(name))
    made = tmp_path / "other.so"
    subprocess.run([command, "-shared", "-fPIC", "other.cpp", "-o", made], cwd=tmp_path, check=True)
    cached.write_bytes(made.read_bytes() + hashlib.sha256(made.read_bytes()).digest())
    message = refusal()
    assert "lacks the function run_float" in message and f"delete {cached}" in message


@needs_compiler
def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, nothing_built: Path) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "_compile", full)
    assert "No space left on device" in refusal()


@pytest.mark.skipif(sys.platform != "linux", reason="refused for another reason")
def test_a_home_that_is_nowhere_is_said(
    monkeypatch: pytest.MonkeyPatch, nothing_built: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "relative/home")
    monkeypatch.setenv("CXX", compiler_that(nothing_built.parent, "exit 1"))
    assert "HOME is not an absolute path: 'relative/home'" in refusal()


@needs_compiler
@pytest.mark.parametrize(
    "setting",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu"), lambda: META],
    ids=["no_grad", "inference", "autocast", "device"],
)
def test_it_is_tried_whatever_the_caller_has_set(setting: Callable[[], Any]) -> None:
    forget()
    try:
        with setting():
            use_kernel()
    finally:
        use_kernel(False)


@needs_compiler
@pytest.mark.parametrize("operation", ["gated", "chunkwise"], ids=["layer", "chunkwise"])
def test_a_kernel_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    original = getattr(backend, f"{operation}_fwd")

    def zeros(*args: Any) -> Any:
        h, *others = original(*args)
        return torch.zeros_like(h), *others

    forget()
    monkeypatch.setattr(backend, f"{operation}_fwd", zeros)
    assert "does not compute what PyTorch does" in refusal()
