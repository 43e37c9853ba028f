"""Forecasts of the true future: the numbers of the host's own way, from nothing but the past."""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TimeSeriesDataSet,
)
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    SMAPE,
    CrossEntropy,
    LogNormalDistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from pytorch_forecasting.utils import to_list

from datasets import CONFIGURATIONS, HISTORY, HORIZON, QUIET, fit, make_dataset, make_table
from pytorch_forecasting_mlstm import mLSTMTime

pytestmark = pytest.mark.filterwarnings(
    # the host hands arrays of pandas 3, which are read-only, to torch, and only reads them
    "ignore:The given NumPy array is not writable:UserWarning"
)

ENDS = {"s0": 21, "s1": 18, "s2": 21}  # last time index of every series
KNOWN = ["holiday", "promotion", "price"]
UNKNOWN_REALS = ["y", "signed", "volume", "share", "count", "whole", "noise", "weight"]
UNKNOWN_LABELS = ["label", "state"]


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut every series at its end: what is known of it, and what follows for a horizon."""
    end = table["series"].map(ENDS)
    return table[table["t"] <= end], table[(table["t"] > end) & (table["t"] <= end + HORIZON)]


def make_model(dataset: TimeSeriesDataSet, **changes: Any) -> mLSTMTime:
    """Make a small model with no weight at a special value."""
    arguments = {"hidden_size": 8, "num_heads": 2, **changes}
    model = mLSTMTime.from_dataset(dataset, **arguments)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def with_dummies(ahead: pd.DataFrame, real: float, seed: int) -> pd.DataFrame:
    """Replace all that is not known of the future."""
    rng = np.random.default_rng(seed)
    return ahead.assign(
        **{name: ahead[name].mul(0).add(real).astype(ahead[name].dtype) for name in UNKNOWN_REALS},
        label=rng.choice(["up", "mid", "down"], len(ahead)),
        state=rng.choice(["open", "closed"], len(ahead)),
    )


def oracle(
    model: mLSTMTime, dataset: TimeSeriesDataSet, rows: pd.DataFrame, mode: str
) -> dict[tuple, Any]:
    """Predict the last horizon of every series with the host: arrays by the name of the series."""
    whole = TimeSeriesDataSet.from_dataset(dataset, rows, predict=True)
    torch.manual_seed(7)
    predicted = model.predict(whole, mode=mode, return_index=True, trainer_kwargs=dict(QUIET))
    names = predicted.index[dataset.group_ids].itertuples(index=False, name=None)
    outputs = to_list(predicted.output)
    return {
        name: [output[number].numpy() for output in outputs] for number, name in enumerate(names)
    }


def known_of(dataset: TimeSeriesDataSet, ahead: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the dataset needs of the future, and nothing else."""
    schema = [*dataset._time_varying_known_reals, *dataset._time_varying_known_categoricals]
    groups = dataset._variable_groups
    flat = [column for name in schema for column in groups.get(name, [name])]
    needed = [name for name in flat if name in KNOWN]
    return ahead[[*dataset.group_ids, "t", *needed]] if needed else None


@cache
def trained_on(name: str) -> TimeSeriesDataSet:
    changes = dict(CONFIGURATIONS[name])
    return make_dataset(split(changes.pop("table", make_table()))[0], **changes)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_forecast_is_what_the_host_predicts_whatever_stands_in_for_the_future(name: str) -> None:
    history, ahead = split(CONFIGURATIONS[name].get("table", make_table()))
    dataset = trained_on(name)
    model = make_model(dataset)
    shuffled = history.sample(frac=1, random_state=0)
    forecast = model.forecast(shuffled, known_of(dataset, ahead), trainer_kwargs=QUIET)
    assert not any(name in model.__dict__ for name in ("data", "future"))

    groups = dataset.group_ids
    assert list(forecast.columns[: len(groups) + 2]) == [*groups, "t", "step"]
    order = [key for key in shuffled[groups].drop_duplicates().itertuples(index=False, name=None)]
    targets = dataset.target_names
    by_series = forecast.groupby(groups, sort=False)
    assert [key for key, _ in by_series] == order
    for key, own in by_series:
        end = history.loc[(history[groups] == list(key)).all(axis=1), "t"].max()
        steps = np.arange(1, dataset.max_prediction_length + 1)
        assert own["step"].tolist() == steps.tolist() * len(targets)
        assert own["t"].tolist() == (end + steps).tolist() * len(targets)
        if len(targets) > 1:
            assert own["target"].tolist() == np.repeat(targets, len(steps)).tolist()

    for real, seed in ((0.25, 0), (0.75, 1)):
        if dataset.max_prediction_length > HORIZON:
            whole = make_table()
            longer = whole[whole["t"] > whole["series"].map(ENDS)]
        rows = pd.concat([history, with_dummies(ahead, real, seed)])
        expected = oracle(model, dataset, rows, "prediction")
        for key, own in by_series:
            for target, normalizer, value in zip(
                targets, dataset.target_normalizers, expected[key], strict=True
            ):
                got = own if len(targets) == 1 else own[own["target"] == target]
                if isinstance(normalizer, NaNLabelEncoder):
                    labels = normalizer.inverse_transform(value)
                    assert got["prediction"].tolist() == labels.tolist()
                else:
                    assert np.allclose(got["prediction"].astype(float), value, rtol=1e-5, atol=1e-6)
