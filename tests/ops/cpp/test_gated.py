"""The kernel behind a layer: outputs, states and gradients, against the equations of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.cpp_kernel import draw, draw_problem, gated_reference, needs_compiler, with_gradients
from helpers.gated import gated_function, gated_kernel
from helpers.layers import GRADIENT_TOLERANCE
from helpers.products import spread
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMLayer
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import mlstm_chunkwise
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import bindings


@needs_compiler
@spread("d, T", bindings.HEAD_SIZES, [1, 31, 64, 65, 200])
def test_outputs_and_gradients_match_the_equations(d: int, T: int) -> None:
    """For every head size, and lengths around the 64 steps between checkpoints."""
    inputs = draw(T, 2, d)
    actual = with_gradients(gated_kernel, inputs, None)
    assert_close(actual, with_gradients(gated_reference, inputs, None, []), GRADIENT_TOLERANCE)


@needs_compiler
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_padding_leaves_the_state_unchanged(share: float) -> None:
    inputs, padding = draw(70, 2, 8), torch.rand(3, 70, 1) < share
    actual = with_gradients(gated_kernel, inputs, padding)
    assert_close(actual, with_gradients(gated_reference, inputs, padding, []), GRADIENT_TOLERANCE)
    if share == 1:
        assert_identical(actual[1:3], inputs[1:])


@needs_compiler
def test_layer_norm_applies_to_each_projection() -> None:
    H, sizes = 16, [16, 16, 16, 20]
    affine = [torch.randn(size).double().requires_grad_() for size in sizes * 2]
    p, c, n = draw(70, 2, H // 2)

    def kernel(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> tuple[Tensor, ...]:
        return gated_kernel(p, c, n, None, 1e-5, *affine)

    def reference(p: Tensor, c: Tensor, n: Tensor, *affine: Tensor) -> tuple[Tensor, ...]:
        return gated_reference(p, c, n, None, list(affine))

    inputs = (p, c, n, *affine)
    assert_close(
        with_gradients(kernel, inputs), with_gradients(reference, inputs), GRADIENT_TOLERANCE
    )


@needs_compiler
def test_derivatives_match_finite_differences() -> None:
    inputs, padding = draw(4, 1, 8, B=1), torch.tensor([[[False], [True], [False], [False]]])

    def form(*inputs: Tensor) -> tuple[Tensor, ...]:
        return gated_kernel(*inputs, padding)

    assert torch.autograd.gradcheck(form, inputs)
    assert torch.autograd.gradgradcheck(form, inputs, fast_mode=True)


@needs_compiler
@pytest.mark.parametrize("output", [0, 1, 2])
def test_gradients_if_the_loss_uses_one_output(output: int) -> None:
    """Only one of h, c and n is part of the loss."""
    inputs = draw(70, 2, 8)

    def gradients(form: Callable[..., tuple[Tensor, ...]], *constants: Any) -> tuple[Tensor, ...]:
        loss = form(*inputs, *constants)[output].sin().sum()
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        return tuple(
            torch.zeros_like(x) if grad is None else grad
            for x, grad in zip(inputs, grads, strict=True)
        )

    assert_close(gradients(gated_kernel, None), gradients(gated_reference, None, []))


@needs_compiler
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_gates_of_any_size_match_pytorch(size: float) -> None:
    p, c, n = draw(150, 2, 8)
    with torch.no_grad():
        p[..., 48:] *= size
    m = torch.zeros(3, 2).double()

    def chunkwise(p: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        h, c, n, last = gated_function(p, c, n, m, None)
        scale = last.exp()[..., None]
        return h, c * scale[..., None], n * scale

    actual = with_gradients(lambda *x: gated_kernel(*x, None), (p, c, n))
    # memories reach 1e7, and sines and gradients amplify their rounding errors
    assert_close(actual[:3], chunkwise(p, c, n))
    inputs = (p, c, n)
    for grad, expected in zip(
        torch.autograd.grad(gated_kernel(*inputs, None)[0].sum(), inputs),
        torch.autograd.grad(chunkwise(*inputs)[0].sum(), inputs),
        strict=True,
    ):
        assert_close(grad, expected, 1e-9)


@needs_compiler
@pytest.mark.parametrize("d", [8, 32])
def test_float32_errors_do_not_accumulate(d: int) -> None:
    """Over a thousand steps, errors of one chunk do not reach the next."""
    inputs = draw(1000, 2, d)
    expected = with_gradients(gated_kernel, inputs, None)
    rounded = tuple(x.detach().float().requires_grad_() for x in inputs)
    actual = with_gradients(gated_kernel, rounded, None)
    # 1000 steps, and the sine of their sum
    assert_close(actual, tuple(x.float() for x in expected), 1e-4)


@needs_compiler
@pytest.mark.parametrize("gate", [0.0, 3.0, 8.0, 12.0, 16.0, 18.0])
def test_gradients_of_open_forget_gates_are_precise(gate: float) -> None:
    """In float32, an open gate is 1 - 1e-7, and its gradient must not round to 0."""
    p, _, _ = draw(300, 2, 16)
    with torch.no_grad():
        p[..., :96].abs_()  # nothing cancels
        p[..., 98:100] = gate
    p = p.detach().float().double().requires_grad_()

    def forget_gate_gradient(p: Tensor) -> Tensor:
        state = p.new_zeros(3, 2, 16, 16), p.new_zeros(3, 2, 16)
        h = gated_kernel(p, *state, None)[0]
        return torch.autograd.grad(h[:, -1].sum(), p)[0][..., 98:100].double()

    expected = forget_gate_gradient(p)
    actual = forget_gate_gradient(p.detach().float().requires_grad_())
    assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()  # 300 steps of float32


@needs_compiler
def test_long_memories_in_float32_match_float64() -> None:
    p, c, n = draw(3000, 2, 16, B=1)
    with torch.no_grad():
        p[..., 98:100] += 12  # memories of 160,000 steps
    exact = gated_kernel(p, c, n, None)
    h, last_c, last_n = gated_kernel(p.float(), c.float(), n.float(), None)
    # c is rounded three thousand times, and h is a quotient of two such sums
    assert_close((last_c, last_n), tuple(x.float() for x in exact[1:]), 1e-4)
    assert_close(h, exact[0].float(), 1e-3)


@needs_compiler
def test_nan_propagates_to_outputs_and_gradients() -> None:
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
def test_overflow_raises(gated_calls: list[str], chunkwise_calls: list[str], v_size: float) -> None:
    """As without the kernel. If nᵀq alone overflows, a quotient of 0 would hide it."""
    problem = [part.detach() for part in draw_problem(30, 8, torch.float32)]
    problem[0], problem[1] = problem[0] * 1e21, problem[1] * 1e21
    problem[2] = problem[2] * v_size * 1e-6
    with pytest.raises(ValueError, match="mlstm_chunkwise: finite inputs overflow torch.float32"):
        mlstm_chunkwise(*problem[:5])
    layer = mLSTMLayer(3, 32, dropout=0.0, layer_norm=False)
    with pytest.raises(ValueError, match="mLSTMLayer: finite inputs overflow torch.float32"):
        layer(torch.randn(20, 2, 3) * 1e21)
    assert gated_calls and chunkwise_calls
