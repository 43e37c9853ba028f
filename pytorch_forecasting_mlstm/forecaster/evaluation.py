"""Evaluate the model on the test windows, next to the seasonal naive forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .baselines import SeasonalNaive
from .metrics import Metrics, compute_metrics, seasonal_scale
from .panel import Panel
from .prediction import WindowForecasts
from .quantiles import INTERVAL, MEDIAN, QUANTILES
from .splits import Split
from .windows import Windows, cut_windows


@dataclass(frozen=True)
class Evaluation:
    """Test windows, both forecasts of them, and their metrics.

    `quantiles` (W, h, Q) are the model's, `naive_point` (W, h) is the seasonal naive forecast, and
    `season` is the number of steps that it repeats.
    """

    windows: Windows
    quantiles: np.ndarray
    naive_point: np.ndarray
    season: int
    model: Metrics
    naive: Metrics


def evaluate(panel: Panel, split: Split, forecasts: WindowForecasts) -> Evaluation:
    """Compare the model's forecasts of the test windows with the seasonal naive ones.

    Parameters
    ----------
    panel, split : Panel, Split
        The series, and where the test part begins.
    forecasts : WindowForecasts
        The model's forecasts of all test windows, in any order.
    """
    levels = np.array(QUANTILES)
    windows = cut_windows(panel, split, split.test_origins)
    quantiles = _in_order(forecasts, windows)

    training_values = split.training_values(panel)
    seasons = [*panel.axis.seasons.values(), 1]
    scales = {
        season: np.array([seasonal_scale(values, season) for values in training_values])
        for season in seasons
    }
    spread = np.nan_to_num(scales[1], nan=1.0)  # NaN for a constant series, whose errors are 0
    naive = SeasonalNaive.fit(
        cut_windows(panel, split, split.validation_origins), seasons, spread, levels
    )
    naive_point, naive_quantiles = naive.predict(windows, spread)
    naive_quantiles = np.maximum(naive_quantiles, panel.lower_bound())
    scale = scales[naive.season][windows.series]
    median = quantiles[..., MEDIAN]
    return Evaluation(
        windows=windows,
        quantiles=quantiles,
        naive_point=naive_point,
        season=naive.season,
        model=compute_metrics(windows.actual, median, quantiles, levels, scale, INTERVAL),
        naive=compute_metrics(
            windows.actual, naive_point, naive_quantiles, levels, scale, INTERVAL
        ),
    )


def _in_order(forecasts: WindowForecasts, windows: Windows) -> np.ndarray:
    """Return the quantiles in the order of `windows`."""
    keys = zip(forecasts.series.tolist(), forecasts.origins.tolist(), strict=True)
    row = {key: k for k, key in enumerate(keys)}
    window_keys = zip(windows.series.tolist(), windows.origins.tolist(), strict=True)
    return forecasts.quantiles[[row[key] for key in window_keys]]
