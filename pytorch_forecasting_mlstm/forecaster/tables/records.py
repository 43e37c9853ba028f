"""A table read into records: series numbered, times as numbers, columns checked and converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..errors import Argument, InputError, format_rows, quoted
from ..times.time_format import TimeFormat
from ..times.timestamps import read_times
from .columns import read_numbers
from .covariates import MISSING, read_covariate, read_static
from .groups import match_series, merge_groups, read_groups
from .labels import label_series
from .roles import Roles


@dataclass(frozen=True)
class Records:
    """The rows of a table, sorted by series and time.

    Attributes
    ----------
    groups : pandas.DataFrame
        One row per series: its group columns; no columns for a single series.
    series : numpy.ndarray
        (N,): number of the series of each row.
    times : pandas.Series
        (N,): int64, or datetime64 without a zone.
    columns : pandas.DataFrame
        (N, ...): targets, NaN where there is none, and covariates: float64, or text for classes.
    real : dict of str to bool
        For each covariate, whether it is a real number.
    time_format : TimeFormat
        How to write times as the table does.
    """

    groups: pd.DataFrame
    series: np.ndarray
    times: pd.Series
    columns: pd.DataFrame
    real: dict[str, bool]
    time_format: TimeFormat

    def extend(self, other: Records, *, replace: bool) -> Records:
        """Add the rows of another table.

        Parameters
        ----------
        other : Records
            Rows of the same or of new series; columns that it lacks are empty there.
        replace : bool
            Whether its rows replace those of the same series and time, or give way to them.
        """
        groups, numbers = merge_groups(self.groups, other.groups)
        series = np.concatenate([self.series, numbers[other.series]])
        times = pd.concat([self.times, other.times], ignore_index=True)
        columns = pd.concat([self.columns, other.columns], ignore_index=True)
        for name in columns.columns.difference(other.columns.columns):
            if not self.real.get(name, True):
                columns[name] = columns[name].fillna(MISSING)
        key = pd.DataFrame({"series": series, "time": times})
        kept = ~key.duplicated(keep="last" if replace else "first")
        order = key[kept].sort_values(["series", "time"]).index
        return Records(
            groups=groups,
            series=series[order],
            times=times.loc[order].reset_index(drop=True),
            columns=columns.loc[order].reset_index(drop=True),
            real={**other.real, **self.real},
            time_format=other.time_format if replace else self.time_format,
        )

    def with_plan(self, plan: Records, targets: Sequence[str], source: str) -> Records:
        """Add the rows of a plan, which describes what is known of the future.

        It replaces rows after the last observed target of a series, and gives way to earlier ones.

        Raises
        ------
        InputError
            If it has a series that is unknown here.
        """
        for number, row in enumerate(match_series(self.groups, plan.groups)):
            if row >= len(self.groups):
                raise InputError(
                    f"{source}: {label_series(plan.groups, number)}: is not among the series to "
                    "forecast: add its past rows to the table, or drop it here"
                )
        later = self.after_last_target(targets)
        ahead = self.select(later)
        return self.select(~later).extend(plan, replace=False).extend(ahead, replace=False)

    def after_last_target(self, targets: Sequence[str]) -> np.ndarray:
        """Mark the rows, (N,), after the last observed target of their series."""
        observed = self.columns[list(targets)].notna().any(axis=1).to_numpy()
        count = pd.Series(observed[::-1].astype(int)).groupby(self.series[::-1]).cumsum()
        return (count == 0).to_numpy()[::-1]

    def select(self, rows: np.ndarray) -> Records:
        """Return the chosen rows; all series are kept."""
        return Records(
            groups=self.groups,
            series=self.series[rows],
            times=self.times[rows].reset_index(drop=True),
            columns=self.columns[rows].reset_index(drop=True),
            real=self.real,
            time_format=self.time_format,
        )


def read_records(
    table: pd.DataFrame,
    roles: Roles,
    *,
    timezone: str | None,
    source: str = "table",
    like: Records | None = None,
    future: bool = False,
) -> Records:
    """Read a table.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per series and time, in any order.
    roles : Roles
        Its columns.
    timezone : str or None
        Zone of local times without an offset.
    source : str
        Name of the table in messages.
    like : Records, optional
        Records of the training table, whose kinds of columns the table must have.
    future : bool, default False
        Whether the table describes the horizon: it needs no targets and no past covariates.

    Raises
    ------
    InputError
        If a column is missing or cannot be read, or a series has one time twice.
    """
    needed = roles.future_columns if future else roles.history_columns
    check_columns(table, needed, source)
    table = table[needed].reset_index(drop=True)
    groups, series = read_groups(table, list(roles.group))
    times, time_format = read_times(table[roles.time], timezone, series=series)
    _check_kind_of_times(times, like, roles.time, source)
    _check_kind_of_groups(groups, like, source)
    columns: dict[str, Any] = {}
    for name in () if future else roles.targets:
        columns[name] = read_numbers(table[name], f"{source}, column {quoted(name)}")
    real = {}
    covariates = [("known", roles.known)]
    covariates += [] if future else [("past", roles.past), ("static", roles.static)]
    for role, names in covariates:
        for name in names:
            was_real = None if like is None else like.real[name]
            covariate = read_covariate(table[name], name, role, was_real)
            if role == "static":  # raises an error if it changes
                read_static(covariate, series, name, lambda k: label_series(groups, k))
            columns[name], real[name] = covariate.values, covariate.is_real
    key = pd.DataFrame({"series": series, "time": times}).sort_values(["series", "time"])
    order = key.index.to_numpy()
    _check_duplicates(key, groups, roles, source)
    return Records(
        groups=groups,
        series=series[order],
        times=times.iloc[order].reset_index(drop=True),
        columns=pd.DataFrame(columns, index=table.index).iloc[order].reset_index(drop=True),
        real=real,
        time_format=time_format,
    )


def check_columns(table: pd.DataFrame, needed: list[str], source: str) -> None:
    """Raise an InputError unless the table has rows and all columns."""
    from difflib import get_close_matches

    for name in needed:
        if name not in table.columns:
            present = [str(column) for column in table.columns[:1000]]
            close = get_close_matches(name, present, n=1)
            hint = f" (did you mean {quoted(close[0])}?)" if close else ""
            listed = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
            raise InputError(
                f"{source}: has no column {quoted(name)}{hint}; its columns are: {listed}"
            )
    if table.empty:
        raise InputError(f"{source}: has no rows; pass the rows to forecast from")


def _check_kind_of_times(times: pd.Series, like: Records | None, name: str, source: str) -> None:
    if like is not None and (times.dtype.kind == "i") != (like.times.dtype.kind == "i"):
        kinds = ("whole numbers", "dates")
        new, old = kinds if times.dtype.kind == "i" else kinds[::-1]
        raise InputError(
            f"{source}: column {quoted(name)} holds {new}, but held {old} in training: pass {old}"
        )


def _check_kind_of_groups(groups: pd.DataFrame, like: Records | None, source: str) -> None:
    """Raise an InputError for numbers instead of text: 7 and "7" would be different series."""
    if like is None:
        return
    for name in groups:
        now, before = (_is_text(table[name]) for table in (groups, like.groups))
        if None not in (now, before) and now != before:
            kinds = ("text", "numbers")
            new, old = kinds if now else kinds[::-1]
            raise InputError(
                f"{source}: group column {quoted(name)} holds {new}, but held {old} in training: "
                f"pass {old}"
            )


def _is_text(column: pd.Series) -> bool | None:
    """Tell whether a column holds text rather than other values; None for a mixture."""
    is_text = {isinstance(value, str) for value in column}
    return is_text.pop() if len(is_text) == 1 else None


def _check_duplicates(key: pd.DataFrame, groups: pd.DataFrame, roles: Roles, source: str) -> None:
    """Raise an InputError if a series has one time twice."""
    repeated = key.duplicated(keep=False)
    if not repeated.any():
        return
    first = key[repeated].iloc[0]
    same = key[(key["series"] == first["series"]) & (key["time"] == first["time"])].index
    count = int(key.duplicated().sum())
    more = f" and {count - 1} more" if count > 1 else ""
    label = f"{source}, {label_series(groups, int(first['series']))}" if roles.group else source
    raise InputError(
        f"{label}: {format_rows(same.tolist())} have the same time {first['time']}{more}: add such "
        "rows up",
        *(() if roles.group else (", or tell the series apart by ", Argument("group"))),
    )
