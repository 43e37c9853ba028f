"""The common season: what all series of a short table owe to the month of the year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from ...panel.panel import Panel
from ...times.time_axis import TimeAxis
from .base import CalendarEffect, is_nonnegative, learned_values

_YEAR = 12
_MIN_SERIES = 10
_MIN_SEEN = 5  # series with a value at a step, whose median is taken
_MIN_OBSERVED = 0.75  # of the year around a value
_MIN_YEARS = 3  # of which the middle ones have a complete year around them
_MAX_YEARS = 6  # of a typical series
_MIN_SHRINKAGE = 0.75  # a season of which more may be chance is not used
_MIN_SHARE = 0.05  # of the variance of a typical series; a smaller season hardly matters
_MOST_SERIES = 1000  # that tell the season; more would take long and tell little
_LEAST, _MOST = 0.05, 12.0  # factors; of twelve months of which eleven are empty, one is 12
_MONTHS = pd.date_range("2024-01-01", periods=_YEAR, freq="MS").month_name().tolist()


@dataclass(frozen=True)
class CommonSeason(CalendarEffect):
    r"""The season that the series of a monthly table have in common.

    Attributes
    ----------
    follows : numpy.ndarray
        (S,): whether each series has the season.
    changes : numpy.ndarray
        (12,): the factor of each month of the year, less 1.
    """

    changes: np.ndarray

    @property
    def is_possible(self) -> bool:
        """Whether there are twelve factors of a size that `fit` can find."""
        changes = self.changes
        return (
            changes.shape == (_YEAR,)
            and changes.dtype.kind == "f"
            and bool(((changes >= _LEAST - 1) & (changes <= _MOST)).all())
        )

    @classmethod
    def fit(cls, panel: Panel, held_out: int = 0) -> CommonSeason | None:
        r"""Estimate the season, the same one for all series.

        Each value is compared with the mean of the year around it. The median of the relative
        differences of all series is taken for each month of the table, and their mean
        :math:`\bar d_k` over the years for each month k of the year, less that of all months. It is
        known up to :math:`s^2`, the variance of a mean over the years, so that its part that is not
        chance is estimated by shrinkage [1]_:

        .. math::
            f_k = \max\left(0.05,\ 1 + \frac{\tau^2}{\tau^2 + s^2} \bar d_k\right), \qquad
            \tau^2 = \max(0, \operatorname{var} \bar d - s^2).

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out.

        Returns
        -------
        CommonSeason or None
            None if the steps are not months, there are several targets, which may have a season
            each, fewer than ten series, or a median length, without the held-out steps, below three
            years or above six, which tell their own season. Also if more than a quarter of the
            season may be chance, or it is less than a twentieth of the variance of the median
            series around the mean of a year.

        References
        ----------
        .. [1] D. M. Miller and D. Williams, "Shrinkage estimators of time series seasonal factors
           and their effect on forecasting accuracy", International Journal of Forecasting 19, 2003.
        """
        if not panel.axis.is_monthly or len(panel.roles.targets) > 1:
            return None
        learned = learned_values(panel, held_out)
        typical = np.median([len(values) for values in learned])
        if len(panel) < _MIN_SERIES or not _MIN_YEARS * _YEAR <= typical <= _MAX_YEARS * _YEAR:
            return None
        first = int(panel.starts.min())
        months = _months(panel.axis, np.arange(first, panel.ends.max()))
        differences = _lay_out(learned, panel.starts - first, len(months))
        mean, variance = _means_and_variance(_medians(differences), months)
        spread = float(mean.var())
        shrinkage = max(0.0, spread - variance) / spread if spread > 0 else 0.0
        if shrinkage < _MIN_SHRINKAGE or spread < _MIN_SHARE * _typical_variance(differences):
            return None
        changes = np.maximum(shrinkage * (mean - mean.mean()), _LEAST - 1)
        effect = cls(np.empty(0, dtype=bool), changes)
        effect = replace(effect, follows=effect.measure(panel, learned))
        return effect if effect.follows.any() else None

    def at(self, axis: TimeAxis, positions: np.ndarray) -> np.ndarray:
        """Return the factors at positions (N,) of an axis."""
        return 1 + self.changes[_months(axis, positions)]

    def is_in(self, values: np.ndarray, factors: np.ndarray) -> bool | None:
        """Whether a series, (T,), does not vary clearly more without the factors, (T,)."""
        before, after = _differences(values), _differences(values / factors)
        observed = np.isfinite(before) & np.isfinite(after)
        count = int(observed.sum())
        if count < _YEAR:
            return None
        return bool(after[observed].var() <= (1 + np.sqrt(2 / count)) * before[observed].var())

    def to_table(self) -> pd.DataFrame:
        """Return the effect of each month of the year."""
        names = [f"{month}, in the common season" for month in _MONTHS]
        return pd.DataFrame({"effect": names, "change": self.changes})


def _months(axis: TimeAxis, positions: np.ndarray) -> np.ndarray:
    """Return the months of the year at some positions, from 0."""
    return axis.at(positions).to_numpy().astype("datetime64[M]").astype(int) % _YEAR


def _differences(values: np.ndarray) -> np.ndarray:
    """Return values divided by the mean of the year around them, less 1; NaN at both ends."""
    around = np.full(len(values), np.nan)
    if len(values) > _YEAR:
        windows = sliding_window_view(values, _YEAR + 1)
        weights = np.ones(_YEAR + 1) / _YEAR
        weights[[0, -1]] /= 2
        observed = np.isfinite(windows) @ weights
        sums = np.where(np.isfinite(windows), windows, 0.0) @ weights
        enough = (observed >= _MIN_OBSERVED) & (sums > 0)
        around[_YEAR // 2 : -(_YEAR // 2)][enough] = sums[enough] / observed[enough]
    return values / around - 1


def _lay_out(learned: Sequence[np.ndarray], begins: np.ndarray, length: int) -> np.ndarray:
    """Return the differences of series at each step, (series, length), NaN where there is none.

    Of many series without a negative value, a random part is used.
    """
    possible = np.flatnonzero([is_nonnegative(values) for values in learned])
    if len(possible) > _MOST_SERIES:
        possible = np.random.default_rng(0).choice(possible, _MOST_SERIES, replace=False)
    differences = np.full((len(possible), length), np.nan)
    for row, number in zip(differences, possible.tolist(), strict=True):
        values = learned[number]
        row[begins[number] : begins[number] + len(values)] = _differences(values)
    return differences


def _medians(differences: np.ndarray) -> np.ndarray:
    """Return the medians of all series, (length,), NaN where fewer than five have a value."""
    seen = np.isfinite(differences).sum(axis=0) >= _MIN_SEEN
    medians = np.full(differences.shape[1], np.nan)
    medians[seen] = np.nanmedian(differences[:, seen], axis=0)
    return medians


def _typical_variance(differences: np.ndarray) -> float:
    """Return the median of the variances of the series that have several values."""
    several = differences[np.isfinite(differences).sum(axis=1) > 1]
    return float(np.median(np.nanvar(several, axis=1))) if len(several) else np.inf


def _means_and_variance(of_month: np.ndarray, months: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean of each month of the year over the years, and the variance of such a mean.

    The variance is infinite if a month of the year occurs less than twice.
    """
    seen = np.isfinite(of_month)
    values, months = of_month[seen], months[seen]
    counts = np.bincount(months, minlength=_YEAR)
    if counts.min() < 2:
        return np.zeros(_YEAR), np.inf
    means = np.bincount(months, weights=values, minlength=_YEAR) / counts
    squares = np.bincount(months, weights=(values - means[months]) ** 2, minlength=_YEAR)
    return means, float((squares / (counts - 1) / counts).mean())
