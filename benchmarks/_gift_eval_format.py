"""Results in the format of the GIFT-Eval leaderboard, its `all_results.csv`.

The metrics are those of GluonTS 0.15, over all series, windows and steps. Where they need what is
not forecast, the rules of its `QuantileForecast` hold, as for the other entries that forecast the
quantiles 0.1 to 0.9:

- The mean is the median.
- MSIS takes the quantiles 0.025 and 0.975 from tails that decay exponentially, through the two
  outermost quantiles of each side.

A ratio whose denominator is zero is left out of its mean: MASE and MSIS of a series whose past
repeats exactly, MAPE of a truth of zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from _forecast_scores import LEVELS, weighted_quantile_loss

PROPERTIES = {  # the domain and the number of variates
    "ett1": ("Energy", 7),
    "hospital": ("Healthcare", 1),
    "saugeen": ("Nature", 1),
    "us_births": ("Healthcare", 1),
}
ALPHA = 0.05  # of MSIS: the share that its interval leaves out


def leaderboard_metrics(
    actual: np.ndarray, quantiles: np.ndarray, scale: np.ndarray
) -> dict[str, float]:
    """Compute the metrics of the leaderboard.

    Parameters
    ----------
    actual : numpy.ndarray of shape (values,)
        The truth.
    quantiles : numpy.ndarray of shape (values, levels)
        A forecast for each of `LEVELS`.
    scale : numpy.ndarray of shape (values,)
        The mean change over a season, before the window of each value.

    Returns
    -------
    dict
        The value of each metric, in the order of the leaderboard's columns.
    """
    median = quantiles[:, LEVELS.index(0.5)]
    errors = np.abs(actual - median)
    sizes = np.abs(actual)
    mse = float(np.mean(errors**2))
    return {
        "MSE[mean]": mse,
        "MSE[0.5]": mse,
        "MAE[0.5]": float(errors.mean()),
        "MASE[0.5]": mean_ratio(errors, scale),
        "MAPE[0.5]": mean_ratio(errors, sizes),
        "sMAPE[0.5]": mean_ratio(2 * errors, sizes + np.abs(median)),
        "MSIS": mean_ratio(interval_scores(actual, *interval(quantiles)), scale),
        "RMSE[mean]": math.sqrt(mse),
        "NRMSE[mean]": math.sqrt(mse) / float(sizes.mean()),
        "ND[0.5]": float(errors.sum() / sizes.sum()),
        "mean_weighted_sum_quantile_loss": weighted_quantile_loss(actual, quantiles),
    }


def mean_ratio(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """Return the mean ratio where the denominator is positive, or NaN if it never is."""
    known = denominators > 0
    return float((numerators[known] / denominators[known]).mean()) if known.any() else math.nan


def interval(quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolate the quantiles ``ALPHA / 2`` and ``1 - ALPHA / 2``."""
    lower = extrapolate(quantiles[:, 1], quantiles[:, 0], LEVELS[1], LEVELS[0])
    upper = extrapolate(quantiles[:, -2], quantiles[:, -1], 1 - LEVELS[-2], 1 - LEVELS[-1])
    return lower, upper


def extrapolate(
    inner: np.ndarray, outer: np.ndarray, beyond_inner: float, beyond_outer: float
) -> np.ndarray:
    """Find the quantile with a probability of ``ALPHA / 2`` beyond it, on one side.

    On a tail that decays exponentially, quantiles are linear in the logarithm of the probability
    beyond them.
    """
    steps = math.log(beyond_inner / (ALPHA / 2)) / math.log(beyond_inner / beyond_outer)
    return inner + steps * (outer - inner)


def interval_scores(actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the width of each interval, plus ``2 / ALPHA`` times the distance of its miss."""
    misses = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    return upper - lower + 2 / ALPHA * misses


def dataset_name(key: str, frequency: str) -> str:
    """Return the leaderboard's name of a task: "ett1_H/short" is "ett1/H/short"."""
    stem, _, term = key.partition("/")
    return f"{stem.removesuffix(f'_{frequency}')}/{frequency}/{term}"


def write_leaderboard(
    results: Sequence[tuple[str, dict[str, float]]], model: str, file: Path
) -> None:
    """Write the mean metrics of each data set.

    Parameters
    ----------
    results : sequence of tuple
        The leaderboard's name of a data set, and the metrics of one seed.
    model : str
        The name of the model.
    file : pathlib.Path
        A CSV file, which is overwritten. The domain and the number of variates of data sets that
        are not in `PROPERTIES` are empty.
    """
    names, metrics = zip(*results, strict=True)
    table = pd.DataFrame(list(metrics)).add_prefix("eval_metrics/")
    means = table.groupby(pd.Index(names, name="dataset"), sort=False).mean()
    properties = [PROPERTIES.get(name.partition("/")[0], ("", "")) for name in means.index]
    means.insert(0, "model", model)
    means["domain"] = [domain for domain, _ in properties]
    means["num_variates"] = [variates for _, variates in properties]
    means.to_csv(file)
