"""Models for every dataset configuration, and modules to replace parts of them."""

from functools import cache
from typing import Any

import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

from helpers.datasets import collate, configured, pick_samples
from pytorch_forecasting_mlstm import mLSTMTime

#: Sizes for tests that do not depend on them.
SMALL: dict[str, Any] = {"hidden_size": 8, "num_heads": 2}


def make_model(dataset: TimeSeriesDataSet, **changes: Any) -> mLSTMTime:
    """Make a small float64 model in evaluation mode, with no weight at a special value."""
    arguments = {**SMALL, "num_layers": 2, **changes}
    model = mLSTMTime.from_dataset(dataset, **arguments).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@cache
def shared_model(name: str, **changes: Any) -> mLSTMTime:
    """Return the cached model of a configuration, made from a fixed seed; do not change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_model(configured(name), **changes)


@cache
def small_model(name: str) -> mLSTMTime:
    """Return the cached, untrained float32 model of a configuration; do not train it."""
    return mLSTMTime.from_dataset(configured(name), **SMALL)


@torch.no_grad()
def forecast(model: mLSTMTime, x: dict[str, Any]) -> list[Tensor]:
    """Return the forecast of every target, (B, steps, size)."""
    return to_list(model(x).prediction)


def raw_forecast(model: mLSTMTime, dataset: TimeSeriesDataSet) -> list[Tensor]:
    """Return the float32 forecast of some samples for every target."""
    x, _ = collate(pick_samples(dataset), torch.float32)
    return [part.detach() for part in to_list(model.eval()(x).prediction)]


class SilentMemory(nn.Module):
    """Replaces the memory, and adds nothing to any token."""

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        """Return zeros."""
        return torch.zeros_like(tokens), None
