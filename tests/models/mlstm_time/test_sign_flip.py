"""Random sign flips: only training negates samples, each with probability 0.5."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    MultiLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from pytorch_forecasting.utils import to_list
from torch import Tensor

from helpers.datasets import (
    CONFIGURATIONS,
    HISTORY,
    HORIZON,
    configured,
    convert,
    fit,
    make_dataset,
    shared_dataset,
    with_target,
)
from helpers.models import SMALL, make_model
from helpers.products import alternate
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet


def first_batch(dataset: TimeSeriesDataSet) -> dict[str, Any]:
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=16)))
    return convert(x, torch.float64)


def negate(x: dict[str, Any]) -> dict[str, Any]:
    """Negate every history, relative to the center of the normalizer."""
    is_list = isinstance(x["encoder_target"], list)
    negated = [
        2 * scale[:, :1] - y
        for y, scale in zip(to_list(x["encoder_target"]), to_list(x["target_scale"]), strict=True)
    ]
    return {**x, "encoder_target": negated if is_list else negated[0]}


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
        ("short encoder normalizer", MAE()),
        ("horizon beyond history", MAE()),
        ("two targets", MultiLoss([MASE(), RMSE()])),
    ],
    ids=str,
)
@pytest.mark.parametrize("normalize", [True, False])
def test_training_negates_each_sample_or_leaves_it(name: str, loss: Any, normalize: bool) -> None:
    dataset = configured(name)
    model = make_model(
        dataset, loss=loss, random_sign_flip=True, dropout=0.0, instance_normalization=normalize
    )
    x = first_batch(dataset)
    unflipped = torch.cat(forecasts(model, x), dim=-1)
    flipped = torch.cat(
        [
            2 * scale[:, :1, None] - forecast
            for forecast, scale in zip(
                forecasts(model, negate(x)), to_list(x["target_scale"]), strict=True
            )
        ],
        dim=-1,
    )
    assert ((unflipped - flipped).abs().amax((1, 2)) > 1e-3).all()
    model.train()
    masks = []
    for _ in range(4):
        actual = torch.cat(forecasts(model, x), dim=-1)
        to_unflipped, to_flipped = ((actual - y).abs().amax((1, 2)) for y in (unflipped, flipped))
        mask = to_unflipped > to_flipped
        assert_close(actual, torch.where(mask[:, None, None], flipped, unflipped))
        assert 1 <= mask.sum() <= 15  # 16 independent draws are all equal once in 30,000 times
        masks.append(mask)
    # fewer than 12 or more than 52 of 64 samples are flipped once in three million times
    assert 12 <= torch.stack(masks).sum() <= 52


@pytest.mark.parametrize("length", [0, 1, HISTORY])
def test_training_never_negates_a_constant_history(length: int) -> None:
    """It equals its negation, so that the model would train on two futures of one history."""
    dataset = make_dataset(min_encoder_length=0, add_encoder_length=False)
    model = make_model(dataset, random_sign_flip=True, dropout=0.0)
    x = first_batch(dataset)
    x["encoder_target"] = torch.full_like(x["encoder_target"], 7.3)
    x["encoder_lengths"] = torch.full_like(x["encoder_lengths"], length)
    expected = forecasts(model, x)[0]
    model.train()
    for _ in range(3):
        assert_close(forecasts(model, x)[0], expected)


def test_training_negates_targets_that_vary_without_constant_ones() -> None:
    dataset = configured("two targets")
    model = make_model(dataset, random_sign_flip=True, dropout=0.0)
    with torch.no_grad():
        # else a forecast would depend on the other target through the memory
        model.network.residual_head.weight.zero_()
    x = first_batch(dataset)
    x["encoder_target"][1] = torch.full_like(x["encoder_target"][1], 7.3)
    unflipped = forecasts(model, x)
    first, second = forecasts(model.train(), x)
    assert (first - unflipped[0]).abs().max() > 1e-3
    assert_close(second, unflipped[1])


@pytest.mark.parametrize("flip", [True, False])
def test_evaluation_never_negates(flip: bool) -> None:
    dataset = configured("no covariates")
    model = make_model(dataset, random_sign_flip=flip, dropout=0.0)
    x = first_batch(dataset)
    expected = forecasts(model, x)
    for _ in range(5):
        assert_identical(tuple(forecasts(model, x)), tuple(expected))
    if not flip:
        assert_identical(tuple(forecasts(model.train(), x)), tuple(expected))


def flips(dataset: TimeSeriesDataSet, **changes: Any) -> bool:
    """Return whether a model for a dataset flips signs."""
    return mLSTMTime.from_dataset(dataset, **SMALL, **changes).random_sign_flip


@alternate("name", CONFIGURATIONS, every=4)
def test_default_is_on_if_only_the_history_of_real_targets_is_read(name: str) -> None:
    dataset = configured(name)
    reads = {*dataset.reals, *dataset.flat_categoricals} - {*dataset.target_names}
    is_supported = not reads and "label" not in dataset.target_names
    model = mLSTMTime.from_dataset(dataset, **SMALL, max_encoder_length=64)
    assert model.random_sign_flip == is_supported
    for changes in ({"memory_length": 63}, {"random_sign_flip": False}):
        with patch.dict(model.hparams, changes):
            assert not model.random_sign_flip
    if is_supported:
        assert flips(dataset, random_sign_flip=True)
        return
    assert_raises_mentioning(
        lambda: mLSTMTime.from_dataset(dataset, random_sign_flip=True),
        "mLSTMTime: random_sign_flip must be False here, as",
        *(reads & {"price", "noise", "region"}),
        "got True; leave it out",
    )


class AsymmetricMAE(MAE):
    """A custom loss in which an excess costs twice as much as a shortfall."""

    def loss(self, y_pred: Any, target: Tensor) -> Tensor:
        error = self.to_prediction(y_pred) - target
        return torch.where(error > 0, 2 * error, -error)


class CustomRMSE(RMSE):
    """A custom loss, whose symmetry is unknown."""


@pytest.mark.parametrize(
    ("loss", "metric"),
    [
        (SMAPE(), "SMAPE()"),
        (MAPE(), "MAPE()"),
        (PoissonLoss(), "PoissonLoss()"),
        (QuantileLoss(), "QuantileLoss"),
        (NormalDistributionLoss(), "NormalDistributionLoss"),
        (MAE() + SMAPE(), "SMAPE()"),
        (SMAPE() + MAE(), "SMAPE()"),
        (AsymmetricMAE(), "AsymmetricMAE()"),
        (CustomRMSE(), "CustomRMSE()"),
    ],
    ids=str,
)
def test_default_is_off_for_an_asymmetric_loss(loss: Any, metric: str) -> None:
    dataset = shared_dataset(target_normalizer=EncoderNormalizer())
    assert not flips(dataset, loss=loss, max_encoder_length=64)
    assert_raises_mentioning(
        lambda: mLSTMTime.from_dataset(dataset, loss=loss, random_sign_flip=True),
        "mLSTMTime: random_sign_flip",
        f"as {metric}",
        "does not treat both signs of this target alike, got True; leave it out",
    )


@pytest.mark.parametrize("transformation", ["log", "log1p", "softplus", "count", None])
@pytest.mark.parametrize("loss", [MAE(), RMSE(), MAE() + RMSE()], ids=str)
def test_default_is_off_for_the_mean_of_a_transformed_target(
    loss: Any, transformation: Any
) -> None:
    """The median of log y is the log of the median; this does not hold for the mean."""
    normalizer = GroupNormalizer(transformation=transformation)
    dataset = shared_dataset(**with_target("volume", normalizer))
    symmetric = transformation is None or type(loss) is MAE
    assert flips(dataset, loss=loss, max_encoder_length=64) == symmetric


def test_default_is_off_if_one_of_several_losses_is_asymmetric() -> None:
    dataset = configured("two targets")
    loss = MultiLoss([MAE(), SMAPE()])
    assert not flips(dataset, loss=loss, max_encoder_length=64)
    assert_raises_mentioning(
        lambda: mLSTMTime.from_dataset(dataset, loss=loss, random_sign_flip=True),
        "as SMAPE() does not treat",
    )


def test_default_follows_a_changed_loss(tmp_path: Path) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, max_encoder_length=64)
    trainer = fit(model, dataset)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt").random_sign_flip
    with_smape = mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt", loss=SMAPE())
    assert not with_smape.random_sign_flip
    model.loss = SMAPE()
    assert not model.random_sign_flip
    fit(model, dataset)


def make_jumps() -> TimeSeriesDataSet:
    """Make series of noise with the length of one window, which all rise after the history."""
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


def test_training_does_not_learn_a_drift_that_all_series_share() -> None:
    dataset = make_jumps()
    rises = {}
    for flip in (True, False):
        torch.manual_seed(0)
        model = mLSTMTime.from_dataset(
            dataset, random_sign_flip=flip, learning_rate=2e-2, hidden_size=8, num_heads=2
        )
        fit(model, BatchedTimeSeriesDataSet.wrap(dataset), steps=30, batch_size=50)
        x = first_batch(dataset)
        forecast = forecasts(model.double().eval(), x)[0]
        rises[flip] = (forecast.mean() - x["encoder_target"].mean()).item()
    assert abs(rises[True]) < 0.4 < 0.8 < rises[False], rises  # 0.16 and 0.94
