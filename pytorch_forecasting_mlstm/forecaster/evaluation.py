"""Measure the model on the test windows, beside the seasonal naive forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .baselines import SeasonalNaive
from .metrics import Errors, errors, seasonal_scale
from .panel import Table
from .splits import Split
from .training import INTERVAL, QUANTILES
from .windows import Windows, cut_windows


@dataclass(frozen=True)
class Evaluation:
    """Test windows, both forecasts of them, and their errors.

    `quantiles` (W, h, Q) are the model's, `naive_point` (W, h) is the naive forecast.
    """

    windows: Windows
    quantiles: np.ndarray
    naive_point: np.ndarray
    season: int
    model: Errors
    naive: Errors


def evaluate(
    table: Table,
    split: Split,
    quantiles: np.ndarray,
    series: np.ndarray,
    origins: np.ndarray,
) -> Evaluation:
    """Compare the model's forecasts of the test windows with the seasonal naive ones.

    Parameters
    ----------
    table, split : Table, Split
        The series, and where the test begins.
    quantiles : numpy.ndarray
        (W, h, Q): the model's forecasts, in any order of the windows.
    series, origins : numpy.ndarray
        (W,): which window each of them is.
    """
    levels = np.array(QUANTILES)
    windows = cut_windows(table, split, split.test_origins)
    row = {key: k for k, key in enumerate(zip(series.tolist(), origins.tolist(), strict=True))}
    order = [
        row[key] for key in zip(windows.series.tolist(), windows.origins.tolist(), strict=True)
    ]
    quantiles = quantiles[order]

    trained = [values[: len(values) - (split.end - split.validation)] for values in table.values]
    seasons = [*table.axis.seasons.values(), 1]
    season_scale = {
        season: np.array([seasonal_scale(values, season) for values in trained])
        for season in seasons
    }
    spread = np.nan_to_num(season_scale[1], nan=1.0)  # of a constant series, whose errors are 0
    naive = SeasonalNaive.fit(
        cut_windows(table, split, split.validation_origins), seasons, spread, levels
    )
    naive_point, naive_quantiles = naive.predict(windows, spread)
    naive_quantiles = np.maximum(naive_quantiles, table.floor())
    scale = season_scale[naive.season][windows.series]
    median = quantiles[..., QUANTILES.index(0.5)]
    return Evaluation(
        windows=windows,
        quantiles=quantiles,
        naive_point=naive_point,
        season=naive.season,
        model=errors(windows.actual, median, quantiles, levels, scale, INTERVAL),
        naive=errors(windows.actual, naive_point, naive_quantiles, levels, scale, INTERVAL),
    )
