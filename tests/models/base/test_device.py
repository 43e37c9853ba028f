"""A model computes where it and its inputs are.

Like an accelerator, the meta device cannot be mixed with the CPU; it has no values.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.datasets import CONFIGURATIONS, configured
from helpers.models import SMALL
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMTime


def to_meta(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: to_meta(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(map(to_meta, values))
    return values.to("meta")


@alternate("name", list(CONFIGURATIONS))
@pytest.mark.filterwarnings("ignore::UserWarning")  # of datasets, which other tests look at
def test_forward_pass_uses_no_other_device(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL).to("meta")
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=4)))
    for training in (True, False):
        prediction = model.train(training)(to_meta(x)).prediction
        parts = prediction if isinstance(prediction, list) else [prediction]
        assert {part.device.type for part in parts} == {"meta"}
        gradients = torch.autograd.grad(
            sum(part.sum() for part in parts), list(model.parameters()), allow_unused=True
        )
        assert {grad.device.type for grad in gradients if grad is not None} == {"meta"}
