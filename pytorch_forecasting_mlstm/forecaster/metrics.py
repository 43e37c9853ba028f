r"""Errors of forecasts, in plain NumPy: the report does not depend on the model's own metrics.

Shapes: W windows, h horizon, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Errors:
    """Errors over all windows and steps: `mae` and `pinball` in the target's unit."""

    mae: float
    mase: float
    pinball: float
    coverage: float


def mean_absolute_error(actual: np.ndarray, median: np.ndarray) -> float:
    r"""Mean of :math:`|y - \hat y|` over (W, h).

    Examples
    --------
    >>> mean_absolute_error(np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]]))
    1.5
    """
    return float(np.abs(actual - median).mean())


def seasonal_scale(values: np.ndarray, season: int) -> float:
    r"""Mean of :math:`|y_t - y_{t-m}|`: what MASE divides by.

    Parameters
    ----------
    values : numpy.ndarray
        The part of one series that was trained on.
    season : int
        :math:`m`, in steps; 1 where the series is not longer than it.

    Returns
    -------
    float
        NaN for a series that repeats itself exactly.

    Examples
    --------
    >>> seasonal_scale(np.array([1.0, 5.0, 2.0, 7.0]), season=2)
    1.5
    """
    season = season if len(values) > season else 1
    scale = float(np.abs(values[season:] - values[:-season]).mean())
    return scale if scale > 0 else np.nan


def mean_absolute_scaled_error(actual: np.ndarray, median: np.ndarray, scale: np.ndarray) -> float:
    """Mean absolute error of each window over its series' scale (Hyndman and Koehler, 2006).

    Parameters
    ----------
    actual, median : numpy.ndarray
        (W, h).
    scale : numpy.ndarray
        (W,), from `seasonal_scale`; windows where it is NaN are left out.

    Returns
    -------
    float
        NaN when no window is left.
    """
    scaled = np.abs(actual - median).mean(axis=1) / scale
    return float(np.nanmean(scaled)) if np.isfinite(scaled).any() else np.nan


def pinball_loss(actual: np.ndarray, quantiles: np.ndarray, levels: np.ndarray) -> float:
    r"""Mean of :math:`\max(q (y - \hat y_q), (q - 1)(y - \hat y_q))` over (W, h, Q).

    Parameters
    ----------
    actual : numpy.ndarray
        (W, h).
    quantiles : numpy.ndarray
        (W, h, Q).
    levels : numpy.ndarray
        (Q,): :math:`q`, between 0 and 1.

    Examples
    --------
    >>> pinball_loss(np.array([[10.0]]), np.array([[[8.0, 11.0]]]), np.array([0.25, 0.75]))
    0.375
    """
    above = actual[..., None] - quantiles
    return float(np.maximum(levels * above, (levels - 1) * above).mean())


def coverage(actual: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of `actual` that lies between `low` and `high`, these included.

    Examples
    --------
    >>> coverage(np.array([1.0, 2.0, 3.0, 4.0]), low=np.full(4, 2.0), high=np.full(4, 3.5))
    0.5
    """
    return float(((low <= actual) & (actual <= high)).mean())


def errors(
    actual: np.ndarray,
    median: np.ndarray,
    quantiles: np.ndarray,
    levels: np.ndarray,
    scale: np.ndarray,
    interval: tuple[float, float],
) -> Errors:
    """All of them: `interval` names the two levels whose coverage is wanted."""
    low, high = (quantiles[..., list(levels).index(level)] for level in interval)
    return Errors(
        mae=mean_absolute_error(actual, median),
        mase=mean_absolute_scaled_error(actual, median, scale),
        pinball=pinball_loss(actual, quantiles, levels),
        coverage=coverage(actual, low, high),
    )
