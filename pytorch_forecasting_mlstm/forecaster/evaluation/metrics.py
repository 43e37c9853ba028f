"""The error of the seasonal naive forecast, which scales other errors."""

from __future__ import annotations

import numpy as np


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
