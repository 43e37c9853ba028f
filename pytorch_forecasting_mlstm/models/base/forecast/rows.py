"""The rows that a forecast reads: the history of every series, and the horizon after it."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...._messages import and_more, format_series, format_times
from .missing import check_observed
from .schema import Schema

__all__ = ["History", "build_future_rows", "select_history"]


class History(NamedTuple):
    """The rows that forecasts start from.

    Attributes
    ----------
    rows : pandas.DataFrame
        All rows that are read, sorted by series and time.
    last : pandas.DataFrame
        The last row of every series, in the order of their first appearance in the table.
    names : list of tuple
        Values of the group columns for every series.
    """

    rows: pd.DataFrame
    last: pd.DataFrame
    names: list[tuple]


def select_history(schema: Schema, data: Any) -> History:
    """Check a table, and select the last rows of every series, which its forecast reads.

    Parameters
    ----------
    schema : Schema
        Roles of the columns.
    data : pandas.DataFrame
        The history of all series.

    Raises
    ------
    TypeError, ValueError
        If the table does not suit the dataset, or a series is too short.
    """
    table = schema.select(data, "data", schema.columns)
    if table.empty:
        raise ValueError(
            f"{schema.caller}: data must have rows to forecast from, got none; pass some."
        )
    series, names = schema.number_series(table)
    order = np.lexsort((table[schema.time], series))
    table, series = table.iloc[order].reset_index(drop=True), series[order]

    times = table[schema.time].to_numpy()
    last = np.append(np.flatnonzero(np.diff(series)), len(series) - 1)
    first = np.append(0, last[:-1] + 1)
    window_start = times[last] - schema.max_history + 1
    in_window = np.bincount(series, times >= window_start[series]).astype(int)
    before_window = last - in_window
    first_used = np.maximum(first, before_window + 1 - schema.max_lag)
    # pytorch-forecasting drops as many rows as the largest lag
    start = np.minimum(first_used + schema.max_lag, last + 1)
    steps = times[last] + 1 - np.append(times, 0)[start]
    steps[start > last] = 0
    rows = last + 1 - first_used
    # from a series with fewer rows than that, it would drop rows of the horizon
    short = (steps < schema.min_history) | (rows < schema.max_lag)
    # a gap at the start of the window is filled like any other, from the row before it
    fill = short & (before_window >= first) & schema.allow_gaps & (schema.max_lag == 0)
    first_used[fill] = before_window[fill]
    _check_lengths(schema, steps, rows, short & ~fill, names)

    used = np.arange(len(table)) >= first_used[series]
    _check_gaps(schema, times[used], series[used], names)
    rows, last_rows = table[used], table.iloc[last]
    schema.check_values(rows, "data", [*schema.reals, *schema.encoders], series[used], names)
    check_observed(schema, rows, series[used], names)
    if fill.any():
        moved = np.zeros(len(table), dtype=bool)
        moved[first_used[fill]] = True
        rows = rows.assign(**{schema.time: np.where(moved, window_start[series], times)[used]})
        for name, value in schema.fill_values.items():
            rows[name] = _fill_where(rows[name], moved[used], value)
    return History(rows, last_rows.reset_index(drop=True), names)


def build_future_rows(schema: Schema, history: History, future: Any = None) -> pd.DataFrame:
    """Build the rows of the horizon, which follow the last row of every series.

    Targets and unknown variables repeat the last row: pytorch-forecasting must be able to scale
    them, but the forecast does not depend on them.

    Parameters
    ----------
    schema : Schema
        Roles of the columns.
    history : History
        The history of all series.
    future : pandas.DataFrame, optional
        Known variables of the horizon.

    Raises
    ------
    TypeError, ValueError
        If the table does not suit the dataset, or a known variable has no value.
    """
    count, horizon = len(history.names), schema.horizon
    series = np.repeat(np.arange(count), horizon)
    rows = history.last.iloc[series].reset_index(drop=True)
    rows[schema.time] += np.tile(np.arange(1, horizon + 1), count)
    if future is None:
        table, slots = history.last[:0], np.zeros(0, dtype=int)
    else:
        table, slots = _align_future(schema, history, future)

    # Each step takes its row in the table. If there is none, but gaps are allowed and a later row
    # exists, it takes the row before; -1 stands for the last row of the history.
    table_rows = np.full((count, horizon), -1)
    table_rows.flat[slots] = np.arange(len(table))
    given = table_rows >= 0
    has_later_row = np.logical_or.accumulate(given[:, ::-1], axis=1)[:, ::-1]
    known = (given | (has_later_row & schema.allow_gaps)).ravel()
    source = np.maximum.accumulate(table_rows, axis=1).ravel()
    source = np.where(source < 0, series, count + source)
    for name in schema.known:
        if name in schema.fill_values:
            if name in table:
                rows[name] = _take_rows(history.last[name], table[name], source)
            missing = ~given.ravel() | (name not in table)
            rows[name] = _fill_where(rows[name], missing, schema.fill_values[name])
        elif known.all():
            rows[name] = _take_rows(history.last[name], table[name], source)
        else:
            _raise_unknown(schema, rows, ~known, series, name, history.names, future is None)
    return rows


def _align_future(schema: Schema, history: History, future: Any) -> tuple[pd.DataFrame, np.ndarray]:
    """Check the table of the future; return its rows in the horizon, and the slot of each.

    The slots are the steps of all horizons, series by series.
    """
    columns = getattr(future, "columns", ())
    present = [name for name in schema.known if name in columns or name not in schema.fill_values]
    table = schema.select(future, "future", [*schema.groups, schema.time, *present])
    numbers = {name: number for number, name in enumerate(history.names)}
    series, names = schema.number_series(table)
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise ValueError(
            f"{schema.caller}: future contains series that are missing from data, got "
            f"{format_series(schema.groups, unknown[0])}{and_more(len(unknown) - 1)}; add their "
            f"history to data, or drop these rows."
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


def _take_rows(first: pd.Series, second: pd.Series, rows: np.ndarray) -> pd.Series:
    """Take rows of the concatenation of two columns."""
    if second.empty:  # its dtype is arbitrary
        return first.take(rows).reset_index(drop=True)
    if first.dtype != second.dtype and isinstance(first.dtype, pd.CategoricalDtype):
        first = first.astype(object)
    return pd.concat([first, second], ignore_index=True).take(rows).reset_index(drop=True)


def _fill_where(values: pd.Series, mask: np.ndarray, value: Any) -> pd.Series:
    """Set the masked rows of a column of any dtype to a value."""
    if not mask.any():
        return values
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    return values.where(~mask, value)


def _check_lengths(
    schema: Schema, steps: np.ndarray, rows: np.ndarray, short: np.ndarray, names: list[tuple]
) -> None:
    if short.any():
        first = int(short.argmax())
        lags = f" after the {schema.max_lag} rows that lags use up" if schema.max_lag else ""
        got = f"{steps[first]}, of {rows[first]} rows," if schema.max_lag else f"{steps[first]}"
        raise ValueError(
            f"{schema.caller}: every series must have at least {schema.min_history} steps of "
            f"history{lags}, the min_encoder_length of the dataset, got {got} for "
            f"{format_series(schema.groups, names[first])}{and_more(int(short.sum()) - 1)}; add "
            f"earlier rows, leave the series out, or train with a smaller min_encoder_length."
        )


def _check_gaps(schema: Schema, times: np.ndarray, series: np.ndarray, names: list[tuple]) -> None:
    gaps = (np.diff(times) > 1) & (np.diff(series) == 0)
    if gaps.any() and not schema.allow_gaps:
        first = int(gaps.argmax())
        missing = range(int(times[first]) + 1, int(times[first + 1]))
        others = len(np.unique(series[:-1][gaps])) - 1
        raise ValueError(
            f"{schema.caller}: data must have a row for every time index, got none for "
            f"{format_series(schema.groups, names[series[first]])} at {schema.time}="
            f"{format_times(missing)}{and_more(others)}; add these rows, or train with "
            f"allow_missing_timesteps=True."
        )


def _raise_unknown(
    schema: Schema,
    rows: pd.DataFrame,
    missing: np.ndarray,
    series: np.ndarray,
    name: str,
    names: list[tuple],
    no_future: bool,
) -> None:
    first = series[missing][0]
    others = len(np.unique(series[missing])) - 1
    times = rows.loc[missing & (series == first), schema.time]
    columns = [*schema.groups, schema.time, *schema.known]
    hint = f"pass future, a DataFrame with the columns {columns}" if no_future else "add rows"
    raise ValueError(
        f"{schema.caller}: known variable {name!r} must have a value for every step of the "
        f"horizon, got none for {format_series(schema.groups, names[first])} at {schema.time}="
        f"{format_times(times)}{and_more(others)}; {hint}, or give the dataset a "
        f"constant_fill_strategy for it."
    )
