"""Checks of a table whose errors pytorch-forecasting does not explain."""

import pandas as pd

from .._messages import and_more, format_series

__all__ = ["check_duplicates", "check_index"]


def check_index(table: pd.DataFrame, caller: str) -> None:
    """Raise if two rows of a table have the same label, as after a concatenation.

    Parameters
    ----------
    table : pandas.DataFrame
        The table.
    caller : str
        Who needs the table, and its name: how the message begins.
    """
    if not table.index.is_unique:
        label = table.index[table.index.duplicated()][:1].tolist()[0]
        raise ValueError(
            f"{caller} must have a unique index, got several rows with the label {label!r}; call "
            f"reset_index(drop=True) first."
        )


def check_duplicates(table: pd.DataFrame, groups: list[str], time: str, caller: str) -> None:
    """Raise if a series has several rows for one time.

    Parameters
    ----------
    table : pandas.DataFrame
        The table.
    groups : list of str
        Columns that name the series.
    time : str
        The time index.
    caller : str
        Who needs the table, and its name: how the message begins.
    """
    keys = [*groups, time]
    duplicated = table.duplicated(keys)
    if duplicated.any():
        *key, step = table.loc[duplicated, keys].iloc[0]
        raise ValueError(
            f"{caller} must have one row per series and time index, got several for "
            f"{format_series(groups, key)} at {time}={step}"
            f"{and_more(int(duplicated.sum()) - 1, 'such rows')}; add up or drop these rows."
        )
