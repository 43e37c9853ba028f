"""The forward and the backward pass of a model wait for no value of an accelerator.

A tensor on the meta device stands for one on any accelerator. It has no values: whatever asks for
one raises an error.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from helpers.datasets import collate, configured, pick_samples
from helpers.models import small_model
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMLayer


def run_on_meta(module: torch.nn.Module, *inputs: Any) -> tuple[Any, tuple[Tensor, ...]]:
    """Return the output of a module for inputs without values, and gradients of its parameters."""

    def convert(x: Tensor) -> Tensor:
        return x.detach().to("meta").requires_grad_(x.requires_grad)

    state = dict(module.named_parameters()) | dict(module.named_buffers())
    state, inputs = tree_map_only(Tensor, convert, (state, inputs))
    output = torch.func.functional_call(module, state, inputs)
    # torch 2.7 takes the named tuple of a model for one object
    parts = [x for x in tree_leaves(tuple(output)) if isinstance(x, Tensor)]
    loss = torch.stack([x.sum() for x in parts]).sum()
    leaves = [x for x in state.values() if x.requires_grad]
    return output, torch.autograd.grad(loss, leaves, allow_unused=True)


@pytest.mark.parametrize("norm_heads", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_layer_waits_for_no_value(masked: bool, norm_heads: bool) -> None:
    layer = mLSTMLayer(3, 16, num_heads=2, bidirectional=True, norm_heads=norm_heads)
    lengths = torch.tensor([9, 4]) if masked else None
    (output, _), gradients = run_on_meta(layer, torch.randn(9, 2, 3), None, None, lengths)
    assert output.is_meta
    assert all(x is not None for x in gradients)


@alternate("name", ["no covariates", "all covariates", "lags", "target scales"], every=1)
def test_model_waits_for_no_value(name: str) -> None:
    """In training, also with sign flips, missing values and the scales of series."""
    model = small_model(name)
    x, _ = collate(pick_samples(configured(name)), torch.float32)
    training = model.training
    try:
        output, gradients = run_on_meta(model.train(), x)
    finally:
        model.train(training)
    assert any(x is not None for x in gradients)


def test_a_question_about_a_value_is_found() -> None:
    class Asks(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.isnan().any() else 2 * x

    with pytest.raises(RuntimeError, match="meta"):
        run_on_meta(Asks(), torch.randn(3))
