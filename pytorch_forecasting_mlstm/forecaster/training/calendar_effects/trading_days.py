"""Trading days: what a monthly sum owes to the number of days and weekends of its month."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...panel.panel import Panel
from ...times.time_axis import TimeAxis
from .base import CalendarEffect, learned_values, mean_of

_YEAR = 12
_DAYS = 365.25 / 12
_WEEKEND_SHARE = 2 / 7
_MIN_T = 3.0  # of the effect, or there is none
_MIN_MONTHS = 24  # with a change that tells something about it
_CLEARLY_WORSE = 1.05  # times the variance of a series' changes
_RESOLUTION = 1e-9  # smaller changes, relative to the mean, are rounding errors


@dataclass(frozen=True)
class TradingDays(CalendarEffect):
    r"""The effect of trading days on monthly sums.

    A month with D days, of which a share s are Saturdays and Sundays, multiplies a series by

    .. math:: f = \frac{D}{365.25 / 12} \exp(\beta (s - 2/7)).

    Sales that rest on weekends have a :math:`\beta` below 0. Means, such as a temperature, do not
    have such an effect at all.

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
        level, trend and season. Those of all series, each divided by its standard deviation, are
        regressed on those of s and of log D, of which only leap years tell anything. Series share
        the shocks of a month, so the t value of s is that of clusters, one for each month.

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out. A series that is not longer counts as a
            whole.

        Returns
        -------
        TradingDays or None
            None if the steps are not months, or the t value lies below 3.
        """
        if not panel.axis.is_monthly:
            return None
        parts = learned_values(panel, held_out)
        first = int(panel.starts.min())
        days, share = _months(panel.axis, np.arange(first, panel.ends.max()))
        known = np.stack([share, np.log(days)], axis=-1)
        months, inputs, changes = [], [], []
        for begin, values in zip(panel.starts - first, parts, strict=True):
            mean = mean_of(values)
            if mean <= 0:
                continue
            change = _changes(values / mean)
            observed = np.isfinite(change)
            spread = np.sqrt(_variance(change))
            if spread > _RESOLUTION:
                inputs.append(_changes(known[begin : begin + len(values)])[observed] / spread)
                months.append(begin + np.flatnonzero(observed))
                changes.append(change[observed] / spread)
        if not months:
            return None
        month, X, y = (np.concatenate(part) for part in (months, inputs, changes))
        number, cluster = np.unique(month, return_inverse=True)
        if len(number) < _MIN_MONTHS:
            return None
        inverse = np.linalg.pinv(X.T @ X)
        coefficients = inverse @ (X.T @ y)
        scores = np.zeros((len(number), 2))
        np.add.at(scores, cluster, X * (y - X @ coefficients)[:, None])
        weekend, error = float(coefficients[0]), np.linalg.norm(scores @ inverse[0])
        if abs(weekend) < _MIN_T * error:
            return None
        effect = cls(np.empty(0, dtype=bool), weekend)
        return replace(effect, follows=effect.measure(panel, parts))

    def at(self, axis: TimeAxis, positions: np.ndarray) -> np.ndarray:
        """Return f at positions (N,) of an axis."""
        days, share = _months(axis, positions)
        return days / _DAYS * np.exp(self.weekend * (share - _WEEKEND_SHARE))

    def is_in(self, values: np.ndarray, factors: np.ndarray) -> bool:
        """Whether a series, (T,), does not vary clearly more without the factors, (T,).

        Some series of a table may be sums, and others means.
        """
        relative = values / mean_of(values)
        limit = _CLEARLY_WORSE * _variance(_changes(relative))
        return _variance(_changes(relative / factors)) <= limit


def _months(axis: TimeAxis, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of days of the months at some positions, and the share of weekends."""
    month = axis.at(positions).to_numpy().astype("datetime64[M]")
    first, last = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]")
    days = (last - first).astype(int)
    return days, 1 - np.busday_count(first, last) / days


def _changes(values: np.ndarray) -> np.ndarray:
    """Return the differences over a year, differenced once more: 13 fewer, or none."""
    return np.diff(values[_YEAR:] - values[:-_YEAR], axis=0)


def _variance(values: np.ndarray) -> float:
    observed = values[np.isfinite(values)]
    return float(observed.var()) if len(observed) else 0.0
