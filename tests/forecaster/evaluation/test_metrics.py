"""Metrics, against loops and against the metrics of pytorch-forecasting."""

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting.metrics import MAE, QuantileLoss

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.evaluation.error_tables import error_table
from pytorch_forecasting_mlstm.forecaster.evaluation.metrics import seasonal_scale

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
LEVELS = np.array(QUANTILES)
OUTERMOST = ["q0.02", "q0.98"]


def make_forecasts(actual: np.ndarray, quantiles: np.ndarray) -> pd.DataFrame:
    """Return windows (W, h, Q) as a table of forecasts, one cutoff per window."""
    windows, horizon = actual.shape
    columns = {f"q{q:g}": quantiles[..., k].ravel() for k, q in enumerate(QUANTILES)}
    return pd.DataFrame(
        {
            "model": "m",
            "cutoff": np.repeat(np.arange(windows), horizon),
            "step": np.tile(np.arange(horizon) + 1, windows),
            "actual": actual.ravel(),
            "prediction": quantiles[..., 3].ravel(),
            **columns,
        }
    )


def test_error_table_matches_a_loop() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(5, 4))
    quantiles = np.sort(rng.normal(size=(5, 4, 7)), axis=-1)
    scale = np.array([0.5, 1.0, 2.0, 4.0, np.nan])
    forecasts = make_forecasts(actual, quantiles)
    scales = pd.DataFrame({"cutoff": np.arange(5), "scale": scale})
    errors = error_table(forecasts, scales).loc["m"]
    coverage = error_table(forecasts.drop(columns=OUTERMOST)).loc["m", "coverage"]

    absolute, scaled, pinball, inside = 0.0, 0.0, 0.0, 0
    for w in range(5):
        for t in range(4):
            y = actual[w, t]
            error = abs(y - quantiles[w, t, 3])
            absolute += error / 20
            scaled += error / scale[w] / 16 if w < 4 else 0
            inside += quantiles[w, t, 1] <= y <= quantiles[w, t, 5]
            for k, q in enumerate(LEVELS):
                f = quantiles[w, t, k]
                pinball += (q * (y - f) if y > f else (1 - q) * (f - y)) / 140
    assert errors["MAE"] == pytest.approx(absolute, rel=1e-12)
    assert errors["MASE"] == pytest.approx(scaled, rel=1e-12)
    assert errors["pinball"] == pytest.approx(pinball, rel=1e-12)
    assert coverage == inside / 20


def test_error_table_matches_pytorch_forecasting() -> None:
    rng = np.random.default_rng(1)
    actual, quantiles = rng.normal(size=(6, 3)), np.sort(rng.normal(size=(6, 3, 7)), axis=-1)
    errors = error_table(make_forecasts(actual, quantiles)).loc["m"]
    y, forecast = torch.tensor(actual), torch.tensor(quantiles)
    assert errors["MAE"] == pytest.approx(float(MAE()(forecast[..., 3], y)), rel=1e-6)
    # pytorch-forecasting doubles the pinball loss, so that it is the absolute error at the median.
    quantile_loss = float(QuantileLoss(list(QUANTILES))(forecast, y))
    assert errors["pinball"] == pytest.approx(quantile_loss / 2, rel=1e-6)


def test_seasonal_scale_is_the_seasonal_naive_error() -> None:
    values = noisy_season(50)
    expected = np.mean([abs(values[t] - values[t - 7]) for t in range(7, 50)])
    assert seasonal_scale(values, 7) == pytest.approx(expected, rel=1e-12)
    assert seasonal_scale(values[:7], 7) == seasonal_scale(values[:7], 1)
    assert np.isnan(seasonal_scale(np.ones(9), 7))


def test_seasonal_scale_skips_missing_values() -> None:
    values = noisy_season(50)
    values[[0, 13, 14, 49]] = np.nan
    changes = [abs(values[t] - values[t - 7]) for t in range(7, 50)]
    assert seasonal_scale(values, 7) == pytest.approx(np.nanmean(changes), rel=1e-12)
    alternating = np.where(np.arange(9) % 2, np.nan, np.arange(9.0))
    assert seasonal_scale(alternating, 2) == 2
    assert np.isnan(seasonal_scale(alternating, 1)), "no two values follow each other"
