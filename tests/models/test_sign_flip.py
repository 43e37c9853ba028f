"""Random signs: training sees half of the samples upside down, and nobody else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
)
from helpers.models import make_model
from helpers.tolerances import assert_close, assert_complains, assert_identical
from pytorch_forecasting_mlstm import mLSTMTime


def batch_of(dataset: TimeSeriesDataSet) -> dict[str, Any]:
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=16)))
    return convert(x, torch.float64)


def upside_down(x: dict[str, Any]) -> dict[str, Any]:
    """Mirror every history at the center of the host's normalizer."""
    several = isinstance(x["encoder_target"], list)
    turned = [
        2 * scale[:, :1] - y
        for y, scale in zip(to_list(x["encoder_target"]), to_list(x["target_scale"]), strict=True)
    ]
    return {**x, "encoder_target": turned if several else turned[0]}


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
def test_training_forecasts_each_sample_upright_or_upside_down(
    name: str, loss: Any, normalize: bool
) -> None:
    dataset = configured(name)
    model = make_model(
        dataset, loss=loss, random_sign_flip=True, dropout=0.0, instance_normalization=normalize
    )
    x = batch_of(dataset)
    upright = torch.cat(forecasts(model, x), dim=-1)
    inverted = torch.cat(
        [
            2 * scale[:, :1, None] - forecast
            for forecast, scale in zip(
                forecasts(model, upside_down(x)), to_list(x["target_scale"]), strict=True
            )
        ],
        dim=-1,
    )
    assert ((upright - inverted).abs().amax((1, 2)) > 1e-3).all()
    model.train()
    drawn = []
    for _ in range(4):
        found = torch.cat(forecasts(model, x), dim=-1)
        turned = (found - upright).abs().amax((1, 2)) > (found - inverted).abs().amax((1, 2))
        assert_close(found, torch.where(turned[:, None, None], inverted, upright))
        assert 1 <= turned.sum() <= 15  # each for itself; of 16, all alike once in 30 000 times
        drawn.append(turned)
    # of 64 draws, fewer than 12 or more than 52 turn up once in three million times
    assert 12 <= torch.stack(drawn).sum() <= 52


@pytest.mark.parametrize("length", [0, 1, HISTORY])
def test_a_history_that_does_not_vary_is_never_turned(length: int) -> None:
    """It is its own mirror image: turned, it would ask for two futures at once."""
    dataset = make_dataset(min_encoder_length=0, add_encoder_length=False)
    model = make_model(dataset, random_sign_flip=True, dropout=0.0)
    x = batch_of(dataset)
    x["encoder_target"] = torch.full_like(x["encoder_target"], 7.3)
    x["encoder_lengths"] = torch.full_like(x["encoder_lengths"], length)
    expected = forecasts(model, x)[0]
    model.train()
    for _ in range(3):
        assert_close(forecasts(model, x)[0], expected)


def test_targets_that_vary_are_turned_without_those_that_do_not() -> None:
    dataset = configured("two targets")
    model = make_model(dataset, random_sign_flip=True, dropout=0.0)
    with torch.no_grad():
        model.network.residual_head.weight.zero_()  # or each would show what it read of the other
    x = batch_of(dataset)
    x["encoder_target"][1] = torch.full_like(x["encoder_target"][1], 7.3)
    upright = forecasts(model, x)
    first, second = forecasts(model.train(), x)
    assert (first - upright[0]).abs().max() > 1e-3
    assert_close(second, upright[1])


@pytest.mark.parametrize("signs", [True, False])
def test_forecasts_after_training_are_upright(signs: bool) -> None:
    dataset = configured("no covariates")
    model = make_model(dataset, random_sign_flip=signs, dropout=0.0)
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
    can = not reads and "label" not in dataset.target_names
    assert make_model(dataset, max_encoder_length=64).random_sign_flip == can
    assert not make_model(dataset, max_encoder_length=63).random_sign_flip
    assert not make_model(dataset, max_encoder_length=64, random_sign_flip=False).random_sign_flip
    if can:
        assert make_model(dataset, random_sign_flip=True).random_sign_flip
        return
    assert_complains(
        lambda: mLSTMTime.from_dataset(dataset, random_sign_flip=True),
        "mLSTMTime: random_sign_flip must be False here, as",
        *(reads & {"price", "noise", "region"}),
        "got True; leave it out",
    )


class Lopsided(MAE):
    """A loss of one's own: an excess costs twice what a lack does."""

    def loss(self, y_pred: Any, target: Tensor) -> Tensor:
        error = self.to_prediction(y_pred) - target
        return torch.where(error > 0, 2 * error, -error)


class Steep(RMSE):
    """Another, which may be anything."""


@pytest.mark.parametrize(
    ("loss", "part"),
    [
        (SMAPE(), "SMAPE()"),
        (MAPE(), "MAPE()"),
        (PoissonLoss(), "PoissonLoss()"),
        (QuantileLoss(), "QuantileLoss"),
        (NormalDistributionLoss(), "NormalDistributionLoss"),
        (MAE() + SMAPE(), "SMAPE()"),
        (SMAPE() + MAE(), "SMAPE()"),
        (Lopsided(), "Lopsided()"),
        (Steep(), "Steep()"),
    ],
    ids=str,
)
def test_off_for_a_loss_that_has_a_side(loss: Any, part: str) -> None:
    dataset = make_dataset(target_normalizer=EncoderNormalizer())
    assert not make_model(dataset, loss=loss, max_encoder_length=64).random_sign_flip
    assert_complains(
        lambda: mLSTMTime.from_dataset(dataset, loss=loss, random_sign_flip=True),
        "mLSTMTime: random_sign_flip",
        f"as {part}",
        "does not treat both signs of this target alike, got True; leave it out",
    )


@pytest.mark.parametrize("transformation", ["log", "log1p", "softplus", "count", None])
@pytest.mark.parametrize("loss", [MAE(), RMSE(), MAE() + RMSE()], ids=str)
def test_a_mean_does_not_go_through_a_transformation(loss: Any, transformation: Any) -> None:
    """The median of log y is the log of the median, the mean is not."""
    dataset = make_dataset(
        target="volume",
        time_varying_unknown_reals=["volume"],
        target_normalizer=GroupNormalizer(transformation=transformation),
    )
    model = make_model(dataset, loss=loss, max_encoder_length=64)
    assert model.random_sign_flip == (transformation is None or type(loss) is MAE)


def test_one_of_several_losses_with_a_side_is_enough() -> None:
    dataset = configured("two targets")
    loss = MultiLoss([MAE(), SMAPE()])
    assert not make_model(dataset, loss=loss, max_encoder_length=64).random_sign_flip
    assert_complains(
        lambda: mLSTMTime.from_dataset(dataset, loss=loss, random_sign_flip=True),
        "as SMAPE() does not treat",
    )


def test_another_loss_decides_anew(tmp_path: Path) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, max_encoder_length=64)
    trainer = fit(model, dataset)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt").random_sign_flip
    other = mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt", loss=SMAPE())
    assert not other.random_sign_flip
    model.loss = SMAPE()
    assert not model.random_sign_flip
    fit(model, dataset)


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


def test_a_drift_that_all_series_share_is_not_learned() -> None:
    dataset = jumps()
    rises = {}
    for signs in (True, False):
        torch.manual_seed(0)
        model = mLSTMTime.from_dataset(dataset, random_sign_flip=signs, learning_rate=3e-3)
        fit(model, dataset, steps=100, batch_size=50)
        x = batch_of(dataset)
        forecast = forecasts(model.double().eval(), x)[0]
        rises[signs] = (forecast.mean() - x["encoder_target"].mean()).item()
    assert abs(rises[True]) < 0.4 < 0.8 < rises[False], rises  # 0.29 and 0.93
