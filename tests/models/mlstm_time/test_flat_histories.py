"""Histories without spread: bounded losses, and intervals as wide as those of their series."""

from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    QuantileLoss,
)

from helpers.datasets import QUIET, ignore_flat_histories, make_dataset
from helpers.models import make_model
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

pytestmark = [
    ignore_flat_histories,
    pytest.mark.filterwarnings("ignore:scale is below 1e-7:UserWarning"),
]

STEPS = 120
NORMALIZERS: dict[str, Any] = {
    "of the history": EncoderNormalizer(),
    "of the history, robust": EncoderNormalizer(method="robust"),
    "of the series": GroupNormalizer(groups=["series"]),
    "of all values": TorchNormalizer(),
    "none": None,
}


def rare_counts(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(STEPS) < 0.05, rng.integers(1, 5, STEPS), 0).astype(float)


def stepwise_prices(rng: np.random.Generator) -> np.ndarray:
    return 10 + rng.integers(0, 500, STEPS // 20).repeat(20) / 100


def sensor_that_was_off(rng: np.random.Generator) -> np.ndarray:
    y = 20 + 5 * np.sin(np.arange(STEPS)) + rng.normal(size=STEPS)
    y[50:80] = 1e-5 * rng.normal(size=30)  # noise of the converter
    y[80:100] = 0
    return y


def flat_dataset(series: Any, normalizer: Any) -> TimeSeriesDataSet:
    rng = np.random.default_rng(0)
    table = pd.concat(
        pd.DataFrame({"series": f"s{number}", "t": np.arange(STEPS), "y": series(rng)})
        for number in range(3)
    ).reset_index(drop=True)
    dataset = make_dataset(table, target_normalizer=normalizer, min_encoder_length=4)
    return BatchedTimeSeriesDataSet.wrap(dataset)  # hundreds of windows, loaded one after another


@spread(
    "normalizer, loss, series",
    NORMALIZERS,
    {
        "point": MAE(),
        "quantiles": QuantileLoss([0.1, 0.5, 0.9]),
        "distribution": NormalDistributionLoss(),
    },
    {"counts": rare_counts, "prices": stepwise_prices, "sensor": sensor_that_was_off},
)
def test_loss_of_no_window_drowns_the_others(loss: Any, series: Any, normalizer: Any) -> None:
    """The horizon is at most some ten scales away, of which a distribution takes the square."""
    dataset = flat_dataset(series, normalizer)
    model = make_model(dataset, loss=loss).eval()
    x, (y, _) = next(iter(dataset.to_dataloader(train=False, batch_size=len(dataset))))
    with torch.no_grad():
        losses = model.loss.loss(model(x).prediction, y)
    assert losses.isfinite().all()
    assert losses.max() < 5e3


@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_forecast_of_a_constant_history_does_not_depend_on_the_normalizer(normalizer: Any) -> None:
    dataset, reference = (flat_dataset(rare_counts, choice) for choice in (normalizer, None))
    model, reference_model = (
        make_model(data, loss=NormalDistributionLoss()) for data in (dataset, reference)
    )
    reference_model.load_state_dict(model.state_dict())
    loaders = (
        data.to_dataloader(train=False, batch_size=len(data), shuffle=False)
        for data in (dataset, reference)
    )
    (x, _), (reference_x, _) = (next(iter(loader)) for loader in loaders)
    constant = x["encoder_target"].std(1) == 0
    assert constant.any()
    with torch.no_grad():
        actual = model.to_quantiles(model(x))[constant]
        expected = reference_model.to_quantiles(reference_model(reference_x))[constant]
    assert torch.allclose(actual, expected, atol=1e-4)
    assert ((actual[..., -1] - actual[..., 0]) > 0.1).all()


@pytest.mark.parametrize("loss", [NormalDistributionLoss(), NegativeBinomialDistributionLoss()])
def test_forecast_of_zeros_has_the_interval_of_their_series(loss: Any) -> None:
    """The history of the forecast is all that the table holds; the model knows the series."""
    normalizer = EncoderNormalizer(center=not isinstance(loss, NegativeBinomialDistributionLoss))
    dataset = flat_dataset(rare_counts, normalizer)
    torch.manual_seed(0)
    model = mLSTMTime.from_dataset(dataset, loss=loss, hidden_size=8, num_heads=2)
    history = pd.DataFrame({"series": "s1", "t": np.arange(8), "y": 0.0})
    forecast = model.forecast(history)
    width = forecast["q0.98"] - forecast["q0.02"]
    assert width.max() > 0.5
    assert (forecast["q0.98"] < 20).all()


def test_checkpoint_keeps_the_scales_of_the_series() -> None:
    dataset = flat_dataset(rare_counts, EncoderNormalizer())
    model = make_model(dataset, loss=NormalDistributionLoss()).eval()
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(model)
    file = BytesIO()
    torch.save(trainer._checkpoint_connector.dump_checkpoint(), file)
    file.seek(0)
    loaded = mLSTMTime.load_from_checkpoint(file).eval()
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=99)))
    assert torch.equal(loaded(x).prediction, model(x).prediction)
