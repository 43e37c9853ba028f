"""Untrained models of every dataset configuration."""

from typing import Any

import pytest
import torch
from pytorch_forecasting import TimeSeriesDataSet

from helpers.datasets import (
    CONFIGURATIONS,
)
from pytorch_forecasting_mlstm import mLSTMTime

every_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)


def make_model(dataset: TimeSeriesDataSet, **changes: Any) -> mLSTMTime:
    """Make a small model in float64 with no weight at a special value, such as the linear paths' 0.

    Dropout is off.
    """
    arguments = {"hidden_size": 8, "num_heads": 2, "num_layers": 2, **changes}
    model = mLSTMTime.from_dataset(dataset, **arguments).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model
