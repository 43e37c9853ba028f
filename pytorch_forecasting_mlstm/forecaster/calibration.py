"""Conformal calibration: shift quantiles so that they hold on held-out windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MIN_SCORES = 100  # per step; with fewer, neighboring steps are pooled
_MIN_TOTAL = 30  # scores in all; with fewer, nothing is learned
_LEAST_WIDTH = 1e-3  # of the spread of a series


@dataclass(frozen=True)
class Calibration:
    r"""Shifts of quantile forecasts, learned from held-out windows.

    Conformalized quantile regression (Romano et al., 2019) for single quantiles: on the held-out
    windows, :math:`s = (y - \hat y_q) / w` is how far the truth lies above the forecast of the
    quantile q, in units of the mean width w of the window's widest interval. Adding the quantile q
    of s, times w, makes the share of truths below the forecast q. The median is left as it is.

    Attributes
    ----------
    shift : numpy.ndarray
        (h, Q): in units of the width, per step of the horizon.
    """

    shift: np.ndarray

    @classmethod
    def none(cls, horizon: int, levels: np.ndarray) -> Calibration:
        """Return a calibration that changes nothing."""
        return cls(np.zeros((horizon, len(levels))))

    @classmethod
    def fit(cls, actual: np.ndarray, quantiles: np.ndarray, levels: np.ndarray) -> Calibration:
        """Learn the shifts.

        Parameters
        ----------
        actual : numpy.ndarray
            (W, h): truth, NaN where it is missing.
        quantiles : numpy.ndarray
            (W, h, Q): forecasts, in units of the series' spread, not decreasing along Q.
        levels : numpy.ndarray
            (Q,): their levels.
        """
        horizon = actual.shape[1]
        shift = np.zeros((horizon, len(levels)))
        if np.isfinite(actual).sum() < _MIN_TOTAL:
            return cls(shift)
        scores = (actual[..., None] - quantiles) / _width(quantiles)
        for first, last in _step_ranges(np.isfinite(actual).sum(axis=0)):
            block = scores[:, first:last].reshape(-1, len(levels))
            block = block[np.isfinite(block[:, 0])]
            for k, level in enumerate(levels):
                if level != 0.5:
                    shift[first:last, k] = _conformal_quantile(block[:, k], float(level))
        return cls(shift)

    def apply(self, quantiles: np.ndarray) -> np.ndarray:
        """Shift forecasts (W, h', Q), scaled as those that this was learned from, and sort them.

        Steps beyond the horizon get the shift of its last step.
        """
        steps = np.minimum(np.arange(quantiles.shape[1]), len(self.shift) - 1)
        return np.sort(quantiles + self.shift[steps] * _width(quantiles), axis=-1)


def _width(quantiles: np.ndarray) -> np.ndarray:
    """Return the mean width of each window's widest interval, (W, 1, 1)."""
    width = (quantiles[..., -1] - quantiles[..., 0]).mean(axis=1)
    return np.maximum(width, _LEAST_WIDTH)[:, None, None]


def _step_ranges(counts: np.ndarray) -> list[tuple[int, int]]:
    """Split the horizon into ranges of steps that have enough scores each."""
    ranges, first, total = [], 0, 0
    for step, count in enumerate(counts):
        total += int(count)
        if total >= _MIN_SCORES:
            ranges.append((first, step + 1))
            first, total = step + 1, 0
    if first < len(counts):  # what is left joins the last range
        start = ranges.pop()[0] if ranges else 0
        ranges.append((start, len(counts)))
    return ranges


def _conformal_quantile(scores: np.ndarray, level: float) -> float:
    """Return the quantile of scores that holds for a new one, too: outward by 1 in n."""
    n = len(scores)
    rank = np.ceil((n + 1) * level) if level > 0.5 else np.floor((n + 1) * level)
    return float(np.sort(scores)[int(np.clip(rank - 1, 0, n - 1))])
