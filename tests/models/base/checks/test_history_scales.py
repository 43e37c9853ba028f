"""Covariates without a scale in a history are named, and not read as millions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pytorch_forecasting import EncoderNormalizer, TimeSeriesDataSet

from helpers.datasets import QUIET, fit, make_dataset, make_table
from helpers.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore:scale is below 1e-7:UserWarning")


def promotion_table() -> pd.DataFrame:
    """A promotion begins at step 20 of every series."""
    table = make_table()
    return table.assign(promo=(table["t"] >= 20) * 1.0)


def promotion_dataset(table: pd.DataFrame, **changes: Any) -> TimeSeriesDataSet:
    return make_dataset(table, time_varying_known_reals=["promo"], **changes)


@pytest.mark.parametrize(
    "scaler",
    [EncoderNormalizer(), EncoderNormalizer(method="robust"), EncoderNormalizer(center=False)],
    ids=["standard", "robust", "not centered"],
)
@pytest.mark.parametrize("stage", ["fit", "predict", "forecast"])
def test_covariate_without_a_scale_in_its_history_is_named(
    stage: str, scaler: EncoderNormalizer
) -> None:
    table = promotion_table()
    dataset = promotion_dataset(table, scalers={"promo": scaler})
    model = make_model(dataset).float()
    future = table[table["t"] >= 20]
    message = r"^mLSTMTime: variable 'promo' must vary .* for series='s\d' at t=\d+; leave 'promo'"
    with pytest.raises(ValueError, match=message):
        if stage == "fit":
            fit(model.train(), dataset, batch_size=100)
        elif stage == "predict":
            loader = dataset.to_dataloader(train=False, batch_size=100)
            model.predict(loader, trainer_kwargs=dict(QUIET))
        else:
            model.forecast(table[table["t"] < 20], future)


def test_covariate_with_a_common_scale_may_begin_in_the_horizon() -> None:
    table = promotion_table()
    model = make_model(promotion_dataset(table)).float()
    forecast = model.forecast(table[table["t"] < 20], table[table["t"] >= 20])
    assert np.isfinite(forecast["prediction"]).all()


def test_covariate_that_stays_constant_is_read_as_zero() -> None:
    table = promotion_table()
    model = make_model(promotion_dataset(table, scalers={"promo": EncoderNormalizer()})).float()
    table["promo"] = 0.0
    forecast = model.forecast(table[table["t"] < 20], table[table["t"] >= 20])
    assert np.isfinite(forecast["prediction"]).all()
