"""Memory layouts and threads do not change the results of the kernel, and inputs stay unchanged."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.cpp_kernel import draw, draw_problem, needs_compiler, with_gradients
from helpers.gated import gated_kernel
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mLSTMState,
)


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("B", [1, 3, 40])
def test_number_of_threads_changes_no_bit(threads: int, B: int) -> None:
    """A thread gets whole samples or single heads."""
    inputs = draw(700 if B < 40 else 70, 4, 16, torch.float32, B=B)
    expected = with_gradients(gated_kernel, inputs, None)
    torch.set_num_threads(threads)
    try:
        assert_identical(with_gradients(gated_kernel, inputs, None), expected)
    finally:
        torch.set_num_threads(1)


@needs_compiler
def test_concurrent_callers_get_their_results() -> None:
    """Several Python threads, each with its problem, as in a server."""
    problems = [draw(300, 4, 16, torch.float32, B=8) for _ in range(4)]
    expected = [with_gradients(gated_kernel, problem, None) for problem in problems]
    actual: list[Any] = [None] * 4

    def work(j: int) -> None:
        actual[j] = with_gradients(gated_kernel, problems[j], None)

    workers = [threading.Thread(target=work, args=(j,)) for j in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert_identical(tuple(actual), tuple(expected))


@needs_compiler
def test_any_memory_layout_is_accepted() -> None:
    p, c, n = draw(31, 2, 8)
    layouts: dict[str, tuple[Tensor, Tensor, Tensor]] = {
        "time first": (p.transpose(0, 1).contiguous().transpose(0, 1), c, n),
        "width first": (p.permute(2, 0, 1).contiguous().permute(1, 2, 0), c, n),
        "every other": (p.repeat_interleave(2, dim=1)[:, ::2], c, n),
        "state transposed": (p, c.mT.contiguous().mT, n.repeat_interleave(2, dim=-1)[..., ::2]),
        "expanded": (p[:1, :1].expand_as(p), c, n),
    }
    for name, inputs in layouts.items():
        dense = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in inputs)
        dense = tuple(x.requires_grad_() for x in dense)
        strided = tuple(x.detach().requires_grad_() for x in inputs)
        expected = with_gradients(gated_kernel, dense, None)
        actual = with_gradients(gated_kernel, strided, None)
        assert_identical(actual[:3], expected[:3], name)
        # torch's sigmoid differs by a bit if tensors are not dense
        assert_close(actual, expected)
    # an expanded gradient, and a gradient that is stored width first
    h = gated_kernel(p, c, n, None)[0]
    ones = torch.ones(h.shape[-1], *h.shape[:2], dtype=h.dtype).permute(1, 2, 0)
    (expected,) = torch.autograd.grad(h, p, torch.ones_like(h), retain_graph=True)
    assert_identical(torch.autograd.grad(h.sum(), p, retain_graph=True)[0], expected)
    assert_identical(torch.autograd.grad(h, p, ones)[0], expected)


@needs_compiler
def test_gradients_of_a_transposed_initial_state(chunkwise_calls: list[str]) -> None:
    """The last state is not part of the loss."""
    p, c, n = draw(31, 2, 8)
    transposed = c.detach().mT.contiguous().mT.requires_grad_()

    def gated_gradient(c: Tensor) -> Tensor:
        return torch.autograd.grad(gated_kernel(p, c, n, None)[0].sin().sum(), c)[0]

    assert_identical(gated_gradient(transposed), gated_gradient(c))

    *inputs, c, n, m = draw_problem(31, 8)
    transposed = c.detach().mT.contiguous().mT.requires_grad_()

    def chunkwise_gradient(c: Tensor) -> Tensor:
        h, _ = mlstm_chunkwise(*inputs, mLSTMState(c, n, m))
        return torch.autograd.grad(h.sin().sum(), c)[0]

    assert_identical(chunkwise_gradient(transposed), chunkwise_gradient(c))
    assert chunkwise_calls


@needs_compiler
def test_inputs_and_denormal_mode_stay_unchanged() -> None:
    inputs = draw(31, 2, 8)
    before = [x.clone() for x in inputs]
    with_gradients(gated_kernel, inputs, None)
    assert_identical(tuple(inputs), tuple(before))
    tiny = torch.tensor([1e-40])  # the kernel flushes denormals to 0, but only while it runs
    assert (tiny * 0.5).item() > 0
