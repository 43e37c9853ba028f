"""Quantiles at levels that were not learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..forecaster import InputError
from ..models.base.forecast.sampling import sample_quantiles

_SAME_LEVEL = 1e-9  # (1 - 0.9) / 2 is not exactly 0.05


def unlearned(levels: Sequence[float], learned: Sequence[float]) -> list[float]:
    """Return the levels that are not among the learned ones.

    Examples
    --------
    >>> unlearned([(1 - 0.9) / 2, 0.3], (0.05, 0.5, 0.95))
    [0.3]
    """
    return [level for level in levels if _nearest(level, learned)[1] > _SAME_LEVEL]


def quantiles_at(
    levels: Sequence[float], values: np.ndarray, learned: Sequence[float], minimum: float
) -> np.ndarray:
    """Return quantiles at any levels: learned ones as they are, others between and beyond them.

    Between two learned levels, the quantiles are interpolated linearly. Beyond the outermost, they
    go on with exponential tails, as those of forecasts beyond the trained horizon do.

    Parameters
    ----------
    levels : sequence of float
        Levels to return.
    values : numpy.ndarray
        (rows, Q): the learned quantiles, not decreasing along Q.
    learned : sequence of float
        Their Q levels, increasing.
    minimum : float
        No quantile is lower.

    Returns
    -------
    numpy.ndarray
        (rows, len(levels)).

    Raises
    ------
    InputError
        If only one level was learned.

    Examples
    --------
    >>> quantiles_at([0.25, 0.5], np.array([[1.0, 3.0]]), [0.25, 0.75], 0.0)
    array([[1., 2.]])
    """
    columns = []
    for level in levels:
        place, distance = _nearest(level, learned)
        if distance <= _SAME_LEVEL:
            columns.append(values[:, place])
        elif len(learned) == 1:
            raise InputError(
                f"MLSTMForecaster: quantiles must hold two levels at least to forecast that of "
                f"{level:g}, got {learned[0]:g} alone: name {level:g}, too"
            )
        else:
            known = torch.from_numpy(np.ascontiguousarray(values))[None]
            at = torch.full(known.shape[:2], level, dtype=known.dtype)
            columns.append(sample_quantiles(known, list(learned), at)[0].numpy())
    return np.maximum(np.stack(columns, -1), minimum)


def _nearest(level: float, learned: Sequence[float]) -> tuple[int, float]:
    distances = np.abs(np.asarray(learned) - level)
    place = int(distances.argmin())
    return place, float(distances[place])
