"""Choose series of tidy tables by the values of their group columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..._messages import printable
from ..errors import Argument, InputError, quoted

MAX_PANELS = 6  # without a choice
_MAX_CHOSEN = 60  # panels: a larger image could not be written
_MAX_NAMED = 5  # series in a message


def choose_series(
    table: pd.DataFrame, group: Sequence[str], series: Any = None
) -> tuple[list[tuple], int]:
    """Return the keys of the chosen series, and the number of series in the table.

    Parameters
    ----------
    table : pandas.DataFrame
        A tidy table.
    group : sequence of str
        Columns that identify a series.
    series : optional
        One key or several: a value of the group column, or a tuple of values for several columns.
        Default: the first six series.

    Raises
    ------
    InputError
        If the table has no rows or no such series.

    Examples
    --------
    >>> table = pd.DataFrame({"store": ["a", "a", "b"], "item": [1, 2, 1]})
    >>> choose_series(table, ["store", "item"], ("a", 2)), choose_series(table, ["store"], "b")
    (([('a', 2)], 3), ([('b',)], 2))
    """
    if not len(table):
        raise InputError("there is no forecast to draw: forecast at least one series first")
    keys: list[tuple] = [()]
    if group:
        unique = table[list(group)].drop_duplicates()
        keys = list(unique.itertuples(index=False, name=None))
    if series is None:
        return keys[:MAX_PANELS], len(keys)
    if not group:
        raise InputError(
            Argument("series"), f" is {quoted(series)}, but there is one series only: leave it out"
        )
    chosen = [_as_key(key) for key in _as_list(series, len(group))]
    for key in chosen:
        if key not in keys:
            known = ", ".join(quoted(_shown(known)) for known in keys[:_MAX_NAMED])
            more = ", ..." if len(keys) > _MAX_NAMED else ""
            raise InputError(
                f"no series {quoted(_shown(key))} in the forecast: choose ",
                Argument("series"),
                f" from {known}{more}",
            )
    if not 1 <= len(chosen) <= _MAX_CHOSEN:
        raise InputError(
            f"{len(chosen)} series to draw: choose between 1 and {_MAX_CHOSEN} with ",
            Argument("series"),
        )
    return list(dict.fromkeys(chosen)), len(keys)


def rows_of(table: pd.DataFrame, group: Sequence[str], key: tuple) -> pd.DataFrame:
    """Return the rows of one series."""
    is_chosen = np.ones(len(table), dtype=bool)
    for name, value in zip(group, key, strict=True):
        is_chosen &= (table[name] == value).to_numpy(dtype=bool, na_value=False)
    return table[is_chosen]


def label_of(group: Sequence[str], key: tuple, max_length: int = 100) -> str:
    """Name a series; a long name loses its columns first, then the middle of its values.

    Examples
    --------
    >>> label_of(["store", "item"], ("north", 7)), label_of(["store", "item"], ("north", 7), 12)
    ('store=north, item=7', 'north, 7')
    >>> label_of(["store"], ("the shop at Main Street 12",), 16)
    'the sho...eet 12'
    """
    values = [printable(value) for value in key]
    pairs = zip(group, values, strict=True)
    label = ", ".join(f"{printable(name)}={value}" for name, value in pairs)
    if len(label) > max_length:
        label = ", ".join(values)
    if len(label) > max_length:
        room = max_length - 2 * (len(values) - 1)
        for waiting, k in enumerate(sorted(range(len(values)), key=lambda k: len(values[k]))):
            values[k] = _shorten(values[k], max(7, room // (len(values) - waiting)))
            room -= len(values[k])  # what short values leave is for the longer ones
        label = ", ".join(values)
    return label


def _shorten(text: str, max_length: int) -> str:
    """Cut the middle of a text: names often differ at the end."""
    if len(text) <= max_length:
        return text
    end = (max_length - 3) // 2
    return f"{text[: max_length - 3 - end]}...{text[-end:]}"


def _as_list(series: Any, columns: int) -> list[Any]:
    if isinstance(series, str) or not isinstance(series, Sequence | np.ndarray | pd.Series):
        return [series]
    values = list(series)
    is_key = isinstance(series, tuple) and len(values) == columns > 1
    return [series] if is_key and not any(isinstance(value, tuple) for value in values) else values


def _as_key(key: Any) -> tuple:
    return tuple(key) if isinstance(key, tuple | list) else (key,)


def _shown(key: tuple) -> object:
    return key[0] if len(key) == 1 else key
