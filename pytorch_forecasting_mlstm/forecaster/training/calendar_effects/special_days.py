"""Special days: what daily values owe to their date, such as that of a holiday."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...panel.panel import Panel
from ...times.time_axis import TimeAxis
from .base import CalendarEffect, is_nonnegative, learned_values

_WEEKS = np.array([-21, -14, -7, 7, 14, 21])  # days with the same weekday around a day
_MIN_NEIGHBORS = 3
_SHORTEST = 365 * 2  # days, within which no date occurs three times
_MIN_DAYS = 3  # that follow a rule, or of a series that is judged by itself
_AROUND = 10  # days, whose median a special day differs from
# Of about a thousand rules, a few seem special by chance at the lower threshold, so that it holds
# only if many do. At the higher one, hardly any does.
_MIN_Z, _MANY, _MIN_Z_OF_FEW = 4.0, 10, 6.0
_SAME_SIGN = 0.8  # share of the days that follow a rule
_LEAST, _MOST = 0.1, 10.0  # factors
_MOST_SERIES = 300  # that tell the effects; more would take long and tell little
_TO_DEVIATION = 1.4826  # of a normal distribution, from the median absolute deviation

# A rule is a number: its kind, its month, and what selects a day in it. December 25 is 11225, on
# weekdays 21225, and at weekends 22425, since weekends have months from 13 on. The last Monday of
# May is 30500, and the fourth Thursday of November 41143.
_DATE, _PART, _LAST, _NTH = 10_000, 20_000, 30_000, 40_000
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_MONTHS = pd.date_range("2024-01-01", periods=12, freq="MS").month_name().tolist()
_WEEKDAYS = pd.date_range("2024-01-01", periods=7).day_name().tolist()


@dataclass(frozen=True)
class SpecialDays(CalendarEffect):
    """The effects of special days on daily series.

    A day is special by a rule: by its date (December 25), which may differ on weekdays and at
    weekends, as the last such weekday of the month (the last Monday of May), or by the number of
    its weekday (the fourth Thursday of November). Each rule that a day follows multiplies the
    series by 1 plus its effect. The product stays between 0.1 and 10.

    Attributes
    ----------
    follows : numpy.ndarray
        (S,): whether each series has the effects.
    rules : numpy.ndarray
        (R,) int64: the rules, ascending.
    effects : numpy.ndarray
        (R,): their effects, such as -0.2.
    """

    rules: np.ndarray
    effects: np.ndarray

    @classmethod
    def fit(cls, panel: Panel, held_out: int = 0) -> SpecialDays | None:
        r"""Find the special days, the same ones for all series.

        A value is compared with the median of the same weekday in the three weeks before and after.
        Each day has the mean of the relative differences of all series, and a rule the median of
        its days. The effect must be seen on n days, three or more, and differ from the median of
        the days around each by :math:`4 / \sqrt n` standard deviations, with the same sign on four
        of five. With fewer than ten such rules, it must differ by :math:`6 / \sqrt n`. Series that
        do not have the effects are then left out, and each day has the median of the others.

        Parameters
        ----------
        panel : Panel
            The series.
        held_out : int, default 0
            Steps at the end of each series to leave out.

        Returns
        -------
        SpecialDays or None
            None if the steps are not days, or no day is special.
        """
        first, last = int(panel.starts.min()), int(panel.ends.max())
        if not panel.axis.is_daily or last - first < _SHORTEST:
            return None
        learned = learned_values(panel, held_out)
        some = np.flatnonzero([is_nonnegative(values) for values in learned])
        some = some[:: -(-len(some) // _MOST_SERIES) or 1]
        differences = np.full((len(some), last - first), np.nan)
        for row, number in zip(differences, some, strict=True):
            begin, values = panel.starts[number] - first, learned[number]
            row[begin : begin + len(values)] = _differences(values, np.arange(len(values)))
        kinds = _rules(panel.axis, np.arange(first, last))
        effect = cls._of(kinds, _means(np.clip(differences, -1, 1)))
        if effect is not None:
            follows = effect.measure(panel, learned)[some]
            effect = cls._of(kinds, _medians(differences[follows]))
        if effect is None:
            return None
        effect = replace(effect, follows=effect.measure(panel, learned))
        return effect if effect.follows.any() else None

    @classmethod
    def _of(cls, kinds: Sequence[np.ndarray], difference: np.ndarray) -> SpecialDays | None:
        rules, effects = _special(kinds, difference, _MIN_Z)
        if len(rules) < _MANY:
            rules, effects = _special(kinds, difference, _MIN_Z_OF_FEW)
        return cls(np.empty(0, dtype=bool), rules, effects) if len(rules) else None

    def at(self, axis: TimeAxis, positions: np.ndarray) -> np.ndarray:
        """Return the factors at positions (N,) of an axis."""
        factors = np.ones(len(positions))
        for keys in _rules(axis, positions):
            factors *= 1 + _lookup(keys, self.rules, self.effects)
        return np.clip(factors, _LEAST, _MOST)

    def is_in(self, values: np.ndarray, factors: np.ndarray) -> bool | None:
        """Whether a series, (T,), does not deviate clearly more without the factors, (T,).

        On special days, that is; None if it has fewer than three.
        """
        days = np.flatnonzero(factors != 1)
        difference = _differences(values, days)
        difference, factors = (
            part[np.isfinite(difference)] for part in (difference, factors[days])
        )
        if len(difference) < _MIN_DAYS:
            return None
        without = (1 + difference) / factors - 1
        limit = (1 + 1 / len(difference) ** 0.5) * np.median(np.abs(difference))
        return bool(np.median(np.abs(without)) <= limit)

    def to_table(self) -> pd.DataFrame:
        """Return the special days in words, largest effects first."""
        table = pd.DataFrame(
            {"effect": map(_in_words, self.rules.tolist()), "change": self.effects}
        )
        order = table["change"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].reset_index(drop=True)


def _in_words(rule: int) -> str:
    """Say which days a rule is about, such as "the fourth Thursday of November"."""
    kind, rest = rule // _DATE * _DATE, rule % _DATE
    month, day = divmod(rest, 100)
    if kind in (_DATE, _PART):
        part = "" if kind == _DATE else " at weekends" if month > 12 else " on weekdays"
        return f"{_MONTHS[(month - 1) % 12]} {day}{part}"
    number = "last" if kind == _LAST else _ORDINALS[day // 10 - 1]
    return f"the {number} {_WEEKDAYS[day % 10]} of {_MONTHS[month - 1]}"


def _differences(values: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Compare values with those around them, relative to these: NaN where there are too few."""
    places = days + _WEEKS[:, None]
    inside = (places >= 0) & (places < len(values))
    around = np.where(inside, values[np.clip(places, 0, len(values) - 1)], np.nan)
    ordinary = _medians(around, _MIN_NEIGHBORS)
    ordinary[~(ordinary > 0)] = np.nan
    return values[days] / ordinary - 1


def _medians(values: np.ndarray, least: int = 1) -> np.ndarray:
    """Return the medians of the observed values of each column, NaN where there are too few."""
    medians = np.full(values.shape[1], np.nan)
    enough = np.isfinite(values).sum(axis=0) >= least
    if enough.any():
        medians[enough] = np.nanmedian(values[:, enough], axis=0)
    return medians


def _means(values: np.ndarray) -> np.ndarray:
    """Return the means of the observed values of each column, NaN without any."""
    observed = np.isfinite(values)
    means = np.full(values.shape[1], np.nan)
    total, count = np.where(observed, values, 0.0).sum(axis=0), observed.sum(axis=0)
    return np.divide(total, count, out=means, where=count > 0)


def _median_around(difference: np.ndarray) -> np.ndarray:
    """Return the median of the days around each day."""
    padded = np.pad(difference, _AROUND, constant_values=np.nan)
    return _medians(np.lib.stride_tricks.sliding_window_view(padded, len(difference)))


def _rules(axis: TimeAxis, positions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the rule of each kind that the days at some positions follow, or -1."""
    times = axis.at(positions)
    month, day, weekday = (np.asarray(part) for part in (times.month, times.day, times.dayofweek))
    is_last = day + 7 > np.asarray(times.days_in_month)
    return (
        _DATE + 100 * month + day,
        _PART + 100 * (month + 12 * (weekday >= 5)) + day,
        np.where(is_last, _LAST + 100 * month + weekday, -1),
        _NTH + 100 * month + 10 * ((day - 1) // 7 + 1) + weekday,
    )


def _special(
    kinds: Sequence[np.ndarray], difference: np.ndarray, least_z: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rules that make a day special, ascending, and their effects.

    The effects of one kind are taken off before the next one. The last weekday of a month is often
    the fourth one. That of the two rules is kept whose days differ less from each other.
    """
    date, part, last, nth = kinds
    rules, effects = [], []

    def take_off(keys: np.ndarray, found: _Found) -> None:
        nonlocal difference
        difference = (1 + difference) / (1 + _lookup(keys, found.rules, found.effects)) - 1
        rules.append(found.rules)
        effects.append(found.effects)

    for keys in (date, part):
        take_off(keys, _find(keys, difference, least_z))
    of_last, of_nth = (_find(keys, difference, least_z) for keys in (last, nth))
    rivals = np.equal.outer(of_last.rules - _LAST + 40, of_nth.rules - _NTH)
    worse = rivals & (of_last.scatter[:, None] > of_nth.scatter)
    take_off(last, of_last.take(~worse.any(axis=1)))
    take_off(nth, _find(nth, difference, least_z))
    return np.concatenate(rules), np.concatenate(effects)


class _Found(NamedTuple):
    """Rules that make a day special, (R,), ascending; their effects, and how their days differ."""

    rules: np.ndarray
    effects: np.ndarray
    scatter: np.ndarray

    def take(self, chosen: np.ndarray) -> _Found:
        return _Found(*(part[chosen] for part in self))


def _find(keys: np.ndarray, difference: np.ndarray, least_z: float) -> _Found:
    """Find the rules of one kind that make a day special.

    A day at the peak of a season differs from the weeks around it, but not from the days around it.
    """
    peak = difference - _median_around(difference)
    observed = np.isfinite(peak) & (keys >= 0)
    keys, difference, peak = keys[observed], difference[observed], peak[observed]
    found: list[tuple[int, float, float]] = []
    if len(keys):
        # The second one is for series that hardly ever change. Special days must not widen it.
        usual = np.clip(peak, *np.percentile(peak, [2, 98]))
        deviation = max(_TO_DEVIATION * np.median(np.abs(peak)), usual.std() / 2)
        order = np.argsort(keys, kind="stable")
        rules, begins = np.unique(keys[order], return_index=True)
        for rule, days in zip(rules, np.split(order, begins[1:]), strict=True):
            effect, height = np.median(difference[days]), np.median(peak[days])
            scatter = np.abs(peak[days] - height)
            error = max(deviation, _TO_DEVIATION * np.median(scatter))
            if (
                len(days) >= _MIN_DAYS
                and effect * height > 0
                and abs(height) * np.sqrt(len(days)) > least_z * error
                and (np.sign(peak[days]) == np.sign(height)).mean() >= _SAME_SIGN
            ):
                found.append((rule, np.clip(effect, _LEAST - 1, _MOST - 1), scatter.mean()))
    rules, effects, scatters = np.array(found, dtype=float).reshape(-1, 3).T
    return _Found(rules.astype(np.int64), effects, scatters)


def _lookup(keys: np.ndarray, rules: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Return the effect of each rule, 0 for those that are not among the special ones."""
    if not len(rules):
        return np.zeros(len(keys))
    places = np.minimum(np.searchsorted(rules, keys), len(rules) - 1)
    return np.where(rules[places] == keys, effects[places], 0.0)
