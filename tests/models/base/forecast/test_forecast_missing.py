"""``forecast`` of tables with missing values (NaN)."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer
from pytorch_forecasting.metrics import NormalDistributionLoss, PoissonLoss, QuantileLoss

from helpers.datasets import HORIZON, QUIET, make_dataset, make_table, with_target
from helpers.models import SMALL, make_model
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

COVARIATES: dict[str, Any] = {
    "time_varying_known_reals": ["price"],
    "time_varying_unknown_reals": ["y", "noise"],
    "static_reals": ["size"],
}
END = 21


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table into history and horizon."""
    return table[table["t"] <= END], table.loc[table["t"] > END, ["series", "t", "price"]]


def hide(table: pd.DataFrame, name: str, *times: int) -> pd.DataFrame:
    """Hide values of one series."""
    hidden = (table["series"] == "s1") & table["t"].isin(times)
    return table.assign(**{name: table[name].mask(hidden)})


@pytest.mark.parametrize("normalizer", [GroupNormalizer(groups=["series"]), EncoderNormalizer()])
@pytest.mark.parametrize("dtype", ["float64", "Float64"])
def test_forecast_of_missing_values_is_that_of_the_dataset(normalizer: Any, dtype: str) -> None:
    model = make_model(make_dataset(**COVARIATES, target_normalizer=normalizer))
    table = hide(hide(hide(make_table(), "y", 15, 18), "price", 17), "noise", 16, 17, 21)
    table = table.astype({"y": dtype, "price": dtype})
    history, future = split(table)
    forecast = model.forecast(history, future)
    assert np.isfinite(forecast["prediction"]).all()
    dataset = BatchedTimeSeriesDataSet.from_parameters(
        model.dataset_parameters, table.astype({"y": float, "price": float}), predict=True
    )
    expected = model.predict(dataset, trainer_kwargs=dict(QUIET))
    np.testing.assert_allclose(forecast["prediction"], expected.flatten(), rtol=1e-5)
    complete = model.forecast(*split(make_table()))
    same = np.isclose(forecast["prediction"], complete["prediction"], rtol=1e-9)
    assert same[forecast["series"] != "s1"].all() and not same[forecast["series"] == "s1"].any()


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (QuantileLoss([0.1, 0.5, 0.9]), with_target("y", EncoderNormalizer())),
        (NormalDistributionLoss(), with_target("y", GroupNormalizer(transformation="softplus"))),
        (PoissonLoss(), with_target("count", GroupNormalizer(center=False))),
    ],
)
def test_training_on_missing_values_forecasts_finite_numbers(
    loss: Any, target: dict[str, Any]
) -> None:
    name = target["target"]
    table = make_table()
    table = table.assign(**{name: table[name].mask(table["t"] % 3 == 0)})
    dataset = BatchedTimeSeriesDataSet.from_parameters(
        {
            **make_dataset(**target).get_parameters(),
            "target_normalizer": target["target_normalizer"],
        },
        table,
    )
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    assert model.hparams.missing_values == [name]
    forecast = model.forecast(table[table["t"] <= 20])
    numbers = forecast.drop(columns="series").to_numpy(float)
    assert np.isfinite(numbers).all() and (np.abs(numbers) < 1e3).all()


def test_known_variables_of_the_horizon_may_be_missing_if_they_were_in_training() -> None:
    table = hide(make_table(), "price", 3, 9)
    parameters = make_dataset(**COVARIATES).get_parameters()
    marked = make_model(BatchedTimeSeriesDataSet.from_parameters(parameters, table))
    history, future = split(hide(table, "price", END + 2))
    forecast = marked.forecast(history, future)
    assert np.isfinite(forecast["prediction"]).all()
    other = marked.forecast(history, future.fillna({"price": 1.5}))["prediction"]
    assert not np.allclose(
        other[forecast["series"] == "s1"], forecast["prediction"][forecast["series"] == "s1"]
    )
    plain = make_model(make_dataset(**COVARIATES))
    message = r"'price' of future must hold finite .* t=23; .* missing_values=\['price'\]"
    with pytest.raises(ValueError, match=message):
        plain.forecast(history, future)
    dataset = BatchedTimeSeriesDataSet.from_parameters(
        parameters, hide(make_table(), "price", END + 2), predict=True
    )
    message = r"^mLSTMTime: variable 'price' must be finite, got nan for series='s1' at t=23 .*"
    with pytest.raises(ValueError, match=rf"{message}missing_values=\['price'\]"):
        plain.predict(dataset, trainer_kwargs=dict(QUIET))


def test_lags_of_missing_values_may_be_missing_in_the_horizon() -> None:
    model = make_model(make_dataset(lags={"y": [HORIZON]}))
    history, _ = split(hide(make_table(), "y", 19))
    assert np.isfinite(model.forecast(history)["prediction"]).all()


def test_forecast_warns_if_the_last_steps_have_no_target() -> None:
    model = make_model(make_dataset())
    history, _ = split(hide(make_table(), "y", 20, 21))
    with pytest.warns(UserWarning, match="no target in the last 2 steps of series='s1'; forecasts"):
        forecast = model.forecast(history)
    assert forecast["t"].min() == END + 1 and np.isfinite(forecast["prediction"]).all()


def test_empty_histories_are_forecast_if_the_dataset_allows_them() -> None:
    """The scale is that of the series."""
    model = make_model(make_dataset(min_encoder_length=0))
    history, _ = split(hide(make_table(), "y", *range(30)))
    forecast = model.forecast(history)
    assert np.isfinite(forecast["prediction"]).all()
    seen = model.forecast(history.assign(y=history["y"].fillna(8.0)))["prediction"]
    assert not np.allclose(seen, forecast["prediction"])


def test_predict_of_a_table_masks_the_history() -> None:
    model = make_model(make_dataset())
    table = hide(make_table(), "y", 15, 23)  # also in the horizon, which is not read
    expected = model.forecast(split(table)[0])["prediction"]
    actual = model.predict(table, trainer_kwargs=dict(QUIET))
    np.testing.assert_allclose(actual.flatten(), expected, rtol=1e-5)
    assert torch.isfinite(actual).all()
