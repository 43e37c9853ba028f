"""The rows that a forecast reads: the last of every series, and those of the horizon after them."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .schema import (
    WHO,
    Schema,
    more,
    name_series,
    name_times,
)

__all__ = ["History", "horizon_rows", "read_history"]


class History(NamedTuple):
    """The rows that forecasts start from.

    Attributes
    ----------
    rows : pandas.DataFrame
        All rows that are read, in the order of time for each series.
    last : pandas.DataFrame
        The last row of every series, in the order in which the table names them.
    names : list of tuple
        Values of the group columns for every series.
    """

    rows: pd.DataFrame
    last: pd.DataFrame
    names: list[tuple]


def read_history(schema: Schema, data: Any) -> History:
    """Check a table, and take from the end of every series what its forecast reads.

    Raises
    ------
    TypeError, ValueError
        If it is no such table as the dataset was made of, or a series is too short.
    """
    table = schema.select(data, "data", schema.columns)
    if table.empty:
        raise ValueError(f"{WHO}: data must have rows to forecast from, got none; pass some.")
    series, names = schema.number_series(table)
    order = np.lexsort((table[schema.time], series))
    table, series = table.iloc[order].reset_index(drop=True), series[order]

    times = table[schema.time].to_numpy()
    last = np.append(np.flatnonzero(np.diff(series)), len(series) - 1)
    first = np.append(0, last[:-1] + 1)
    begin = times[last] - schema.max_history + 1  # of the window
    in_window = np.bincount(series, times >= begin[series]).astype(int)
    before_window = last - in_window
    used = np.maximum(first, before_window + 1 - schema.lag)
    # the host gives up as many rows as the largest lag
    start = np.minimum(used + schema.lag, last + 1)
    steps = times[last] + 1 - np.append(times, 0)[start]
    steps[start > last] = 0
    rows = last + 1 - used
    # of a series with fewer rows than that, it would give up rows of the horizon
    short = (steps < schema.min_history) | (rows < schema.lag)
    # A gap at the begin of the window is filled as any other, by the row before it.
    fill = short & (before_window >= first) & schema.allow_gaps & (schema.lag == 0)
    used[fill] = before_window[fill]
    _check_lengths(schema, steps, rows, short & ~fill, names)

    read = np.arange(len(table)) >= used[series]
    _check_gaps(schema, times[read], series[read], names)
    rows, last_rows = table[read], table.iloc[last]
    schema.check_values(rows, "data", [*schema.reals, *schema.labels], series[read], names)
    if fill.any():
        moved = np.zeros(len(table), dtype=bool)
        moved[used[fill]] = True
        rows = rows.assign(**{schema.time: np.where(moved, begin[series], times)[read]})
        for name, value in schema.fill.items():
            rows[name] = _put(rows[name], moved[read], value)
    return History(rows, last_rows.reset_index(drop=True), names)


def horizon_rows(schema: Schema, history: History, future: Any = None) -> pd.DataFrame:
    """Make the rows after the last of every series.

    What is not known of them repeats the last row: targets and unknown variables must hold
    something that the host can scale, though nothing reads it.

    Parameters
    ----------
    schema : Schema
        Roles of the columns.
    history : History
        What comes before.
    future : pandas.DataFrame, optional
        What is known of the horizon.

    Raises
    ------
    TypeError, ValueError
        If a known variable has no value, or one that it cannot have.
    """
    count, horizon = len(history.names), schema.horizon
    series = np.repeat(np.arange(count), horizon)
    rows = history.last.iloc[series].reset_index(drop=True)
    rows[schema.time] += np.tile(np.arange(1, horizon + 1), count)
    if future is None:
        table, slots = history.last[:0], np.zeros(0, dtype=int)
    else:
        table, slots = _place(schema, history, future)

    # Each step takes its own row or, where the dataset may have gaps and a later row follows, the
    # one before it, which for -1 is the last of the history.
    own = np.full((count, horizon), -1)
    own.flat[slots] = np.arange(len(table))
    given = own >= 0
    followed = np.logical_or.accumulate(given[:, ::-1], axis=1)[:, ::-1]
    known = (given | (followed & schema.allow_gaps)).ravel()
    source = np.maximum.accumulate(own, axis=1).ravel()
    source = np.where(source < 0, series, count + source)
    for name in schema.known:
        if name in schema.fill:
            if name in table:
                rows[name] = _take(history.last[name], table[name], source)
            missing = ~given.ravel() | (name not in table)
            rows[name] = _put(rows[name], missing, schema.fill[name])
        elif known.all():
            rows[name] = _take(history.last[name], table[name], source)
        else:
            _raise_unknown(schema, rows, ~known, series, name, history.names, future is None)
    return rows


def _place(schema: Schema, history: History, future: Any) -> tuple[pd.DataFrame, np.ndarray]:
    """Check what is known of the future; return its rows in the horizon and their places there."""
    columns = getattr(future, "columns", ())
    present = [name for name in schema.known if name in columns or name not in schema.fill]
    table = schema.select(future, "future", [*schema.groups, schema.time, *present])
    numbers = {name: number for number, name in enumerate(history.names)}
    series, names = schema.number_series(table)
    strange = [name for name in names if name not in numbers]
    if strange:
        raise ValueError(
            f"{WHO}: future must be of series that data has the history of, got "
            f"{name_series(schema.groups, strange[0])}{more(len(strange) - 1)}; add the history or "
            f"drop these rows."
        )
    series = np.array([numbers[name] for name in names], dtype=int)[series]
    last = history.last[schema.time].to_numpy()
    steps = table[schema.time].to_numpy() - last[series] - 1
    slots = series * schema.horizon + steps
    order = np.argsort(slots, kind="stable")
    order = order[((steps >= 0) & (steps < schema.horizon))[order]]
    table, slots = table.iloc[order].reset_index(drop=True), slots[order]
    schema.check_values(table, "future", present, series[order], history.names)
    return table, slots


def _take(first: pd.Series, second: pd.Series, rows: np.ndarray) -> pd.Series:
    """Take rows of two columns, one below the other."""
    if second.empty:  # its type says nothing
        return first.take(rows).reset_index(drop=True)
    if first.dtype != second.dtype and isinstance(first.dtype, pd.CategoricalDtype):
        first = first.astype(object)
    return pd.concat([first, second], ignore_index=True).take(rows).reset_index(drop=True)


def _put(values: pd.Series, where: np.ndarray, value: Any) -> pd.Series:
    """Set a value in some rows, whatever the type of the column."""
    if not where.any():
        return values
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    return values.where(~where, value)


def _check_lengths(
    schema: Schema, steps: np.ndarray, rows: np.ndarray, short: np.ndarray, names: list[tuple]
) -> None:
    if short.any():
        first = int(short.argmax())
        lags = f" after the {schema.lag} rows that lags take up" if schema.lag else ""
        got = f"{steps[first]}, of {rows[first]} rows," if schema.lag else f"{steps[first]}"
        raise ValueError(
            f"{WHO}: every series must have at least {schema.min_history} steps of history"
            f"{lags}, as min_encoder_length of the dataset says, got {got} for "
            f"{name_series(schema.groups, names[first])}{more(int(short.sum()) - 1)}; add "
            f"earlier rows, leave the series out, or train with a smaller min_encoder_length."
        )


def _check_gaps(schema: Schema, times: np.ndarray, series: np.ndarray, names: list[tuple]) -> None:
    gaps = (np.diff(times) > 1) & (np.diff(series) == 0)
    if gaps.any() and not schema.allow_gaps:
        first = int(gaps.argmax())
        missing = range(int(times[first]) + 1, int(times[first + 1]))
        others = len(np.unique(series[:-1][gaps])) - 1
        raise ValueError(
            f"{WHO}: data must have a row for every time index, got none for "
            f"{name_series(schema.groups, names[series[first]])} at {schema.time}="
            f"{name_times(missing)}{more(others)}; add these rows, or train with "
            f"allow_missing_timesteps=True."
        )


def _raise_unknown(
    schema: Schema,
    rows: pd.DataFrame,
    missing: np.ndarray,
    series: np.ndarray,
    name: str,
    names: list[tuple],
    nothing_given: bool,
) -> None:
    first = series[missing][0]
    others = len(np.unique(series[missing])) - 1
    times = rows.loc[missing & (series == first), schema.time]
    columns = [*schema.groups, schema.time, *schema.known]
    mend = f"pass future, a DataFrame with the columns {columns}" if nothing_given else "add rows"
    raise ValueError(
        f"{WHO}: known variable {name!r} must have a value for every step of the horizon, got "
        f"none for {name_series(schema.groups, names[first])} at {schema.time}="
        f"{name_times(times)}{more(others)}; {mend}, or give the dataset a "
        f"constant_fill_strategy for it."
    )
