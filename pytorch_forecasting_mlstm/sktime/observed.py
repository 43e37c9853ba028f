"""What a forecaster of sktime has seen so far: series that each end at a time of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..forecaster import InputError
from .columns import Columns

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
        rows = _numbered(columns.read_y(y), keys)
        observed = cls(columns, keys, rows, _ends(rows))
        return observed if X is None else observed.plan(X)

    def extend(self, y: pd.DataFrame, X: pd.DataFrame | None) -> Observed:
        """Add later rows, and series that are new; rows of the same times are replaced."""
        keys = self.keys.append(_split(y.index)[0].unique().difference(self.keys, sort=False))
        new = _numbered(self.columns.read_y(y), keys)
        ends = _ends(new)
        ends = pd.concat([self.ends.drop(self.ends.index.intersection(ends.index)), ends])
        rows = new.combine_first(self.rows)[self.rows.columns]
        observed = replace(self, keys=keys, rows=rows, ends=ends.sort_index())
        return observed if X is None else observed.plan(X)

    def plan(self, X: pd.DataFrame) -> Observed:
        """Add covariates of times that are in the series or after them."""
        known = self.columns.read_X(X)
        if isinstance(known.index, pd.MultiIndex):
            known = known[known.index.droplevel(-1).isin(self.keys)]
        known = _numbered(known, self.keys)
        starts = self.rows.index.to_frame(index=False).groupby(_SERIES)[_TIME].min()
        times = known.index.get_level_values(_TIME)
        begin = starts.reindex(known.index.get_level_values(_SERIES))
        known = known[np.asarray(times >= pd.Index(begin))]
        names = [*self.columns.targets, *self.columns.known]
        return replace(self, rows=known.combine_first(self.rows).reindex(columns=names))

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

    def offsets(self, fh: Any, frequency: Any) -> np.ndarray:
        """Count the steps of a horizon from the last observed target.

        Parameters
        ----------
        fh : ForecastingHorizon
            Steps from the end of each series, or times.
        frequency
            Distance between two timestamps.

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
                unobserved = count_steps(last.get(number, end), end, frequency)
                offsets[number, place] = steps_to(fh, end, frequency) + unobserved
        return offsets


def steps_to(fh: Any, end: Any, frequency: Any) -> np.ndarray:
    """Count the steps from the end of a series to the times of a horizon."""
    wanted = fh.to_pandas()
    if fh.is_relative and wanted.dtype.kind in "iu":
        return wanted.to_numpy()
    times = end + wanted if fh.is_relative else wanted
    return np.array([count_steps(end, time, frequency) for time in times])


def count_steps(begin: Any, end: Any, frequency: Any) -> int:
    """Count the steps between two times.

    Examples
    --------
    >>> count_steps(3, 7, None)
    4
    >>> count_steps(pd.Period("2024-11", "M"), pd.Period("2025-02", "M"), None)
    3
    >>> count_steps(pd.Timestamp("2024-11-29"), pd.Timestamp("2024-12-02"), "B")
    1

    Raises
    ------
    InputError
        If it is not a whole number, or timestamps have no frequency.
    """
    if begin == end:
        return 0
    if isinstance(begin, pd.Period):
        return (end.ordinal - begin.ordinal) // begin.freq.n
    if not isinstance(begin, pd.Timestamp):
        return int(end - begin)
    if frequency is None:
        raise InputError(
            f"MLSTMForecaster: the steps from {begin} to {end} cannot be counted, since the times "
            "have no frequency: use a PeriodIndex, or a DatetimeIndex with a freq"
        )
    first, last = sorted((begin, end))
    times = pd.date_range(first, last, freq=frequency)
    if not len(times) or times[-1] != last:
        raise InputError(
            f"MLSTMForecaster: {end} does not lie whole steps of {frequency} from {begin}: "
            "correct fh"
        )
    return (len(times) - 1) * (1 if begin < end else -1)


def _split(index: pd.Index) -> tuple[pd.Index, pd.Index]:
    """Return the labels of the series, 0 for a single one, and the times of the rows."""
    if isinstance(index, pd.MultiIndex):
        return index.droplevel(-1), index.get_level_values(-1)
    return pd.Index(np.zeros(len(index), np.int64)), index


def _numbered(data: pd.DataFrame, keys: pd.Index) -> pd.DataFrame:
    """Index rows by the number of their series, and their time."""
    labels, times = _split(data.index)
    index = pd.MultiIndex.from_arrays([keys.get_indexer(labels), times], names=[_SERIES, _TIME])
    return data.set_axis(index, axis=0)


def _ends(rows: pd.DataFrame | pd.Series) -> pd.Series:
    return rows.index.to_frame(index=False).groupby(_SERIES)[_TIME].max()
