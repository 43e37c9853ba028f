"""The dataset of a forecast is built once per model, and then given other rows."""

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import NormalDistributionLoss, QuantileLoss

from helpers.datasets import CONFIGURATIONS, QUIET, make_dataset, make_table
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.models.base.forecast import dataset as module

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
]

THREADS = 8


def make_model(loss: Any = None, **changes: Any) -> mLSTMTime:
    """Make a model that does not normalize away the scales of its dataset."""
    dataset = make_dataset(**changes)
    return mLSTMTime.from_dataset(dataset, **SMALL, loss=loss, instance_normalization=False)


def count_builds(*calls: Any) -> int:
    with patch.object(module, "_build", side_effect=module._build) as build:
        for call in calls:
            call()
    return build.call_count


def test_dataset_is_built_once_per_model() -> None:
    table, model, other = make_table(), make_model(), make_model()
    later = table.assign(t=table["t"] + 3, y=table["y"] + 1)
    calls = [lambda: model.forecast(table), lambda: model.forecast(later)] * 2
    assert count_builds(*calls) == 1
    assert count_builds(lambda: other.forecast(table)) == 1


def test_cache_does_not_keep_a_model_alive() -> None:
    gc.collect()
    before = len(module._templates)
    model = make_model()
    model.forecast(make_table())
    assert len(module._templates) == before + 1
    del model
    gc.collect()
    assert len(module._templates) == before


def replace_scaler(parameters: dict[str, Any]) -> None:
    parameters["scalers"]["price"] = GroupNormalizer().fit(pd.Series([0.0, 50.0]), None)


def refit_scaler(parameters: dict[str, Any]) -> None:
    parameters["scalers"]["price"].fit(pd.DataFrame({"price": [-40.0, 90.0]}))


def refit_normalizer(parameters: dict[str, Any]) -> None:
    parameters["target_normalizer"].fit(pd.Series([-1.0, 70.0]), None)


@pytest.mark.parametrize("change", [replace_scaler, refit_scaler, refit_normalizer])
def test_changed_parameters_take_effect(change: Any) -> None:
    table = make_table()
    future = table.groupby("series").tail(4).assign(t=lambda rows: rows["t"] + 4)
    model = make_model(time_varying_known_reals=["price"], target_normalizer=GroupNormalizer())
    first = model.forecast(table, future)
    pd.testing.assert_frame_equal(model.forecast(table, future), first)
    change(model.dataset_parameters)
    changed = model.forecast(table, future)
    assert not np.allclose(changed["prediction"], first["prediction"])
    module._templates.clear()
    pd.testing.assert_frame_equal(model.forecast(table, future), changed, rtol=1e-5)


def test_parameters_of_another_dataset_take_effect() -> None:
    table, model = make_table(), make_model(target_normalizer=GroupNormalizer())
    first = model.forecast(table)
    other = make_dataset(table.assign(y=3 * table["y"]), target_normalizer=GroupNormalizer())
    model.dataset_parameters = other.get_parameters()
    assert not np.allclose(model.forecast(table)["prediction"], first["prediction"])


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        pytest.param("all covariates", QuantileLoss([0.1, 0.5, 0.9]), marks=pytest.mark.slow),
        pytest.param("two targets with weights and lags", None, marks=pytest.mark.slow),
        pytest.param("lags of a categorical target", None, marks=pytest.mark.slow),
        ("scaled covariates", NormalDistributionLoss(quantiles=[0.2, 0.5, 0.8])),
    ],
)
def test_threads_forecast_different_tables(name: str, loss: Any) -> None:
    """The first call of a model builds its dataset: all threads begin with it at once."""
    training = {key: value for key, value in CONFIGURATIONS[name].items() if key != "table"}
    model, reference = make_model(loss, **training), make_model(loss, **training)
    reference.load_state_dict(model.state_dict())
    table = make_table(steps=40)
    ends = [24 + number % 9 for number in range(2 * THREADS)]
    state = torch.get_rng_state()

    def forecast(one: mLSTMTime, end: int) -> pd.DataFrame:
        return one.forecast(table[table["t"] < end], table[table["t"] >= end])

    expected = [forecast(reference, end) for end in ends]
    with ThreadPoolExecutor(THREADS) as pool:
        actual = list(pool.map(lambda end: forecast(model, end), ends))
    for one, other in zip(actual, expected, strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in model.modules() if part is not model.loss)


@pytest.mark.parametrize("normalizer", [EncoderNormalizer(), GroupNormalizer(groups=["series"])])
def test_forecast_changes_no_parameter(normalizer: Any) -> None:
    model = make_model(target_normalizer=normalizer)
    kept = model.dataset_parameters["target_normalizer"], model.output_transformer
    before = [{name: repr(value) for name, value in vars(part).items()} for part in kept]
    for _ in range(2):
        model.forecast(make_table().assign(y=lambda rows: 9 * rows["y"]))
    after = [{name: repr(value) for name, value in vars(part).items()} for part in kept]
    assert after == before


@pytest.mark.parametrize("target", ["y", "whole"])
def test_lags_and_covariates_with_a_normalizer_of_all_series(target: str) -> None:
    """The first forecast builds a dataset, the second fills it anew."""
    table = make_table()
    dataset = BatchedTimeSeriesDataSet(
        table,
        time_idx="t",
        target=target,
        group_ids=["series"],
        max_encoder_length=6,
        max_prediction_length=3,
        time_varying_unknown_reals=[target, "noise"],
        target_normalizer=TorchNormalizer(),
        scalers={"noise": TorchNormalizer()},
        lags={target: [2]},
    )
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    first, second = model.forecast(table), model.forecast(table)
    pd.testing.assert_frame_equal(first, second)
    prediction = BatchedTimeSeriesDataSet.from_dataset(
        dataset, table[table["t"] <= 25], predict=True, stop_randomization=True
    )
    shorter = model.forecast(table[table["t"] <= 22])
    expected = model.predict(prediction, trainer_kwargs={**QUIET})
    torch.testing.assert_close(
        torch.tensor(shorter["prediction"].to_numpy()).reshape(3, 3), expected, rtol=1e-4, atol=1e-4
    )
