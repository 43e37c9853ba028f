"""Trading days: what a monthly sum owes to the number of days and weekends of its month."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...panel.panel import Panel
from ...times.time_axis import TimeAxis
from .base import CalendarEffect, is_nonnegative, learned_values, mean_of

_YEAR = 12
_MEAN_DAYS = 365.25 / 12
_WEEKEND_SHARE = 2 / 7
_MIN_T = 3.0  # a smaller effect may be chance
_MAX_EFFECT = 3.0  # weekends without any sales have one of -1.4
_MIN_MONTHS = 18  # with a change that reveals something about it
_MIN_CHANGES = 12  # of a series that is judged by itself
_LAGS = (1, _YEAR - 1, _YEAR, _YEAR + 1)  # of the autocorrelation that differencing causes
_RESOLUTION = 1e-9  # smaller changes, relative to the mean, are rounding errors


@dataclass(frozen=True)
class TradingDays(CalendarEffect):
    r"""The effect of trading days on monthly sums.

    A month with D days, of which a share s are Saturdays and Sundays, multiplies a series by

    .. math:: f = \frac{D}{365.25 / 12} \exp(\beta (s - 2/7)).

    Sales that rest on weekends have a :math:`\beta` below 0. Means, such as a temperature, have no
    such effect.

    Attributes
    ----------
    follows : numpy.ndarray
        (S,): whether each series has the effect.
    weekend : float
        :math:`\beta`.
    """

    weekend: float

    @classmethod
    def fit(cls, panel: Panel, held_out: int = 0) -> TradingDays | None:
        r"""Estimate the effect, the same one for all series.

        Differences over a year of values relative to the mean, differenced once more, are free of
        level, trend and season. Those of all series are regressed on those of s and of log D, of
        which only leap years reveal anything. Each series is divided by its standard deviation, or
        by the median one if that is larger, so that a few smooth series do not decide alone. Series
        that do not have the effect are left out of a second regression. Series share the shocks of
        a month, and differences are autocorrelated, so the t value is that of monthly clusters with
        these lags.

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out.

        Returns
        -------
        TradingDays or None
            None if the steps are not months, there are fewer than 18 months with a change, or the t
            value lies below 3.
        """
        if not panel.axis.is_monthly:
            return None
        learned = learned_values(panel, held_out)
        first = int(panel.starts.min())
        days, share = _days_and_weekends(panel.axis, np.arange(first, panel.ends.max()))
        regressors = np.stack([share, np.log(days)], axis=-1)
        series = [
            _Changes.of(values, begin, regressors)
            for begin, values in zip(panel.starts - first, learned, strict=True)
        ]
        chosen = [True] * len(series)
        effect: TradingDays | None = None
        for _ in range(2):
            kept = [
                one
                for one, is_chosen in zip(series, chosen, strict=True)
                if one is not None and is_chosen
            ]
            found = _regress(kept)
            if found is None or abs(found[0]) > _MAX_EFFECT:
                return None
            weekend, t = found
            effect = cls(np.empty(0, dtype=bool), weekend)
            effect = replace(effect, follows=effect.measure(panel, learned))
            chosen = effect.follows.tolist()
        return effect if abs(t) >= _MIN_T and any(chosen) else None

    def at(self, axis: TimeAxis, positions: np.ndarray) -> np.ndarray:
        """Return f at positions (N,) of an axis."""
        days, share = _days_and_weekends(axis, positions)
        return days / _MEAN_DAYS * np.exp(self.weekend * (share - _WEEKEND_SHARE))

    def is_in(self, values: np.ndarray, factors: np.ndarray) -> bool | None:
        """Whether a series, (T,), does not vary clearly more without the factors, (T,).

        Some series of a table may be sums, and others means.
        """
        mean = mean_of(values)
        if mean <= 0:
            return None
        before, count = _variance(_changes(values / mean))
        after, _ = _variance(_changes(values / mean / factors))
        if count < _MIN_CHANGES:
            return None
        return after <= (1 + np.sqrt(2 / count)) * before

    def to_table(self) -> pd.DataFrame:
        """Return the effect of one more day at weekends."""
        name = "one more day at weekends in a month"
        change = float(np.expm1(self.weekend / _MEAN_DAYS))
        return pd.DataFrame({"effect": [name], "change": [change]})


class _Changes(NamedTuple):
    """Changes of one series.

    Attributes
    ----------
    months : numpy.ndarray
        (n,): their months.
    X, y : numpy.ndarray
        (n, 2) and (n,): those of the regressors, and of the series relative to its mean.
    spread : float
        Their standard deviation.
    """

    months: np.ndarray
    X: np.ndarray
    y: np.ndarray
    spread: float

    @classmethod
    def of(cls, values: np.ndarray, begin: int, regressors: np.ndarray) -> _Changes | None:
        """Return those of values that begin at a month; None if there are none to learn from."""
        mean = mean_of(values)
        if mean <= 0 or not is_nonnegative(values):
            return None
        y = _changes(values / mean)
        observed = np.flatnonzero(np.isfinite(y))
        spread = np.sqrt(_variance(y)[0])
        if spread <= _RESOLUTION:
            return None
        X = _changes(regressors[begin : begin + len(values)])
        return cls(begin + observed, X[observed], y[observed], spread)


def _regress(series: list[_Changes]) -> tuple[float, float] | None:
    """Return the coefficient of the first regressor and its t value; None for too few months."""
    if not series:
        return None
    least = np.median([one.spread for one in series])
    weights = [1 / max(one.spread, least) for one in series]
    X, y = (
        np.concatenate([weight * part for weight, part in zip(weights, parts, strict=True)])
        for parts in ([one.X for one in series], [one.y for one in series])
    )
    month = np.concatenate([one.months for one in series])
    count = len(np.unique(month))
    if count < _MIN_MONTHS:
        return None
    inverse = np.linalg.pinv(X.T @ X)
    coefficients = inverse @ (X.T @ y)
    scores = X @ inverse[0] * (y - X @ coefficients)
    of_month = np.bincount(month - month.min(), weights=scores)
    variance = of_month @ of_month
    lagged = sum(of_month[lag:] @ of_month[:-lag] for lag in _LAGS)
    # Few months understate the error, by about what they have more than three.
    error = np.sqrt((variance + max(0.0, 2 * lagged)) * count / (count - 3))
    coefficient = float(coefficients[0])
    return coefficient, coefficient / float(error) if error else np.inf


def _days_and_weekends(axis: TimeAxis, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of days of the months at some positions, and the share of weekends."""
    month = axis.at(positions).to_numpy().astype("datetime64[M]")
    first, last = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]")
    days = (last - first).astype(int)
    return days, 1 - np.busday_count(first, last) / days


def _changes(values: np.ndarray) -> np.ndarray:
    """Return the differences over a year, differenced once more: 13 fewer, or none."""
    return np.diff(values[_YEAR:] - values[:-_YEAR], axis=0)


def _variance(values: np.ndarray) -> tuple[float, int]:
    """Return the variance of the observed values, and their number."""
    observed = values[np.isfinite(values)]
    return (float(observed.var()) if len(observed) else 0.0), len(observed)
