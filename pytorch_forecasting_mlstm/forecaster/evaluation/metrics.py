"""Metrics of forecasts, independent of the model's own.

Shapes: W windows, h horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import mean_absolute_error, mean_pinball_loss


@dataclass(frozen=True)
class Metrics:
    """Metrics over all windows and steps: `mae` and `pinball` in the unit of the target."""

    mae: float
    mase: float
    pinball: float
    coverage: float


def compute_metrics(
    actual: np.ndarray,
    median: np.ndarray,
    quantiles: np.ndarray,
    levels: np.ndarray,
    scale: np.ndarray,
    interval: tuple[float, float],
) -> Metrics:
    r"""Compute MAE, MASE, pinball loss and coverage.

    Parameters
    ----------
    actual, median : numpy.ndarray
        (W, h): true values and point forecasts.
    quantiles : numpy.ndarray
        (W, h, Q): quantile forecasts.
    levels : numpy.ndarray
        (Q,): levels of the quantiles, between 0 and 1.
    scale : numpy.ndarray
        (W,): what MASE divides by, from `seasonal_scale`.
    interval : tuple of float
        Two of the levels: `coverage` is the share of `actual` between these quantiles, bounds
        included.

    Returns
    -------
    Metrics
        The pinball loss is the mean of :math:`\max(q (y - \hat y_q), (q - 1)(y - \hat y_q))`. MAE
        and pinball loss are NaN if a forecast is not finite.
    """
    low, high = (quantiles[..., list(levels).index(level)] for level in interval)
    pinball = [
        _mean_error(mean_pinball_loss, actual, quantiles[..., k], alpha=level)
        for k, level in enumerate(levels)
    ]
    return Metrics(
        mae=_mean_error(mean_absolute_error, actual, median),
        mase=mean_absolute_scaled_error(actual, median, scale),
        pinball=float(np.mean(pinball)),
        coverage=float(((low <= actual) & (actual <= high)).mean()),
    )


def seasonal_scale(values: np.ndarray, season: int) -> float:
    r"""Return the mean of :math:`|y_t - y_{t-m}|`, which MASE divides by.

    Parameters
    ----------
    values : numpy.ndarray
        (N,): the training part of one series; pairs with a NaN are left out.
    season : int
        :math:`m`, in steps; 1 is used if the series is not longer than it.

    Returns
    -------
    float
        NaN for a series that repeats exactly, or that has no two values a season apart.

    Examples
    --------
    >>> seasonal_scale(np.array([1.0, 5.0, 2.0, 7.0]), season=2)
    1.5
    """
    season = season if len(values) > season else 1
    changes = np.abs(values[season:] - values[:-season])
    changes = changes[~np.isnan(changes)]
    scale = float(changes.mean()) if changes.size else np.nan
    return scale if scale > 0 else np.nan


def mean_absolute_scaled_error(actual: np.ndarray, median: np.ndarray, scale: np.ndarray) -> float:
    """Divide the mean absolute error of each window by its scale (Hyndman and Koehler, 2006).

    Parameters
    ----------
    actual, median : numpy.ndarray
        (W, h).
    scale : numpy.ndarray
        (W,), from `seasonal_scale`; windows with NaN are left out.

    Returns
    -------
    float
        Mean over the windows; NaN if none is left.

    Examples
    --------
    >>> actual, median = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0, 4.0], [3.0, 4.0]])
    >>> mean_absolute_scaled_error(actual, median, np.array([0.5, np.nan]))
    3.0
    """
    scaled = np.abs(actual - median).mean(axis=1) / scale
    return float(np.nanmean(scaled)) if np.isfinite(scaled).any() else np.nan


def _mean_error(
    metric: Callable[..., float], actual: np.ndarray, forecast: np.ndarray, **options: float
) -> float:
    """Compute a metric of scikit-learn, which raises an error for forecasts that are not finite."""
    return float(metric(actual, forecast, **options)) if np.isfinite(forecast).all() else np.nan
