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
    T, B, _ = xs.shape
    valid = torch.ones(T, B, 1, dtype=torch.bool) if mask is None else mask[..., None]
    u, last = xs.where(valid, torch.zeros_like(xs)), []
    for depth, forward_cell in enumerate(layer.cells):
        outputs = []
        for cell in [forward_cell, *layer.reverse_cells[depth : depth + 1]]:
            current = tuple(part[len(last)] for part in state)
            steps = range(T) if cell is forward_cell else range(T - 1, -1, -1)
            h_of_step = {}
            for t in steps:
                after = cell(u[t], *current)
                h_of_step[t] = after[0]
                current = tuple(
                    torch.where(valid[t].reshape(-1, *[1] * (new.dim() - 1)), new, old)
                    for new, old in zip(after, current, strict=True)
                )
            last.append(current)
            outputs.append(torch.stack([h_of_step[t] for t in range(T)]))
        hidden = torch.cat(outputs, dim=-1)
        u = hidden + u if layer.residual_conn and depth > 0 else hidden
    h, c, n = (torch.stack(parts) for parts in zip(*last, strict=True))
    return u.where(valid, torch.zeros_like(u)), (h, c, n)


def gradients(result: tuple[Tensor, State], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of a random combination of output and states."""
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (
            part * torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.device)
        ).sum()
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
