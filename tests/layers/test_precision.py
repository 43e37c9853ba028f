"""Forecasts have the precision that the scale of the data needs, in 16, 32 and 64 bits."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import MAE, NormalDistributionLoss, QuantileLoss
from pytorch_forecasting.utils import to_list

from helpers.datasets import QUIET, configured, fit, make_dataset, make_table
from helpers.products import alternate, spread
from pytorch_forecasting_mlstm import mLSTMTime

SMALL = {"hidden_size": 8, "num_heads": 2}
LEVEL = 6490.0


def make_high_series(dtype: Any = np.float64) -> pd.DataFrame:
    """Make series that vary by 3 around 6490; the nearest bfloat16 numbers are 6464 and 6496."""
    table = make_table()
    table["y"] = (LEVEL + 1.5 * table["signed"]).astype(dtype)
    return table


def forecast(
    dataset: TimeSeriesDataSet, model: mLSTMTime, precision: Any, **changes: Any
) -> torch.Tensor:
    torch.manual_seed(0)  # the mean of a distribution is estimated from samples
    arguments = dict(QUIET, precision=precision)
    return model.predict(dataset, trainer_kwargs=arguments, batch_size=64, **changes)


@spread(
    "loss, normalizer",
    {"point": MAE(), "quantiles": QuantileLoss(), "distribution": NormalDistributionLoss()},
    {"group": GroupNormalizer(), "encoder": EncoderNormalizer(), "torch": TorchNormalizer()},
)
def test_16_bit_training_rounds_no_forecast(normalizer: Any, loss: Any) -> None:
    dataset = make_dataset(make_high_series(), target_normalizer=normalizer)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    fit(model, dataset, precision="bf16-mixed")
    mixed = forecast(dataset, model, "bf16-mixed")
    full = forecast(dataset, model, "32-true")
    assert mixed.dtype == torch.float32
    # rounding of weights and products: 8 bits of a deviation of about 2
    torch.testing.assert_close(mixed, full, rtol=0, atol=0.2)
    assert not torch.equal(mixed, full)  # else they were not computed in 16 bits
    # forecasts in bfloat16 would have only two values here
    assert len(torch.unique(mixed)) > 100
    assert (mixed - mixed.bfloat16().float()).abs().max() > 4


def test_16_bit_forecasts_are_padded_with_nan() -> None:
    """Steps after a short horizon are NaN; upstream pads only full-precision forecasts."""
    dataset = configured("variable decoders")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    padding = [forecast(dataset, model, p).isnan() for p in ("bf16-mixed", "32-true")]
    assert padding[0].any()
    assert torch.equal(*padding)


@alternate("name", ["all covariates", "all lengths", "lags", "mixed targets"], first=1)
def test_64_bit_model_trains_tests_and_predicts(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    trainer = fit(model, dataset, precision="64-true")
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert trainer.callback_metrics["train_loss"].isfinite()
    loader = dataset.to_dataloader(train=False, batch_size=16)
    trainer = Trainer(precision="64-true", **QUIET)
    trainer.test(model, loader, verbose=False)
    forecasts = forecast(dataset, model, "64-true")
    for part in forecasts if isinstance(forecasts, list) else [forecasts]:
        assert part.dtype in (torch.float64, torch.int64)


@pytest.mark.parametrize("name", ["known real", "mixed targets", "lags", "categorical target"])
def test_64_bit_model_reads_32_bit_batches(name: str) -> None:
    """Without ``precision`` in the trainer, which would convert the batches."""
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL).double()
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=1000)))
    double = to_list(model.eval()(x).prediction)
    forecasts = [to_list(forecast(dataset, model, p)) for p in ("32-true", "64-true")]
    single = to_list(model.float()(x).prediction)
    for actual, expected in zip(double, single, strict=True):
        assert actual.dtype == torch.float64
        torch.testing.assert_close(actual, expected.double(), rtol=1e-4, atol=1e-4)
    for default, explicit in zip(*forecasts, strict=True):
        assert torch.equal(default, explicit) or torch.allclose(default, explicit, rtol=1e-5)


def test_64_bit_model_forecasts_and_interprets() -> None:
    dataset = make_dataset(make_high_series())
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), **SMALL)
    fit(model, dataset, precision="64-true")
    forecasts = model.forecast(make_high_series(), trainer_kwargs=QUIET)
    assert forecasts["prediction"].dtype == np.float64
    assert np.isfinite(forecasts["q0.9"]).all()
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=4)))
    assert model.interpret_output(x).memory.dtype == torch.float64


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_64_bit_forecasts_match_32_bit_forecasts(dtype: Any) -> None:
    dataset = make_dataset(make_high_series(dtype))
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    single = forecast(dataset, model, "32-true")
    double = forecast(dataset, model, "64-true")
    assert double.dtype == torch.float64
    # float32 represents 6490 to 5e-4
    torch.testing.assert_close(single.double(), double, rtol=0, atol=5e-3)
