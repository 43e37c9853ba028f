"""In float32 the kernel keeps as many digits as the chunkwise form in PyTorch.

Both are compared with float64. A sum that is rounded at every step loses two to twelve times as
many digits as chunks do, where the memory lasts for hundreds of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from helpers.cpp_kernel import needs_compiler
from helpers.gated import gated_function, gated_kernel
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import mlstm_chunkwise

pytestmark = needs_compiler

B, T, NH, D = 2, 2000, 2, 16
DRAWS = 5  # since a few steps of one draw may hold most of its error
H = NH * D
NAMES = ("h", "c", "n", "dq", "dk", "dv", "di", "df", "do", "dc", "dn")

# The means of the pre-activations of the forget gate, and the factors of those of both gates.
GATES = {
    "lasting": (8.0, 1.0, 1.0),
    "long lasting": (12.0, 1.0, 1.0),
    "open, same signs": (6.0, 1.0, 1.0),
    "forgetting": (-1.0, 1.0, 1.0),
    "large input gates": (5.0, 1.0, 6.0),
    "closing at times": (5.0, 5.0, 1.0),
}

Form = Callable[[tuple[Tensor, ...], bool], tuple[Tensor, ...]]  # inputs, and whether in C++


def draw_preactivations(name: str) -> Tensor:
    mean, spread, size = GATES[name]
    p = torch.randn(B, T, 4 * H + 2 * NH)
    p[..., 3 * H : 3 * H + NH] *= size
    p[..., 3 * H + NH : 3 * H + 2 * NH].mul_(spread).add_(mean)
    if name == "open, same signs":  # no sum cancels
        p[..., : 3 * H].abs_()
    return p


def errors(form: Form, inputs: tuple[Tensor, ...]) -> dict[str, list[float]]:
    """Return the errors of results and gradients without and with the kernel, by name."""

    def run(dtype: torch.dtype, kernel: bool) -> list[Tensor]:
        leaves = tuple(x.to(dtype).requires_grad_() for x in inputs)
        results = form(leaves, kernel)
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in results]
        grads = [grads[0], *(grad / 10 for grad in grads[1:])]
        return [
            x.detach().double() for x in (*results, *torch.autograd.grad(results, leaves, grads))
        ]

    exact = run(torch.float64, kernel=False)
    rounded = [run(torch.float32, kernel) for kernel in (False, True)]
    return {
        name: [typical_error(parts[j], exact[j]) for parts in rounded]
        for j, name in enumerate(NAMES[: len(exact)])
    }


def unscaled(c: Tensor, n: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """Return the true memory; the product must round no digits off."""
    scale = m.double().exp()[..., None]
    return c * scale[..., None], n * scale


def typical_error(actual: Tensor, exact: Tensor) -> float:
    """Return the root of the mean square error, without the largest hundredth.

    Where nᵀq is close to 1, rounding decides whether it has a gradient.
    """
    squares = (actual - exact).square().flatten().sort().values
    return float(squares[: max(1, len(squares) * 99 // 100)].mean().sqrt())


def assert_as_exact(draws: list[dict[str, list[float]]]) -> None:
    """Compare means over draws of the kernel's errors divided by those of the chunks."""
    ratios = {
        name: torch.tensor([draw[name][1] / draw[name][0] for draw in draws]).log().mean().exp()
        for name in draws[0]
    }
    # Two computations that round differently have errors of different size.
    assert all(ratio <= 2.5 for ratio in ratios.values()), ratios
    assert torch.stack([*ratios.values()]).log().mean().exp() < 1.5, ratios


@pytest.mark.parametrize("name", list(GATES))
def test_layer_is_as_exact_as_chunks(name: str) -> None:
    def form(inputs: tuple[Tensor, ...], kernel: bool) -> tuple[Tensor, ...]:
        if kernel:
            return gated_kernel(*inputs, None)
        h, c, n, m = gated_function(*inputs, inputs[2].new_zeros(B, NH), None)
        return h, *unscaled(c, n, m)

    state = torch.zeros(B, NH, D, D), torch.zeros(B, NH, D)
    assert_as_exact([errors(form, (draw_preactivations(name), *state)) for _ in range(DRAWS)])


@pytest.mark.parametrize("mean", [-1.0, 6.0, 10.0])
@pytest.mark.parametrize("offset", [0.0, 40.0])
def test_chunkwise_is_as_exact_as_chunks(mean: float, offset: float) -> None:
    def draw() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        log_f = torch.nn.functional.logsigmoid(torch.randn(B, NH, T) + mean)
        q, k, v = (torch.randn(B, NH, T, D) / 2 for _ in range(3))
        return q, k, v, torch.randn(B, NH, T) + offset, log_f

    def form(inputs: tuple[Tensor, ...], kernel: bool) -> tuple[Tensor, ...]:
        use_kernel(kernel)
        q, k, v, log_i, log_f = inputs
        h, state = mlstm_chunkwise(q, k, v, log_i, log_f)
        return h, *unscaled(state.c, state.n, state.m - offset)

    assert_as_exact([errors(form, draw()) for _ in range(DRAWS)])
