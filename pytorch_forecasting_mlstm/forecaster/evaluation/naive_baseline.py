"""The seasonal naive forecast of one series, with the spread of its own errors.

A forecast of step j repeats the last known value at the same position of the season. Its error
depends on j only through the number of seasons that it looks back, ceil(j / season), and is the
difference of the series and a shifted copy of itself: no window is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MAX_ERRORS = 10_000  # the latest ones, for each step
_MIN_ERRORS = 10  # with fewer, a step takes the errors of all steps


def naive_forecast(
    history: np.ndarray, horizon: int, seasons: Sequence[int], levels: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the last season, with quantiles from the errors that this makes in the history.

    Parameters
    ----------
    history : numpy.ndarray
        (N,): values before the forecast, oldest first. Missing ones are NaN: the last known value
        at the same position of the season takes their place.
    horizon : int
        h: steps to forecast.
    seasons : sequence of int
        Candidates, in steps; `choose_season` chooses one on `history` alone.
    levels : sequence of float
        (Q,): levels of the quantiles, between 0 and 1.

    Returns
    -------
    point : numpy.ndarray
        (h,): the forecast; NaN if the history has no value.
    quantiles : numpy.ndarray
        (h, Q): the forecast plus quantiles of the errors at the same step. A step with fewer than
        10 errors takes those of all steps; NaN if there are none.

    Examples
    --------
    >>> history = np.array([1.0, 5.0, 2.0, 6.0, np.nan, 7.0])
    >>> point, quantiles = naive_forecast(history, 3, seasons=[2], levels=[0.5])
    >>> point.tolist(), quantiles.ravel().tolist()
    ([2.0, 7.0, 2.0], [3.0, 8.0, 3.0])
    """
    history = np.asarray(history, dtype=float)
    season = choose_season(history, horizon, seasons)
    known = _last_known(history, season)
    back = _seasons_back(season, horizon)
    positions = len(history) + np.arange(horizon) - season * back
    point = np.full(horizon, np.nan)
    point[positions >= 0] = known[positions[positions >= 0]]
    observed = history[~np.isnan(history)]
    if observed.size:  # a position of the season without any value
        point[np.isnan(point)] = observed[-1]
    errors = _errors(history, known, season, back, max(0, len(history) - _MAX_ERRORS))
    return point, point[:, None] + _spread(errors, np.asarray(levels, dtype=float))


def choose_season(history: np.ndarray, horizon: int, seasons: Sequence[int]) -> int:
    """Choose the season with the lowest mean absolute error over all steps of the horizon.

    All candidates are compared on the same values, those that the longest of them can forecast. A
    candidate is left out if this would leave fewer than ten.

    Parameters
    ----------
    history : numpy.ndarray
        (N,): values before the forecast, oldest first, with NaN for missing ones.
    horizon : int
        Steps to forecast.
    seasons : sequence of int
        Candidates, in steps. The first of equally good ones is taken.

    Returns
    -------
    int
        The season; 1, which repeats the last value, if no candidate can be measured. A single
        candidate is not measured, but must fit into the history.

    Examples
    --------
    >>> choose_season(np.tile([1.0, 5.0, 2.0], 20), horizon=4, seasons=[7, 3, 1])
    3
    """
    history = np.asarray(history, dtype=float)
    observed = np.append(0, np.cumsum(~np.isnan(history)))
    starts = {season: season * -(-horizon // season) for season in seasons}
    usable = [
        season
        for season, start in starts.items()
        if start < len(history) and observed[-1] - observed[start] >= _MIN_ERRORS
    ]
    if len(seasons) == 1 and len(history) >= seasons[0]:
        return seasons[0]
    if len(usable) <= 1:
        return usable[0] if usable else 1
    first = max(max(starts[season] for season in usable), len(history) - _MAX_ERRORS)
    scores = {}
    for season in usable:
        known, back = _last_known(history, season), _seasons_back(season, horizon)
        errors = np.abs(_errors(history, known, season, back, first))
        measured = ~np.isnan(errors)
        scores[season] = errors[measured].mean() if measured.any() else np.inf
    return min(scores, key=scores.__getitem__)


def _seasons_back(season: int, horizon: int) -> np.ndarray:
    """Return how many seasons the forecast of each step looks back, (h,)."""
    return np.arange(horizon) // season + 1


def _last_known(history: np.ndarray, season: int) -> np.ndarray:
    """Replace each NaN by the last known value at the same position of the season."""
    rows = -(-len(history) // season)
    padded = np.full(rows * season, np.nan)
    padded[: len(history)] = history
    table = padded.reshape(rows, season)
    source = np.where(np.isnan(table), 0, np.arange(rows)[:, None])
    np.maximum.accumulate(source, axis=0, out=source)
    return np.take_along_axis(table, source, axis=0).ravel()[: len(history)]


def _errors(
    history: np.ndarray, known: np.ndarray, season: int, back: np.ndarray, first: int
) -> np.ndarray:
    """Return the errors at each step from the value `first` on, (N - first, h), with NaN."""
    shifted = np.full((len(history) - first, back[-1]), np.nan)
    for k in range(1, back[-1] + 1):
        begin = max(first, k * season)
        if begin < len(history):
            ahead = history[begin:] - known[begin - k * season : len(history) - k * season]
            shifted[begin - first :, k - 1] = ahead
    return shifted[:, back - 1]


def _spread(errors: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return quantiles of the errors at each step, (h, Q), as `numpy.quantile` defines them."""
    pooled = errors[~np.isnan(errors)]
    if not pooled.size:
        return np.full((errors.shape[1], len(levels)), np.nan)
    counts = (~np.isnan(errors)).sum(axis=0)
    ordered = np.sort(errors, axis=0)  # NaN last
    ranks = levels * np.maximum(counts - 1, 0)[:, None]
    low = np.floor(ranks).astype(int)
    high = np.minimum(low + 1, np.maximum(counts - 1, 0)[:, None])
    steps = np.arange(errors.shape[1])[:, None]
    below, above = ordered[low, steps], ordered[high, steps]
    spread = below + (above - below) * (ranks - low)
    return np.where(counts[:, None] < _MIN_ERRORS, np.quantile(pooled, levels), spread)
