"""What a forecaster of sktime has seen so far: series that each end at a time of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..forecaster import InputError
from ..forecaster.panel.panel import lower_bound
from .columns import Columns
from .step_counter import StepCounter

_SERIES, _TIME = 0, 1  # levels of the index of the rows


@dataclass(frozen=True)
class Observed:
    """The rows of all series.

    Attributes
    ----------
    columns : Columns
        Names of the columns.
    keys : pandas.Index
        The series: their labels in the index of y.
    rows : pandas.DataFrame
        Targets and covariates, by number of the series and time. Rows after the end of a series
        hold covariates that are known ahead.
    ends : pandas.Series
        For the number of a series, its last time in y: forecasts are counted from there.
    """

    columns: Columns
    keys: pd.Index
    rows: pd.DataFrame
    ends: pd.Series

    @classmethod
    def of(cls, y: pd.DataFrame, X: pd.DataFrame | None, columns: Columns) -> Observed:
        """Take the data of a fit."""
        keys = _split(y.index)[0].unique()
        rows = _numbered(columns.read_y(y), keys, "y")
        observed = cls(columns, keys, rows, _ends(rows))
        return observed if X is None else observed.plan(X)

    def extend(self, y: pd.DataFrame, X: pd.DataFrame | None) -> Observed:
        """Add later rows, and series that are new.

        Rows of the same times are replaced, also by missing values. Covariates stay where X has
        no row.
        """
        keys = self.keys.append(_split(y.index)[0].unique().difference(self.keys, sort=False))
        new = _numbered(self.columns.read_y(y), keys, "y", self._times)
        ends = _ends(new)
        ends = pd.concat([self.ends.drop(self.ends.index.intersection(ends.index)), ends])
        rows = _replaced(self.rows, new)
        observed = replace(self, keys=keys, rows=rows, ends=ends.sort_index())
        return observed if X is None else observed.plan(X)

    def plan(self, X: pd.DataFrame) -> Observed:
        """Add covariates of times that are in the series or after them.

        Rows of the same times are replaced, also by missing values. Targets stay.
        """
        known = self.columns.read_X(X)
        if isinstance(known.index, pd.MultiIndex):
            known = known[known.index.droplevel(-1).isin(self.keys)]
        known = _numbered(known, self.keys, "X", self._times)
        starts = self.rows.index.to_frame(index=False).groupby(_SERIES)[_TIME].min()
        times = known.index.get_level_values(_TIME)
        begin = starts.reindex(known.index.get_level_values(_SERIES))
        known = known[np.asarray(times >= pd.Index(begin))]
        names = [*self.columns.targets, *self.columns.known]
        return replace(self, rows=_replaced(self.rows, known).reindex(columns=names))

    def lower_bounds(self) -> np.ndarray:
        """Return the lower bound of each target, (targets,), by the rule of `Panel`."""
        return np.array([lower_bound(self.rows[name].to_numpy()) for name in self.columns.targets])

    def table(self, numbers: Any = None) -> pd.DataFrame:
        """Return the rows of some series, or all, as a table without targets after their ends."""
        rows = self.rows
        if numbers is not None:
            rows = rows[rows.index.get_level_values(_SERIES).isin(numbers)]
        series = rows.index.get_level_values(_SERIES)
        times = rows.index.get_level_values(_TIME)
        is_past = np.asarray(times <= pd.Index(self.ends.reindex(series)))
        table = rows.reset_index(drop=True)
        table.loc[~is_past, list(self.columns.targets)] = np.nan
        table.insert(0, self.columns.time, times)
        for place, name in enumerate(self.columns.group):
            table.insert(place, name, self.keys.get_level_values(place)[series])
        return table

    def table_at(self, index: pd.Index) -> pd.DataFrame:
        """Return the rows of an index as a table."""
        labels, times = _split(index)
        numbers = self.keys.get_indexer(labels)
        wanted = pd.MultiIndex.from_arrays([numbers, times])
        part = replace(self, rows=self.rows[self.rows.index.isin(wanted)])
        return part.table()

    def numbers_of(self, table: pd.DataFrame) -> np.ndarray:
        """Return the number of the series of each row of a table."""
        if not self.columns.group:
            return np.zeros(len(table), np.int64)
        keys = pd.MultiIndex.from_frame(self.keys.to_frame())
        return keys.get_indexer(pd.MultiIndex.from_frame(table[list(self.columns.group)]))

    def index_at(self, numbers: pd.Index, times: pd.Series) -> pd.Index:
        """Return the index of rows in the layout of y."""
        index = pd.Index(times.array)
        if self.columns.group:
            labels = [
                self.keys.get_level_values(place)[numbers]
                for place in range(len(self.columns.group))
            ]
            index = pd.MultiIndex.from_arrays([*labels, index])
        return index.set_names(list(self.columns.index_names))

    def offsets(self, fh: Any, counter: StepCounter) -> np.ndarray:
        """Count the steps of a horizon from the last observed target.

        Parameters
        ----------
        fh : ForecastingHorizon
            Steps from the end of each series, or times.
        counter : StepCounter
            Counts the steps between two times.

        Returns
        -------
        numpy.ndarray
            (series, targets, len(fh)).
        """
        shape = len(self.keys), len(self.columns.targets), len(fh)
        offsets = np.empty(shape, np.int64)
        for place, target in enumerate(self.columns.targets):
            values = self.rows[target].dropna()
            times = values.index.get_level_values(_TIME)
            ends = pd.Index(self.ends.reindex(values.index.get_level_values(_SERIES)))
            last = _ends(values[np.asarray(times <= ends)])
            for number, end in self.ends.items():
                unobserved = counter.between(last.get(number, end), end)
                offsets[number, place] = counter.steps_to(fh, end) + unobserved
        return offsets

    @property
    def _times(self) -> pd.Index:
        return self.rows.index.get_level_values(_TIME)


def _split(index: pd.Index) -> tuple[pd.Index, pd.Index]:
    """Return the labels of the series, 0 for a single one, and the times of the rows."""
    if isinstance(index, pd.MultiIndex):
        return index.droplevel(-1), index.get_level_values(-1)
    return pd.Index(np.zeros(len(index), np.int64)), index


def _numbered(
    data: pd.DataFrame, keys: pd.Index, source: str, like: pd.Index | None = None
) -> pd.DataFrame:
    """Index rows by the number of their series, and their time, which is as in the fit."""
    labels, times = _split(data.index)
    if like is not None:
        times = _times_like(times, like, source)
    index = pd.MultiIndex.from_arrays([keys.get_indexer(labels), times], names=[_SERIES, _TIME])
    if index.has_duplicates:
        repeated = data.index[index.duplicated()][0]
        where = "time" if data.index.nlevels == 1 else "series and time"
        raise InputError(
            f"MLSTMForecaster: several rows of {source} have the same {where}, {repeated}: leave "
            "one of them"
        )
    return data.set_axis(index, axis=0)


def _times_like(times: pd.Index, like: pd.Index, source: str) -> pd.Index:
    """Return times in the zone of those of the fit; raise an InputError for another kind."""
    new, old = _kind(times), _kind(like)
    if new != old:
        raise InputError(
            f"MLSTMForecaster: the times of {source} are {new}, but were {old} in fit: convert them"
        )
    return times.tz_convert(like.tz) if getattr(like, "tz", None) is not None else times


def _kind(times: pd.Index) -> str:
    if isinstance(times, pd.PeriodIndex):
        return f"periods of {times.freqstr}"
    if isinstance(times, pd.DatetimeIndex):
        return f"timestamps {'without' if times.tz is None else 'with'} a time zone"
    return "whole numbers"


def _replaced(rows: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Add rows; where the times are the same, all columns of `new` are replaced."""
    is_old = ~rows.index.isin(new.index)
    kept = rows.columns.intersection(new.columns)
    parts = [rows.loc[is_old, kept], new] if len(kept) else [new]
    changed = pd.concat(parts)
    others = rows.columns.difference(new.columns, sort=False)
    index = rows.index.union(new.index)
    columns = [*rows.columns, *new.columns.difference(rows.columns, sort=False)]
    return pd.concat([changed.reindex(index), rows[others].reindex(index)], axis=1)[columns]


def _ends(rows: pd.DataFrame | pd.Series) -> pd.Series:
    return rows.index.to_frame(index=False).groupby(_SERIES)[_TIME].max()
