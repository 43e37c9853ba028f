"""The quantile loss, which chooses between forecasts and evaluates them."""

from __future__ import annotations

import numpy as np

__all__ = ["quantile_loss"]


def quantile_loss(error: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    r"""Compute :math:`\max(q e, (q - 1) e)`, also known as the pinball loss.

    Parameters
    ----------
    error : numpy.ndarray
        What happened minus the forecast of a quantile, of any shape; NaN stays NaN.
    level : float or numpy.ndarray
        Level of the quantile, from 0 to 1, or levels that broadcast to ``error``.

    Returns
    -------
    numpy.ndarray
        Losses in the unit of ``error``.

    Examples
    --------
    >>> quantile_loss(np.array([2.0, -2.0]), 0.9)
    array([1.8, 0.2])
    """
    return np.maximum(level * error, (level - 1) * error)
