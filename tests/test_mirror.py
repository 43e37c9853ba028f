"""Random signs: training sees half of the samples upside down, and nobody else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    LogNormalDistributionLoss,
    MultiLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from pytorch_forecasting.utils import to_list
from torch import Tensor

from datasets import CONFIGURATIONS, HISTORY, HORIZON, configured, convert, fit, make_dataset
from pytorch_forecasting_mlstm import mLSTMTime
from test_model_forecast import make_model
from tolerances import assert_close, assert_complains, assert_identical

PAIRS = [0.9, 0.1, 0.5, 0.3, 0.7]


def batch_of(dataset: TimeSeriesDataSet) -> dict[str, Any]:
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=16)))
    return convert(x, torch.float64)


def upside_down(x: dict[str, Any]) -> dict[str, Any]:
    """Mirror every history at the centre of the host's normaliser."""
    several = isinstance(x["encoder_target"], list)
    turned = [
        2 * scale[:, :1] - y
        for y, scale in zip(to_list(x["encoder_target"]), to_list(x["target_scale"]), strict=True)
    ]
    return {**x, "encoder_target": turned if several else turned[0]}


def turn_back(loss: Any, forecast: Tensor, scale: Tensor) -> Tensor:
    """Mirror a forecast at the same centre, by what its numbers mean."""
    if isinstance(loss, NormalDistributionLoss):
        mean, spread, location, deviation = forecast.unbind(-1)  # the first two of the sample
        return torch.stack([2 * scale[:, :1] - mean, spread, -location, deviation], dim=-1)
    turned = 2 * scale[:, :1, None] - forecast
    if isinstance(loss, QuantileLoss):
        levels = loss.quantiles
        return turned[..., [levels.index(round(1 - level, 9)) for level in levels]]
    return turned


@torch.no_grad()
def forecasts(model: mLSTMTime, x: dict[str, Any]) -> list[Tensor]:
    return to_list(model(x).prediction)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("no covariates", MAE()),
        ("no covariates", RMSE()),
        ("no covariates", MASE()),
        ("no covariates", MAE() + 0.5 * RMSE()),
        ("no covariates", QuantileLoss(PAIRS)),
        ("no covariates", QuantileLoss()),
        ("no covariates", NormalDistributionLoss()),
        ("short encoder normalizer", MAE()),
        ("horizon beyond history", QuantileLoss(PAIRS)),
        ("two targets", MultiLoss([QuantileLoss(PAIRS), MAE()])),
        ("two targets", MultiLoss([RMSE(), NormalDistributionLoss()])),
    ],
    ids=str,
)
@pytest.mark.parametrize("normalise", [True, False])
def test_training_forecasts_each_sample_upright_or_upside_down(
    name: str, loss: Any, normalise: bool
) -> None:
    dataset = configured(name)
    model = make_model(dataset, loss=loss, dropout=0.0, instance_normalization=normalise)
    x = batch_of(dataset)
    upright = forecasts(model, x)
    losses = loss.metrics if isinstance(loss, MultiLoss) else [loss]
    inverted = [
        turn_back(part, forecast, scale)
        for part, forecast, scale in zip(
            losses, forecasts(model, upside_down(x)), to_list(x["target_scale"]), strict=True
        )
    ]
    model.train()
    seen = []
    for _ in range(4):
        found = forecasts(model, x)
        for row in range(len(x["encoder_lengths"])):
            here = torch.cat([part[row] for part in found], dim=-1)
            one, other = (
                torch.cat([part[row] for part in parts], dim=-1) for parts in (upright, inverted)
            )
            assert (one - other).abs().max() > 1e-3
            seen.append(bool((here - one).abs().max() > (here - other).abs().max()))
            assert_close(here, other if seen[-1] else one)
    # of 64 draws, fewer than 12 or more than 52 turn up once in three million times
    assert len(seen) == 64 and 12 <= sum(seen) <= 52


@pytest.mark.parametrize("signs", [True, False])
def test_forecasts_after_training_are_upright(signs: bool) -> None:
    dataset = configured("no covariates")
    model = make_model(dataset, random_signs=signs, dropout=0.0)
    x = batch_of(dataset)
    expected = forecasts(model, x)
    for _ in range(5):
        assert_identical(tuple(forecasts(model, x)), tuple(expected))
    if not signs:
        assert_identical(tuple(forecasts(model.train(), x)), tuple(expected))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_on_where_the_history_of_real_targets_is_all_that_is_read(name: str) -> None:
    dataset = configured(name)
    reads = {*dataset.reals, *dataset.flat_categoricals} - {*dataset.target_names}
    real = "label" not in dataset.target_names
    model = mLSTMTime.from_dataset(dataset)
    assert model.hparams.random_signs == (not reads and real)
    if model.hparams.random_signs:
        mLSTMTime.from_dataset(dataset, random_signs=True)
        return
    assert_complains(
        lambda: mLSTMTime.from_dataset(dataset, random_signs=True),
        "mLSTMTime: random_signs must be False here",
        "got True; leave it out",
    )
    mLSTMTime.from_dataset(dataset, random_signs=False)


class Lopsided(MAE):
    """A loss of one's own: an excess costs twice what a lack does."""

    def loss(self, y_pred: Any, target: Tensor) -> Tensor:
        error = self.to_prediction(y_pred) - target
        return torch.where(error > 0, 2 * error, -error)


@pytest.mark.parametrize(
    "loss",
    [
        SMAPE(),
        MAPE(),
        PoissonLoss(),
        QuantileLoss([0.5, 0.9]),
        QuantileLoss([0.1, 0.5, 0.5, 0.8]),
        LogNormalDistributionLoss(),
        MAE() + SMAPE(),
        Lopsided(),
    ],
    ids=str,
)
def test_off_for_a_loss_that_has_a_side(loss: Any) -> None:
    transformed = "log" if isinstance(loss, LogNormalDistributionLoss) else None
    dataset = make_dataset(target_normalizer=EncoderNormalizer(transformation=transformed))
    assert not mLSTMTime.from_dataset(dataset, loss=loss).hparams.random_signs
    assert_complains(
        lambda: mLSTMTime.from_dataset(dataset, loss=loss, random_signs=True),
        "does not treat both signs alike",
    )


def test_off_where_one_of_several_losses_has_a_side() -> None:
    dataset = configured("two targets")
    loss = MultiLoss([MAE(), SMAPE()])
    assert not mLSTMTime.from_dataset(dataset, loss=loss).hparams.random_signs
    assert_complains(
        lambda: mLSTMTime.from_dataset(dataset, loss=loss, random_signs=True),
        "SMAPE() does not treat both signs alike",
    )


def jumps() -> TimeSeriesDataSet:
    """Series of noise, as long as one window; all of them end higher than they begin."""
    rng = np.random.default_rng(0)
    steps = HISTORY + HORIZON
    y = rng.normal(size=(200, steps)) + (np.arange(steps) >= HISTORY)
    table = pd.DataFrame(
        {
            "series": np.repeat(np.arange(200), steps).astype(str),
            "t": np.tile(np.arange(steps), 200),
            "y": y.ravel(),
        }
    )
    return make_dataset(
        table,
        min_encoder_length=HISTORY,
        min_prediction_length=HORIZON,
        target_normalizer=EncoderNormalizer(),
    )


def test_a_drift_that_all_series_share_is_not_learnt() -> None:
    dataset = jumps()
    rises = {}
    for signs in (True, False):
        torch.manual_seed(0)
        model = mLSTMTime.from_dataset(dataset, random_signs=signs, learning_rate=3e-3)
        fit(model, dataset, steps=100, batch_size=50)
        x = batch_of(dataset)
        forecast = forecasts(model.double().eval(), x)[0]
        rises[signs] = (forecast.mean() - x["encoder_target"].mean()).item()
    assert abs(rises[True]) < 0.4 < 0.8 < rises[False], rises  # 0.29 and 0.93
