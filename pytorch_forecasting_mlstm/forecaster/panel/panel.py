"""A panel: series on one evenly spaced time axis, without gaps between their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError, quoted
from ..tables.covariates import Covariate, read_static
from ..tables.labels import label_series
from ..tables.records import Records
from ..tables.roles import TARGET_COLUMN, Roles
from ..times.time_axis import TimeAxis
from ..times.time_format import TimeFormat
from .missing import fill_missing
from .suspicious import Suspicion, find_suspicious, is_outlier

_MAX_TARGET = 1e300  # sums and differences of such numbers are still finite


@dataclass(frozen=True)
class Panel:
    """Series of one quantity or several, one row per step of a common axis.

    Several targets become series of their own. A series runs from its first to its last observed
    target, and goes on as far as its known covariates do. Steps without a row have one here.

    Attributes
    ----------
    roles : Roles
        The columns.
    axis : TimeAxis
        The times.
    time_format : TimeFormat
        How the table writes them.
    groups : pandas.DataFrame
        (S, ...): group columns of each series and, with several targets, the target's name.
    begins : numpy.ndarray
        (S + 1,): first row of each series.
    starts : numpy.ndarray
        (S,): position of that row on the axis.
    lengths : numpy.ndarray
        (S,): rows up to the last observed target.
    target : numpy.ndarray
        (N,): the numbers to forecast, NaN where there is none.
    covariates : pandas.DataFrame
        (N, ...): known and past covariates, float64 or text.
    statics : pandas.DataFrame
        (S, ...): static covariates.
    is_given : numpy.ndarray
        (N,): whether the table has a row there, with a value of every known covariate.
    """

    roles: Roles
    axis: TimeAxis
    time_format: TimeFormat
    groups: pd.DataFrame
    begins: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    target: np.ndarray
    covariates: pd.DataFrame
    statics: pd.DataFrame
    is_given: np.ndarray

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.lengths)

    def label(self, series: int) -> str:
        """Name one series."""
        return label_series(self.groups, series)

    @cached_property
    def values(self) -> list[np.ndarray]:
        """The targets of each series, oldest first, up to the last observed one."""
        return [
            self.target[begin : begin + length]
            for begin, length in zip(self.begins, self.lengths, strict=False)
        ]

    def write_times(self, positions: np.ndarray) -> pd.Series:
        """Return the times at positions of the axis, as the table writes them."""
        return self.time_format.write(self.axis.at(positions))

    def times_of(self, series: int) -> pd.Series:
        """Return the times of the rows of one series, as the table writes them."""
        count = self.begins[series + 1] - self.begins[series]
        return self.write_times(self.starts[series] + np.arange(count))

    @property
    def series(self) -> np.ndarray:
        """(N,): number of the series of each row."""
        return np.repeat(np.arange(len(self)), np.diff(self.begins))

    @property
    def steps(self) -> np.ndarray:
        """(N,): number of each row within its series, from 0."""
        return np.arange(self.begins[-1]) - self.begins[self.series]

    @property
    def ends(self) -> np.ndarray:
        """(S,): position on the axis of the first step after the last observed target."""
        return self.starts + self.lengths

    @property
    def lower_bound(self) -> float:
        """0 for quantities that cannot be negative, else minus infinity.

        A target is assumed to be such a quantity if it has no negative value, and contains an exact
        0 or consists of whole numbers.
        """
        return lower_bound(self.target)

    def until(self, position: int) -> Panel:
        """Return the panel as it was known at a time, without what happened from `position` on.

        Known covariates stay. Series without a target before that time are left out.
        """
        seen = self.starts[self.series] + self.steps < position
        target = np.where(seen, self.target, np.nan)
        covariates = self.covariates.copy()
        for name in self.roles.past:
            covariates[name] = covariates[name].where(seen)
        return _select_observed(replace(self, target=target, covariates=covariates))

    def observed_within(self, first: int, last: int) -> np.ndarray:
        """Tell which series, (S,), have a target from position `first` to before `last`."""
        place = self.starts[self.series] + self.steps
        within = np.isfinite(self.target) & (place >= first) & (place < last)
        return np.bincount(self.series[within], minlength=len(self)) > 0

    def take(self, numbers: np.ndarray) -> Panel:
        """Return some of the series."""
        return _take_rows(self, numbers, self.begins[numbers], self.begins[numbers + 1])


def lower_bound(values: np.ndarray) -> float:
    """Apply the rule of `Panel.lower_bound` to values, NaN where there is none."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() < 0:
        return -np.inf
    return 0.0 if values.min() == 0 or (values == values.round()).all() else -np.inf


def make_panel(records: Records, roles: Roles, axis: TimeAxis, positions: np.ndarray) -> Panel:
    """Place records on an axis, one row per step of every series.

    Parameters
    ----------
    records : Records
        The rows.
    roles : Roles
        Their columns.
    axis : TimeAxis
        The times.
    positions : numpy.ndarray
        (rows of `records`,): their positions on it.

    Raises
    ------
    InputError
        If a series has no target, or a column is empty throughout a series.
    """
    n_groups = len(records.groups)
    firsts = np.searchsorted(records.series, np.arange(n_groups + 1))
    starts, ends = positions[firsts[:-1]], positions[firsts[1:] - 1]
    begins = np.concatenate([[0], np.cumsum(ends - starts + 1)])
    source = np.full(begins[-1], -1)
    source[begins[records.series] + positions - starts[records.series]] = np.arange(len(positions))
    series = np.repeat(np.arange(n_groups), np.diff(begins))
    covariates, is_given = _lay_out_covariates(records, roles, source, series)
    statics = _read_statics(records, roles)
    columns = records.columns
    targets = {
        name: np.where(source < 0, np.nan, columns[name].to_numpy(float)[source])
        for name in roles.targets
    }
    groups = records.groups
    count = len(roles.targets)
    if count > 1:  # one series per target: the targets of a group follow one another
        groups = groups.loc[groups.index.repeat(count)].reset_index(drop=True)
        groups[TARGET_COLUMN] = np.tile(roles.targets, n_groups)
        statics = statics.loc[statics.index.repeat(count)].reset_index(drop=True)
        rows = np.concatenate(
            [np.tile(np.arange(a, b), count) for a, b in zip(begins, begins[1:], strict=False)]
        )
        covariates, is_given = covariates.iloc[rows].reset_index(drop=True), is_given[rows]
        lengths = np.repeat(np.diff(begins), count)
        target = np.concatenate(
            [
                targets[name][a:b]
                for a, b in zip(begins, begins[1:], strict=False)
                for name in roles.targets
            ]
        )
        begins, starts = np.concatenate([[0], np.cumsum(lengths)]), np.repeat(starts, count)
    else:
        target = targets[roles.targets[0]]
    draft = Panel(
        roles,
        axis,
        records.time_format,
        groups,
        begins,
        starts,
        np.diff(begins),
        target,
        covariates,
        statics,
        is_given,
    )
    _check_targets(draft)
    return _select_observed(draft)


def find_faults(panel: Panel, horizon: int) -> list[Suspicion]:
    """Find rows that look like faults.

    Parameters
    ----------
    panel : Panel
        The series, as the table has them.
    horizon : int
        Steps to forecast: a constant stretch must be longer.
    """
    season = min(panel.axis.seasons.values(), default=1)
    return find_suspicious(panel.values, horizon, season)


def clean_targets(
    panel: Panel, suspicions: Sequence[Suspicion], *, missing: Any, outliers: str
) -> Panel:
    """Fill missing targets, and mask outliers, which then decide no filled value either.

    Every series ends where it did, even if its last value is an outlier.

    Parameters
    ----------
    panel : Panel
        The series, as the table has them.
    suspicions : sequence of Suspicion
        From `find_faults`.
    missing : str or float
        How to fill missing targets, as in `fill_missing`.
    outliers : {"mask", "keep"}
        What to do with outliers.
    """
    masks = is_outlier([] if outliers == "keep" else suspicions, panel.lengths.tolist())
    target = panel.target.copy()
    for begin, values, mask in zip(panel.begins, panel.values, masks, strict=False):
        filled = fill_missing(np.where(mask, np.nan, values), missing)
        target[begin : begin + len(values)] = np.where(mask, np.nan, filled)
    cleaned = _select_observed(replace(panel, target=target))
    return replace(cleaned, lengths=panel.ends - cleaned.starts)


def _select_observed(panel: Panel) -> Panel:
    """Start every series at its first observed target; leave out series without one."""
    observed = np.flatnonzero(np.isfinite(panel.target))
    kept, first = np.unique(panel.series[observed], return_index=True)
    last = np.append(first, len(observed))[1:] - 1
    chosen = _take_rows(panel, kept, observed[first], panel.begins[kept + 1])
    return replace(chosen, lengths=observed[last] + 1 - observed[first])


def _take_rows(panel: Panel, numbers: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Panel:
    """Return the series `numbers`, each from row `begin` up to row `end` of the panel."""
    sizes = end - begin
    begins = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.repeat(begin - begins[:-1], sizes) + np.arange(begins[-1])
    cut = begin - panel.begins[numbers]
    return replace(
        panel,
        groups=panel.groups.iloc[numbers].reset_index(drop=True),
        begins=begins,
        starts=panel.starts[numbers] + cut,
        lengths=panel.lengths[numbers] - cut,
        target=panel.target[rows],
        covariates=panel.covariates.iloc[rows].reset_index(drop=True),
        statics=panel.statics.iloc[numbers].reset_index(drop=True),
        is_given=panel.is_given[rows],
    )


def _lay_out_covariates(
    records: Records, roles: Roles, source: np.ndarray, series: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """Give every step its covariates; known ones and classes keep their last value in gaps.

    Returns
    -------
    covariates : pandas.DataFrame
        (N, ...)
    is_given : numpy.ndarray
        (N,): whether the table has a row there, with a value of every known covariate.
    """
    laid_out, is_given = {}, source >= 0
    for name in (*roles.known, *roles.past):
        column = records.columns[name].reindex(source)
        column.index = pd.RangeIndex(len(source))
        if name in roles.known:
            is_given = is_given & column.notna().to_numpy()
        if name in roles.known or not records.real[name]:
            by_series = column.groupby(series)
            column = by_series.ffill()
            column = column.fillna(column.groupby(series).bfill())
            if column.isna().any():
                number = int(series[column.isna().to_numpy().argmax()])
                raise InputError(
                    f"{label_series(records.groups, number)}: column {quoted(name)} is empty in "
                    "all rows: fill it in, or leave it out"
                )
        laid_out[name] = column
    return pd.DataFrame(laid_out, index=pd.RangeIndex(len(source))), is_given


def _read_statics(records: Records, roles: Roles) -> pd.DataFrame:
    """Return the static covariates of each series."""
    statics = {}
    for name in roles.static:
        column = Covariate(records.columns[name].to_numpy(), records.real[name])
        values = read_static(
            column, records.series, name, lambda k: label_series(records.groups, k)
        ).values
        if column.is_real and np.isnan(values).any():
            number = int(np.isnan(values).argmax())
            raise InputError(
                f"{label_series(records.groups, number)}: column {quoted(name)} is empty in all "
                "rows: fill it in, or leave it out"
            )
        statics[name] = values
    return pd.DataFrame(statics, index=pd.RangeIndex(len(records.groups)))


def _check_targets(panel: Panel) -> None:
    observed = np.isfinite(panel.target)
    counts = np.bincount(panel.series[observed], minlength=len(panel))
    if (counts == 0).any():
        number = int((counts == 0).argmax())
        more = int((counts == 0).sum()) - 1
        others = f" (and {more} more series)" if more else ""
        name = panel.roles.targets[number % len(panel.roles.targets)]
        raise InputError(
            f"{panel.label(number)}{others}: has no value of {quoted(name)}: add rows with values, "
            "or drop the series"
        )
    large = np.flatnonzero(np.abs(np.where(observed, panel.target, 0)) > _MAX_TARGET)
    if len(large):
        number = int(panel.series[large[0]])
        raise InputError(
            f"{panel.label(number)}: holds {panel.target[large[0]]:g}, too large to add up: use a "
            f"unit in which values stay below {_MAX_TARGET:g}"
        )
