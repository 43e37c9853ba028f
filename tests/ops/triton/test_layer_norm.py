"""The layer norms of Triton are those of torch."""

from __future__ import annotations

import pytest
import torch

from helpers.tolerances import assert_identical
from helpers.triton_kernels import DEVICE, WIDE, assert_matches, needs_triton, triton_selected
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.layer_norm import (
    TORCH_LAYER_NORM,
    LayerNormParams,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import layer_norm

pytestmark = needs_triton


def draw(
    rows: int, H: int, NH: int, eps: float = 1e-3
) -> tuple[torch.Tensor, LayerNormParams, torch.Tensor]:
    """Draw pre-activations, some of which hardly vary, norms, and a gradient."""
    widths = (H, H, H, H + 2 * NH)
    p = torch.randn(rows, 1, sum(widths), device=DEVICE, dtype=WIDE)
    p[::3] *= 0.01
    # with elements that are not side by side
    affine = [torch.randn(width, 2, device=DEVICE, dtype=WIDE)[:, 0] for width in widths * 2]
    return p, LayerNormParams.of(eps, *affine), torch.randn_like(p)


@pytest.mark.parametrize(
    ("rows", "H", "NH", "eps"),
    [(1, 8, 1, 1e-3), (45, 24, 3, 1e-3), (7, 600, 4, 1e-3), (6, 8, 1, 0)],
)
def test_norms_match_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, rows: int, H: int, NH: int, eps: float
) -> None:
    """With rows that no block divides, and programs that compute several blocks."""
    monkeypatch.setattr(layer_norm, "_MAX_PROGRAMS", 2)
    monkeypatch.setattr(layer_norm, "norm_options", lambda width: {"BR": 4, "BW": 1024})
    p, norms, grad = draw(rows, H, NH, eps)
    with triton_selected():
        (output,), statistics = layer_norm.LAYER_NORM.forward(p, norms)
        grad_p, grad_affine = layer_norm.LAYER_NORM.backward([grad], p, statistics, norms)
    parts, statistics = TORCH_LAYER_NORM.forward(p, norms)
    expected_p, expected = TORCH_LAYER_NORM.backward(norms.split(grad), p, statistics, norms)
    assert_matches(output, torch.cat(parts, dim=-1), 1e-11)
    assert_matches(grad_p, expected_p, 1e-11)
    assert_matches(tuple(grad_affine), tuple(expected), 1e-11)


def test_parts_that_are_too_wide_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_norm, "_MAX_WIDTH", 9)
    p, norms, grad = draw(5, 8, 1)
    parts, statistics = layer_norm.LAYER_NORM.forward(p, norms)
    expected, expected_statistics = TORCH_LAYER_NORM.forward(p, norms)
    assert_identical(tuple(parts), tuple(expected))
    grads = norms.split(grad)
    grad_p, _ = layer_norm.LAYER_NORM.backward(grads, p, statistics, norms)
    assert_identical(grad_p, TORCH_LAYER_NORM.backward(grads, p, expected_statistics, norms)[0])
