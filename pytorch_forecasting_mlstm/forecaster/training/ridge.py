"""Ridge regressions from the history to the horizon, where the training of the network starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

_PENALTIES = np.array([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])  # in units of the mean eigenvalue
_FOLDS = 4
_LONGEST = 750  # steps of a regression: the time grows with their cube, and more gained nothing
_FOLD_SHARE = 0.1  # of the longest series, and at least one horizon
_MIN_WINDOWS = 8
_MAX_VALUES = 4_000_000  # of all windows together; of more, a random part is used
_LEAST_SPREAD = 0.1  # of a window, in units of the series' spread
_NEARLY_AS_GOOD = 1.15  # times the error of the best


@dataclass(frozen=True)
class LinearStart:
    """A linear forecast, and the spread of its errors.

    Attributes
    ----------
    weights : numpy.ndarray
        (L, h): the forecast is history @ weights. Every column sums to 1, so that a constant
        history is continued, and the level and the scale of a history do not matter.
    offsets : numpy.ndarray
        (Q,): quantiles of the errors less their median, in units of the spread of a window's last
        steps.
    """

    weights: np.ndarray
    offsets: np.ndarray


class RidgeRegressions:
    r"""Ridge regressions on the windows of a panel, for several lengths of the history.

    A window is shifted by a center, and divided by its standard deviation s. The regression
    minimizes :math:`\lVert Y - XW \rVert^2 + \lambda \lVert W \rVert^2`, in closed form. Rolling
    folds at the end of the series choose :math:`\lambda`: each is forecast by a regression on the
    windows before it. The centers are the mean of the history, the mean of its last h steps, and
    its last value. As each of them is a linear map of the history, so is the forecast, and the
    regressions can be averaged into one map.

    Parameters
    ----------
    series : sequence of numpy.ndarray
        The series, in units of their spread, all of which end at the same step. NaN where a value
        is missing: the value before it takes its place.
    horizon : int
        Steps to forecast, h.
    levels : sequence of float
        Quantiles of the errors.
    """

    def __init__(self, series: Sequence[np.ndarray], horizon: int, levels: Sequence[float]) -> None:
        self.series = [_fill(values) for values in series if np.isfinite(values).any()]
        self.horizon, self.levels = horizon, np.asarray(levels)
        self._regressions: dict[int, list[tuple[float, np.ndarray]]] = {}

    def average(
        self, history: int, lengths: Sequence[int], spread_steps: int | None = None
    ) -> LinearStart | None:
        """Average the regressions on histories of several lengths that are nearly the best.

        Parameters
        ----------
        history : int
            Steps of the history, L.
        lengths : sequence of int
            Lengths to use, none of which is longer. Those above 750 steps count as 750.
        spread_steps : int, optional
            The last steps of a history whose spread is the unit of the offsets. Default: all.

        Returns
        -------
        LinearStart or None
            None if there are too few windows for any length.
        """
        found = [
            (loss, np.pad(weights, ((history - len(weights), 0), (0, 0))))
            for length in sorted({min(length, _LONGEST) for length in lengths})
            for loss, weights in self._at(length)
        ]
        if not found:
            return None
        limit = _NEARLY_AS_GOOD * min(loss for loss, _ in found)
        weights = np.mean([weights for loss, weights in found if loss <= limit], axis=0)
        unused = int(np.flatnonzero(weights.any(axis=1))[0])  # a shorter history has more windows
        X, Y, _ = self._windows(history - unused)
        errors = (Y - X @ weights[unused:]) / _spread(X[:, -(spread_steps or history) :])
        offsets = np.quantile(errors, self.levels) - np.median(errors)
        return LinearStart(weights, offsets)

    def _at(self, length: int) -> list[tuple[float, np.ndarray]]:
        """Return the error and the weights of the best regression for each center."""
        if length not in self._regressions:
            X, Y, ends = self._windows(length)
            enough = len(X) >= _MIN_WINDOWS
            self._regressions[length] = (
                [self._fit(X, Y, ends, center) for center in _centers(length, self.horizon)]
                if enough
                else []
            )
        return self._regressions[length]

    def _fit(
        self, X: np.ndarray, Y: np.ndarray, ends: np.ndarray, center: np.ndarray
    ) -> tuple[float, np.ndarray]:
        level, spread = (X @ center)[:, None], _spread(X)
        A, B = (X - level) / spread, (Y - level) / spread
        errors, count = np.zeros(len(_PENALTIES)), 0
        for first in self._fold_starts():
            before, inside = ends <= first, (ends > first) & (ends <= first + self._fold_size)
            # The first step of a window of the fold must not be one that was learned.
            inside &= ends - self.horizon >= first
            if before.sum() < _MIN_WINDOWS or not inside.any():
                continue
            for number, W in enumerate(_solve(A[before], B[before])):
                errors[number] += np.abs((A[inside] @ W - B[inside]) * spread[inside]).sum()
            count += B[inside].size
        best = int(errors.argmin()) if count else int(np.flatnonzero(_PENALTIES == 1)[0])
        W = _solve(A, B, _PENALTIES[best : best + 1])[0]
        weights = W + np.outer(center, 1 - W.sum(axis=0))
        return (errors[best] / count if count else 1.0), weights

    def _fold_starts(self) -> list[int]:
        return [-self._fold_size * (fold + 1) for fold in range(_FOLDS)]

    @property
    def _fold_size(self) -> int:
        longest = max(map(len, self.series), default=0)
        return max(self.horizon, int(_FOLD_SHARE * longest))

    def _windows(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return histories (N, length), horizons (N, h), and the ends of these, counted from 0."""
        size = length + self.horizon
        counts = np.array([max(0, len(values) - size + 1) for values in self.series], dtype=int)
        total = int(counts.sum())
        some = max(_MIN_WINDOWS, _MAX_VALUES // size)
        if total > some:  # of a table of many millions of rows, not even all numbers are listed
            chosen = np.sort(np.random.default_rng(0).choice(total, some, replace=False))
        else:
            chosen = np.arange(total)
        edges = np.concatenate([[0], np.cumsum(counts)])
        bounds = np.searchsorted(chosen, edges)
        parts, ends = [np.empty((0, size))], [np.empty(0, dtype=int)]
        for number, values in enumerate(self.series):
            rows = chosen[bounds[number] : bounds[number + 1]] - edges[number]
            if len(rows):
                parts.append(sliding_window_view(values, size)[rows])
                ends.append(rows + size - len(values))
        windows = np.concatenate(parts)
        return windows[:, :length], windows[:, length:], np.concatenate(ends)


def _fill(values: np.ndarray) -> np.ndarray:
    if np.isfinite(values).all():
        return values
    return pd.Series(values).ffill().bfill().to_numpy()


def _centers(length: int, horizon: int) -> list[np.ndarray]:
    """Return weights (length,) of the mean, of the mean of the last steps, and of the last."""
    centers = []
    for steps in dict.fromkeys((length, min(length, horizon), 1)):
        weights = np.zeros(length)
        weights[-steps:] = 1 / steps
        centers.append(weights)
    return centers


def _spread(X: np.ndarray) -> np.ndarray:
    return np.maximum(X.std(axis=1, keepdims=True), _LEAST_SPREAD)


def _solve(A: np.ndarray, B: np.ndarray, penalties: np.ndarray = _PENALTIES) -> list[np.ndarray]:
    """Solve a ridge regression for each penalty, with one decomposition."""
    values, vectors = np.linalg.eigh(A.T @ A)
    scale = max(float(values.mean()), np.finfo(float).tiny)
    projected = vectors.T @ (A.T @ B)
    values = np.maximum(values, 0)[:, None]
    return [vectors @ (projected / (values + penalty * scale)) for penalty in penalties]
