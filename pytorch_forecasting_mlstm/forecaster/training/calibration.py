"""Conformal calibration: widen intervals so that they hold on held-out windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MIN_SCORES = 100  # per step; with fewer, neighboring steps are pooled
_MIN_TOTAL = 30  # scores in all; with fewer, nothing is learned
_LEAST_WIDTH = 1e-3  # of the spread of a series


@dataclass(frozen=True)
class Calibration:
    r"""Widening of quantile forecasts, learned from held-out windows.

    Conformalized quantile regression [1]_, for each pair of quantiles that lie symmetrically about
    the median: on the held-out windows, :math:`s = \max(\hat y_l - y, y - \hat y_u) / w` is how far
    the truth lies outside of the interval, in units of the mean width w of the window's widest
    interval. Moving both ends outward by w times the quantile u - l of s makes the interval hold
    that share of the truths.

    Both ends move by the same amount: the held-out windows are few periods, whose common error
    says nothing about the next one. An interval that holds more than its share over all steps is
    not narrowed, since errors on the rows that selected the epoch are smaller than those to come;
    only its width is shifted between the steps. The median stays as it is, and so do quantiles
    without a counterpart.

    Attributes
    ----------
    shift : numpy.ndarray
        (h, Q): what is added to each quantile, in units of the width, per step of the horizon.

    References
    ----------
    .. [1] Y. Romano, E. Patterson and E. Candès, "Conformalized Quantile Regression",
       arXiv:1905.03222.
    """

    shift: np.ndarray

    @classmethod
    def none(cls, horizon: int, levels: np.ndarray) -> Calibration:
        """Return a calibration that changes nothing."""
        return cls(np.zeros((horizon, len(levels))))

    @classmethod
    def fit(cls, actual: np.ndarray, quantiles: np.ndarray, levels: np.ndarray) -> Calibration:
        """Learn how much to widen.

        Parameters
        ----------
        actual : numpy.ndarray
            (W, h): truth, NaN where it is missing.
        quantiles : numpy.ndarray
            (W, h, Q): forecasts, in units of the series' spread, not decreasing along Q.
        levels : numpy.ndarray
            (Q,): their levels, ascending.
        """
        observed = np.isfinite(actual)
        shift = np.zeros((actual.shape[1], len(levels)))
        if observed.sum() < _MIN_TOTAL:
            return cls(shift)
        width = _width(quantiles)[..., 0]
        for low, high in _symmetric_pairs(levels):
            outside = (
                np.maximum(quantiles[..., low] - actual, actual - quantiles[..., high]) / width
            )
            for first, last in _step_ranges(observed.sum(axis=0)):
                scores = outside[:, first:last][observed[:, first:last]]
                widening = max(0.0, _conformal_quantile(scores, levels[high] - levels[low]))
                shift[first:last, low], shift[first:last, high] = -widening, widening
        return cls(shift)

    def apply(self, quantiles: np.ndarray) -> np.ndarray:
        """Widen forecasts (W, h', Q), scaled as those that this was learned from, and sort them.

        Steps beyond the horizon are widened as its last step.
        """
        steps = np.minimum(np.arange(quantiles.shape[1]), len(self.shift) - 1)
        return np.sort(quantiles + self.shift[steps] * _width(quantiles), axis=-1)


def _symmetric_pairs(levels: np.ndarray) -> list[tuple[int, int]]:
    return [
        (low, high)
        for low in range(len(levels))
        for high in range(low + 1, len(levels))
        if abs(levels[low] + levels[high] - 1) < 1e-9
    ]


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
    """Return the quantile of scores below which a new one lies with probability `level`."""
    n = len(scores)
    rank = int(np.ceil((n + 1) * level - 1e-9))
    return float(np.sort(scores)[min(rank, n) - 1])
