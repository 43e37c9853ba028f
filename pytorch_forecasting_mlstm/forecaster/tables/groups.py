"""The columns that tell the series of a table apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import InputError, format_rows, quoted
from .columns import is_name


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


def match_series(known: pd.DataFrame, groups: pd.DataFrame) -> np.ndarray:
    """Return the number of each series among the known ones; new ones get the numbers after them.

    Parameters
    ----------
    known, groups : pandas.DataFrame
        One row per series, with the same columns.
    """
    if known.columns.empty:
        return np.arange(len(groups))
    keys = {key: number for number, key in enumerate(known.itertuples(index=False, name=None))}
    return np.array(
        [keys.setdefault(key, len(keys)) for key in groups.itertuples(index=False, name=None)],
        dtype=int,
    )


def merge_groups(known: pd.DataFrame, groups: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return all series, the known ones first, and the number of each series of `groups` in them.

    Parameters
    ----------
    known, groups : pandas.DataFrame
        One row per series, with the same columns.
    """
    numbers = match_series(known, groups)
    new = groups[numbers >= len(known)]
    return pd.concat([known, new], ignore_index=True) if len(new) else known, numbers
