"""The rows that a forecast reads: the history of every series, and the horizon after it."""

from typing import Any, NamedTuple

import numpy as np

from ...._messages import and_more, format_series, format_times
from ....data.rows import Column, Labels, Rows, to_array
from .missing import check_observed
from .schema import Schema, Table

__all__ = ["History", "build_future_rows", "select_history", "trim_history"]


class History(NamedTuple):
    """The rows that forecasts start from.

    Attributes
    ----------
    rows : Rows
        All rows that are read.
    last : Rows
        The last row of every series.
    names : list of tuple
        Values of the group columns for every series.
    positions : numpy.ndarray
        Position of the last row of every series in the user's table.
    table : Table
        All rows, also those that are not read.
    """

    rows: Rows
    last: Rows
    names: list[tuple]
    positions: np.ndarray
    table: Table


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
    if not len(table.rows):
        raise ValueError(
            f"{schema.caller}: data must have rows to forecast from, got none; pass some."
        )
    return trim_history(schema, table)


def trim_history(schema: Schema, table: Table) -> History:
    """Select the last rows of every series, which its forecast reads, and check them.

    Parameters
    ----------
    schema : Schema
        Roles of the columns.
    table : Table
        The history of all series.

    Raises
    ------
    TypeError, ValueError
        If a value is not valid, or a series is too short.
    """
    series, times, names = table.rows.series, table.rows.times, table.names
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
    counts = last + 1 - first_used
    # from a series with fewer rows than that, it would drop rows of the horizon
    short = (steps < schema.min_history) | (counts < schema.max_lag)
    # a gap at the start of the window is filled like any other, from the row before it
    fill = short & (before_window >= first) & schema.allow_gaps & (schema.max_lag == 0)
    first_used[fill] = before_window[fill]
    _check_lengths(schema, steps, counts, short & ~fill, names)

    used = np.flatnonzero(np.arange(len(series)) >= first_used[series])
    rows, last_rows = table.rows[used], table.rows[last]
    _check_gaps(schema, rows, names)
    schema.check_values(rows, "data", [*schema.reals, *schema.encoders], names)
    check_observed(schema, rows, names)
    if fill.any():
        moved = np.isin(used, first_used[fill])
        columns = {
            name: _fill_where(rows.columns[name], moved, value)
            for name, value in schema.fill_values.items()
        }
        new_times = np.where(moved, window_start[rows.series], rows.times)
        rows = Rows({**rows.columns, **columns}, rows.series, new_times)
    return History(rows, last_rows, names, table.positions[last], table)


def build_future_rows(
    schema: Schema, history: History, future: Any = None, steps: int | None = None
) -> Rows:
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
    steps : int, optional
        Steps that are asked for. Default: the horizon of the dataset. There are rows for a multiple
        of that horizon; known variables may be missing after these steps, and are then repeated.

    Raises
    ------
    TypeError, ValueError
        If the table does not suit the dataset, or a known variable has no value.
    """
    steps = schema.horizon if steps is None else steps
    count, horizon = len(history.names), -(-steps // schema.horizon) * schema.horizon
    series = np.repeat(np.arange(count), horizon)
    times = history.last.times[series] + np.tile(np.arange(1, horizon + 1), count)
    rows = Rows(history.last[series].columns, series, times)
    if future is None:
        table, slots = history.last[:0], np.zeros(0, dtype=int)
    else:
        table, slots = _align_future(schema, history, future, horizon)

    # Each step takes its row in the table. If there is none, but gaps are allowed and a later row
    # exists, it takes the row before; -1 stands for the last row of the history.
    table_rows = np.full((count, horizon), -1)
    table_rows.flat[slots] = np.arange(len(table))
    given = table_rows >= 0
    has_later_row = np.logical_or.accumulate(given[:, ::-1], axis=1)[:, ::-1]
    known = given | (has_later_row & schema.allow_gaps)
    known[:, steps:] = True  # the forecast of these steps is not returned
    known = known.ravel()
    source = np.maximum.accumulate(table_rows, axis=1).ravel()
    source = np.where(source < 0, series, count + source)
    columns: dict[str, Column] = {}
    for name in schema.known:
        if name in schema.fill_values:
            values = rows.columns[name]
            if name in table.columns:
                values = _take_rows(history.last.columns[name], table.columns[name], source)
            missing = ~given.ravel() | (name not in table.columns)
            columns[name] = _fill_where(values, missing, schema.fill_values[name])
        elif known.all() and name in table.columns:
            columns[name] = _take_rows(history.last.columns[name], table.columns[name], source)
        else:
            _raise_unknown(schema, rows, ~known, name, history.names, future is None)
    return rows.assign(**columns)


def _align_future(
    schema: Schema, history: History, future: Any, horizon: int
) -> tuple[Rows, np.ndarray]:
    """Check the table of the future; return its rows in the horizon, and the slot of each.

    The slots are the steps of all horizons, series by series.
    """
    columns = getattr(future, "columns", ())
    present = [name for name in schema.known if name in columns or name not in schema.fill_values]
    table = schema.select(future, "future", dict.fromkeys([*schema.groups, schema.time, *present]))
    numbers = {name: number for number, name in enumerate(history.names)}
    unknown = [name for name in table.names if name not in numbers]
    if unknown:
        raise ValueError(
            f"{schema.caller}: future contains series that are missing from data, got "
            f"{format_series(schema.groups, unknown[0])}{and_more(len(unknown) - 1)}; add their "
            f"history to data, or drop these rows."
        )
    series = np.array([numbers[name] for name in table.names], dtype=int)[table.rows.series]
    steps = table.rows.times - history.last.times[series] - 1
    slots = series * horizon + steps
    order = np.argsort(slots, kind="stable")
    order = order[((steps >= 0) & (steps < horizon))[order]]
    rows, slots = table.rows[order], slots[order]
    rows = Rows(rows.columns, series[order], rows.times)
    schema.check_values(rows, "future", present, history.names)
    return rows, slots


def _take_rows(first: Column, second: Column, rows: np.ndarray) -> Column:
    """Take rows of the concatenation of two columns."""
    if isinstance(first, Labels) and isinstance(second, Labels):
        return first.append(second)[rows]
    if len(second) == 0:  # its dtype is arbitrary
        return to_array(first)[rows]
    return np.concatenate([to_array(first), to_array(second)])[rows]


def _fill_where(column: Column, mask: np.ndarray, value: Any) -> Column:
    """Set the masked rows of a column to a value."""
    if not mask.any():
        return column
    if isinstance(column, Labels):
        return column.where(mask, value)
    return np.where(mask, value, column)


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


def _check_gaps(schema: Schema, rows: Rows, names: list[tuple]) -> None:
    if schema.allow_gaps:
        return
    series, times = rows.series, rows.times
    gaps = (np.diff(times) > 1) & (np.diff(series) == 0)
    if gaps.any():
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
    rows: Rows,
    missing: np.ndarray,
    name: str,
    names: list[tuple],
    no_future: bool,
) -> None:
    first = rows.series[missing][0]
    others = len(np.unique(rows.series[missing])) - 1
    times = rows.times[missing & (rows.series == first)]
    columns = [*schema.groups, schema.time, *schema.known]
    hint = f"pass future, a DataFrame with the columns {columns}" if no_future else "add rows"
    raise ValueError(
        f"{schema.caller}: known variable {name!r} must have a value for every step of the "
        f"horizon, got none for {format_series(schema.groups, names[first])} at {schema.time}="
        f"{format_times(times)}{and_more(others)}; {hint}, or give the dataset a "
        f"constant_fill_strategy for it."
    )
