"""Check the columns of a panel: groups, targets, and columns known in advance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api import types

from .columns import is_name
from .errors import Argument, InputError, format_rows, quoted

_MAX_TARGET = 1e300  # of a target: sums and differences of such numbers are still finite


def read_groups(data: pd.DataFrame, group: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Assign each row its series, numbered in the order of first rows.

    Returns
    -------
    groups : pandas.DataFrame
        One row per series, its group columns; no columns if `group` is empty.
    series : numpy.ndarray
        (rows of `data`,): number of the series.
    """
    if not group:
        return pd.DataFrame(index=[0]), np.zeros(len(data), dtype=int)
    for name in group:
        unusable = data[name].map(lambda value: not is_name(value)).to_numpy(bool)
        if unusable.any():
            rows = unusable.nonzero()[0].tolist()
            raise InputError(
                f"group column {quoted(name)} holds {quoted(data[name].iloc[rows[0]])} in "
                f"{format_rows(rows)}: write names as text or numbers"
            )
        empty = (data[name].isna() | (data[name].astype(str).str.strip() == "")).to_numpy()
        if empty.any():
            raise InputError(
                f"group column {quoted(name)} is empty in "
                f"{format_rows(empty.nonzero()[0].tolist())}: name the series there, or drop the "
                "rows"
            )
    series = data.groupby(group, sort=False, observed=True).ngroup().to_numpy()
    first = np.unique(series, return_index=True)[1]
    return data[group].iloc[first].reset_index(drop=True), series


def check_targets(
    values: np.ndarray, rows: np.ndarray, target: str, ahead: int, label: str
) -> None:
    """Check that the targets of a series are finite, except for the last `ahead`, all empty.

    Parameters
    ----------
    values : numpy.ndarray
        The targets of one series, oldest first.
    rows : numpy.ndarray
        Their rows in the table, for messages.
    target : str
        Name of the column.
    ahead : int
        Steps of the horizon that the table contains: 0 without known columns.
    label : str
        Name of the series.
    """
    past = len(values) - ahead
    ends_with_horizon = (
        past > 0 and np.isnan(values[past:]).all() and not np.isnan(values[past - 1])
    )
    if ahead and not ends_with_horizon:
        empty = len(values) - 1 - np.flatnonzero(~np.isnan(values)).max(initial=-1)
        raise InputError(
            f"{label}: ends with {empty} rows without {quoted(target)}, but ",
            Argument("known"),
            f" needs exactly {ahead}, one per step of ",
            Argument("horizon"),
            ", to hold what is known in advance",
        )
    bad = np.flatnonzero(~np.isfinite(values[:past]))
    if len(bad):
        kind = "infinite" if np.isinf(values[bad[0]]) else "empty"
        raise InputError(
            f"{label}: column {quoted(target)} is {kind} in {format_rows(rows[bad].tolist())}: "
            "fill in a number, or drop leading and trailing rows"
        )
    bad = np.flatnonzero(np.abs(values[:past]) > _MAX_TARGET)
    if len(bad):
        raise InputError(
            f"{label}: column {quoted(target)} is {values[bad[0]]:g} in "
            f"{format_rows(rows[bad].tolist())}, too large to add up: use a unit in which it stays "
            f"below {_MAX_TARGET:g}"
        )


def read_known(
    data: pd.DataFrame, names: Sequence[str], rows: list[np.ndarray], source: str
) -> list[pd.DataFrame]:
    """Return the columns known in advance, per series: numbers as float64, others as text."""
    columns = {}
    for name in names:
        column = data[name]
        numeric = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
        values = column.to_numpy(dtype=float, na_value=np.nan) if numeric else column.astype(object)
        bad = np.flatnonzero(~np.isfinite(values) if numeric else column.isna())
        if len(bad):
            raise InputError(
                f"{source}: column {quoted(name)} is empty or infinite in "
                f"{format_rows(bad.tolist())}: ",
                Argument("known"),
                " columns must be filled in everywhere, over the horizon too",
            )
        columns[name] = values if numeric else column.astype(str)
    frame = pd.DataFrame(columns)
    return [frame.iloc[rows_of_series].reset_index(drop=True) for rows_of_series in rows]
