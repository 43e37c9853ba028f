"""Metrics, against loops and against the metrics of pytorch-forecasting."""

import numpy as np
import pytest
import torch
from pytorch_forecasting.metrics import MAE, QuantileLoss

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.evaluation.metrics import compute_metrics, seasonal_scale

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
LEVELS = np.array(QUANTILES)


def test_compute_metrics_matches_a_loop() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(5, 4))
    quantiles = np.sort(rng.normal(size=(5, 4, 7)), axis=-1)
    scale = np.array([0.5, 1.0, 2.0, 4.0, np.nan])
    metrics = compute_metrics(actual, quantiles[..., 3], quantiles, LEVELS, scale, (0.1, 0.9))

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
    assert metrics.mae == pytest.approx(absolute, rel=1e-12)
    assert metrics.mase == pytest.approx(scaled, rel=1e-12)
    assert metrics.pinball == pytest.approx(pinball, rel=1e-12)
    assert metrics.coverage == inside / 20


def test_compute_metrics_matches_pytorch_forecasting() -> None:
    rng = np.random.default_rng(1)
    actual, quantiles = rng.normal(size=(6, 3)), np.sort(rng.normal(size=(6, 3, 7)), axis=-1)
    metrics = compute_metrics(actual, quantiles[..., 3], quantiles, LEVELS, np.ones(6), (0.1, 0.9))
    y, forecast = torch.tensor(actual), torch.tensor(quantiles)
    assert metrics.mae == pytest.approx(float(MAE()(forecast[..., 3], y)), rel=1e-6)
    # pytorch-forecasting doubles the pinball loss, so that it is the absolute error at the median.
    quantile_loss = float(QuantileLoss(list(QUANTILES))(forecast, y))
    assert metrics.pinball == pytest.approx(quantile_loss / 2, rel=1e-6)


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
