"""Inference leaves no trace in a model, and any number of threads may share one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_forecasting.metrics import NormalDistributionLoss, QuantileLoss
from torch import nn

from helpers.checkpoints import save
from helpers.datasets import QUIET, fit, make_dataset, make_table
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.inference import inference_view

THREADS, CALLS = 4, 12


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


def make_model(**changes: Any) -> mLSTMTime:
    return mLSTMTime.from_dataset(make_dataset(), **{**SMALL, "dropout": 0.5, **changes})


def test_view_shares_tensors_and_nothing_else() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2)).train()
    model.append(model[1])  # twice in the model, and twice in the view
    view = inference_view(model)
    assert modes(view) == [False] * 4
    assert modes(model) == [True] * 4
    assert view[1] is view[3]
    assert [x.data_ptr() for x in view.state_dict().values()] == [
        x.data_ptr() for x in model.state_dict().values()
    ]
    view.register_buffer("extra", torch.zeros(1))
    view[0] = nn.Identity()
    assert not hasattr(model, "extra") and isinstance(model[0], nn.Linear)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["forecast", "forecast with a trainer", "predict"])
def test_inference_leaves_no_trace(name: str, training: bool) -> None:
    table, model = make_table(), make_model()
    calls: dict[str, Callable[[], Any]] = {
        "forecast": lambda: model.forecast(table),
        "forecast with a trainer": lambda: model.forecast(table, trainer_kwargs=QUIET),
        "predict": lambda: model.predict(make_dataset(), trainer_kwargs={**QUIET}),
    }
    model.train(training)
    model.network.memory.eval()  # a mode of its own
    model.network.residual_head.requires_grad_(False)
    before = modes(model), [p.requires_grad for p in model.parameters()], set(vars(model))
    assert torch.is_grad_enabled()
    calls[name]()
    assert torch.is_grad_enabled()
    assert (modes(model), [p.requires_grad for p in model.parameters()], set(vars(model))) == before
    assert model._trainer is None


@pytest.mark.parametrize("state", ["fresh", "fitted", "loaded"])
def test_threads_share_a_model(state: str, tmp_path: Any) -> None:
    table, dataset = make_table(), make_dataset()
    model = make_model(loss=QuantileLoss([0.1, 0.5, 0.9]))
    if state == "fitted":
        fit(model, dataset)
    if state == "loaded":
        model = mLSTMTime.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    model.train()
    expected_table = model.forecast(table)
    expected = model.predict(dataset, mode="quantiles", trainer_kwargs={**QUIET})

    def call(number: int) -> None:
        if number % 2:
            pd.testing.assert_frame_equal(model.forecast(table), expected_table)
        else:
            actual = model.predict(dataset, mode="quantiles", trainer_kwargs={**QUIET})
            assert torch.equal(actual, expected)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, range(CALLS)))
    assert all(modes(model))


@pytest.mark.parametrize("loss", [QuantileLoss([0.1, 0.5, 0.9]), NormalDistributionLoss()])
def test_forecast_equals_that_of_a_trainer(loss: Any) -> None:
    table, model = make_table(), make_model(loss=loss)
    actual = model.forecast(table, batch_size=2)
    expected = model.forecast(table, batch_size=2, trainer_kwargs=QUIET)
    pd.testing.assert_frame_equal(actual, expected)
