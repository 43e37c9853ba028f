"""Layers, their inputs, and the loop over their cells that they must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.layer import mLSTMLayer

State = tuple[Tensor, Tensor, Tensor]


def make_layer(**options: Any) -> mLSTMLayer:
    """Build a float64 layer with 3 inputs and 8 hidden units, no dropout and perturbed weights."""
    layer = mLSTMLayer(**{"input_size": 3, "hidden_size": 8, "dropout": 0.0} | options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def draw_state(layer: mLSTMLayer, batch: int = 4) -> State:
    """Draw a state that is not empty."""
    _, state = layer(torch.zeros(1, batch, 3, dtype=torch.float64))
    h, c, n = (torch.randn_like(part).requires_grad_() for part in state)
    return h, c, n


def draw_input(T: int = 31, batch: int = 4) -> Tensor:
    return torch.randn(T, batch, 3, dtype=torch.float64)


def step_cells(
    layer: mLSTMLayer, xs: Tensor, state: State, mask: Tensor | None = None
) -> tuple[Tensor, State]:
    """Compute the documented output of a layer by a loop over time and cells, with masks."""
    states = [tuple(part[depth] for part in state) for depth in range(len(layer.cells))]
    outputs = []
    for t, x in enumerate(xs):
        valid = torch.ones(xs.shape[1], dtype=torch.bool) if mask is None else mask[t]
        u = x.where(valid[:, None], torch.zeros_like(x))
        for depth, cell in enumerate(layer.cells):
            next_state = cell(u, *states[depth])
            h = next_state[0]
            u = h + u if layer.residual_conn and depth > 0 else h
            states[depth] = tuple(
                torch.where(valid.reshape(-1, *[1] * (after.dim() - 1)), after, before)
                for after, before in zip(next_state, states[depth], strict=True)
            )
        outputs.append(u.where(valid[:, None], torch.zeros_like(u)))
    h, c, n = (torch.stack(parts) for parts in zip(*states, strict=True))
    return torch.stack(outputs), (h, c, n)


def gradients(result: tuple[Tensor, State], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of a random combination of output and states."""
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum()
        for part in (result[0], *result[1])
    )
    # The initial h has no influence once it is overwritten.
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    return tuple(
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)
    )


MASKS: dict[str, Callable[[], Tensor]] = {
    "padded before": lambda: torch.arange(31)[:, None] >= torch.tensor([0, 1, 20, 30]),
    "padded behind": lambda: torch.arange(31)[:, None] < torch.tensor([31, 30, 5, 1]),
    "with holes": lambda: torch.rand(31, 4) < 0.5,
    "some samples empty": lambda: torch.tensor([True, False, True, False]).expand(31, 4),
    "nothing valid": lambda: torch.zeros(31, 4, dtype=torch.bool),
    "all valid": lambda: torch.ones(31, 4, dtype=torch.bool),
}


parametrize_masks = pytest.mark.parametrize("draw_mask", MASKS.values(), ids=MASKS)


# Three layers and 70 steps are ill-conditioned: rounding x once changes gradients by up to 1e-11.
GRADIENT_TOLERANCE = 1e-10
