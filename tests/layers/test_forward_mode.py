"""Forward-mode derivatives equal those of reverse mode, also when they are differentiated again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, jacfwd, jacrev, jvp, vmap

from helpers.forms import parametrize_forms
from helpers.layers import draw_input, draw_state, make_layer
from helpers.problems import Form, make_problem
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMCell, use_kernel
from pytorch_forecasting_mlstm.layers.functional import mLSTMState

# Torch's forward mode uses a function that torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")

LAYERS: dict[str, dict[str, Any]] = {
    "default": {"num_layers": 2},
    "no norm": {"layer_norm": False, "num_heads": None},
    "both": {"bidirectional": True, "norm_heads": True, "num_heads": 2},
}
parametrize_layers = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)


def assert_jvp_matches_vjp(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
    """Compare uᵀ(J t), in forward mode, with (Jᵀ u)ᵀ t, in reverse mode, for random t and u."""
    tangents = tuple(torch.randn_like(x) for x in inputs)
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    outputs = function(*leaves)
    primal, derivatives = jvp(function, inputs, tangents)
    assert_close(primal, outputs)
    weights = [torch.randn_like(x) for x in outputs]
    loss = sum((x * w).sum() for x, w in zip(outputs, weights, strict=True))
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    reverse = sum((g * t).sum() for g, t in zip(grads, tangents, strict=True) if g is not None)
    forward = sum((d * w).sum() for d, w in zip(derivatives, weights, strict=True))
    assert_close(forward, reverse, 1e-9)


@parametrize_layers
@pytest.mark.parametrize("masked", [False, True])
def test_jvp_of_the_layer_matches_reverse_mode(options: dict[str, Any], masked: bool) -> None:
    """With respect to the input, the state and all parameters."""
    layer = make_layer(**options)
    names = list(dict(layer.named_parameters()))
    mask = torch.rand(31, 4) < 0.6 if masked else None

    def run(x: Tensor, h: Tensor, c: Tensor, n: Tensor, *parameters: Tensor) -> Any:
        given = dict(zip(names, parameters, strict=True))
        output, state = functional_call(layer, given, (x, (h, c, n), mask))
        return output, *state

    parameters = [parameter.detach() for parameter in layer.parameters()]
    state = [part.detach() for part in draw_state(layer)]
    assert_jvp_matches_vjp(run, (draw_input(), *state, *parameters))


@pytest.mark.parametrize("num_heads", [None, 2])
def test_jvp_of_the_cell_matches_reverse_mode(num_heads: int | None) -> None:
    cell = mLSTMCell(3, 8, 0.0, num_heads=num_heads).double()
    state = [torch.randn_like(part) for part in cell.init_hidden(4)]
    assert_jvp_matches_vjp(cell, (draw_input()[0], *state))


@parametrize_forms
def test_jvp_of_the_forms_matches_reverse_mode(form: Form) -> None:
    def run(*parts: Tensor) -> Any:
        h, state = form(*parts[:5], mLSTMState(*parts[5:]))
        return h, *state

    assert_jvp_matches_vjp(run, tuple(make_problem(23)))


def test_dual_tensors_match_jvp() -> None:
    layer, x, tangent = make_layer(), draw_input(), draw_input()
    _, expected = jvp(lambda x: layer(x)[0], (x,), (tangent,))
    with forward_ad.dual_level():
        output = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))[0])
    assert_close(output.tangent, expected)


@pytest.mark.parametrize("outer", [jacfwd, jacrev], ids=["forward", "reverse"])
@pytest.mark.parametrize("inner", [jacfwd, jacrev], ids=["forward", "reverse"])
@pytest.mark.parametrize("options", [{}, LAYERS["both"]], ids=["default", "both"])
def test_second_derivatives_agree_in_all_modes(
    options: dict[str, Any], outer: Any, inner: Any
) -> None:
    """Torch's own layer norm gives wrong ones in forward mode."""
    layer, x = make_layer(**options), draw_input(3, 1)

    def loss(x: Tensor) -> Tensor:
        return layer(x)[0].square().sum()

    expected = torch.autograd.functional.hessian(loss, x)
    assert_close(outer(inner(loss))(x), expected, 1e-9)


def test_vmap_over_jvp_gives_every_direction() -> None:
    layer, x = make_layer(num_layers=2), draw_input(5, 1)
    tangents = torch.stack([draw_input(5, 1) for _ in range(3)])

    def directional(tangent: Tensor) -> Tensor:
        return jvp(lambda x: layer(x)[0], (x,), (tangent,))[1]

    expected = torch.stack([directional(tangent) for tangent in tangents])
    assert_close(vmap(directional)(tangents), expected)


def graph(x: Tensor) -> list[str]:
    """Return the names of all nodes that a tensor depends on."""
    nodes = [x.grad_fn]
    for node in nodes:
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    return [node.name() for node in nodes]


def test_forward_mode_leaves_nothing_behind() -> None:
    """The next call is as fast, and has the same gradients, as before."""
    layer, x = make_layer(), draw_input().requires_grad_()
    (before,) = torch.autograd.grad(layer(x)[0].sum(), x)
    jvp(lambda x: layer(x)[0], (x.detach(),), (draw_input(),))
    output = layer(x)[0]
    assert any(name in ("GatedFunctionBackward", "CellFunctionBackward") for name in graph(output))
    assert_close(torch.autograd.grad(output.sum(), x)[0], before)


@pytest.mark.usefixtures("temporary_cache")
def test_jvp_with_the_kernel_enabled() -> None:
    """It is computed in PyTorch."""
    layer = make_layer(hidden_size=16, num_heads=2)
    x, tangent = draw_input(), draw_input()
    expected = jvp(lambda x: layer(x)[0], (x,), (tangent,))
    try:
        use_kernel()
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        assert_close(jvp(lambda x: layer(x)[0], (x,), (tangent,)), expected)
    finally:
        use_kernel(False)
