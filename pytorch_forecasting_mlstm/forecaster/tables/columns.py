"""Read the columns of a table as numbers, and tell what a column holds."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..errors import InputError, format_rows, quoted

#: Sorts of columns by what `pandas.api.types.infer_dtype` finds. All others are text.
_SORTS = {
    **dict.fromkeys(
        ("boolean", "integer", "floating", "mixed-integer-float", "decimal"), "numbers"
    ),
    **dict.fromkeys(("datetime64", "datetime", "date", "period"), "dates"),
    **dict.fromkeys(("timedelta64", "timedelta"), "durations"),
    "time": "times of day",
    "complex": "complex numbers",
}


def read_numbers(column: pd.Series, where: str, what: str = "a target") -> np.ndarray:
    """Convert a column to float64, with NaN where it is empty.

    Parameters
    ----------
    column : pandas.Series
        (N,), of numbers or booleans of any type, nullable ones and decimals too, or of text that
        contains numbers.
    where, what : str
        Names of the column and of its use, for messages.

    Returns
    -------
    numpy.ndarray
        (N,), a copy.

    Raises
    ------
    InputError
        If a value is not a number, or is infinite.

    Examples
    --------
    >>> read_numbers(pd.Series([True, None], dtype="boolean"), "column 'open'").tolist()
    [1.0, nan]
    """
    column = plain_values(column)
    sort = sort_of_values(column)
    if sort not in ("numbers", "text"):
        raise InputError(f"{where}: holds {sort}, {what} must be a number")
    numeric = types.is_numeric_dtype(column.dtype)
    numbers = column if numeric else _parse(column, where, what)
    values = np.array(numbers.to_numpy(dtype=float, na_value=np.nan))
    infinite = np.isinf(values).nonzero()[0].tolist()
    if infinite:
        raise InputError(
            f"{where} is infinite in {format_rows(infinite)}: fill in a number, or leave it empty"
        )
    return values


def plain_values(column: pd.Series) -> pd.Series:
    """Replace encoded values, such as categories, by the values themselves."""
    is_known = isinstance(column.dtype, np.dtype) or types.is_numeric_dtype(column.dtype)
    return column if is_known else column.astype(object)


def sort_of_values(column: pd.Series) -> str:
    """Return "numbers", "text" or a sort of values that is neither."""
    return _SORTS.get(types.infer_dtype(column, skipna=True), "text")


def _parse(column: pd.Series, where: str, what: str) -> pd.Series:
    """Convert objects and text to numbers."""
    numbers = column
    with suppress(TypeError, OverflowError):  # values that cannot be hashed, or huge numbers
        numbers = pd.to_numeric(column, errors="coerce")
    if not types.is_numeric_dtype(numbers.dtype):
        numbers = column.map(_to_float).astype(float)
    is_text = (numbers.isna() & column.notna()).to_numpy(bool)
    if not is_text.any():
        return numbers
    texts = column.loc[is_text]
    if texts.map(lambda value: str(value).count(",") == 1).all():
        numbers = pd.to_numeric(column.astype(str).str.replace(",", "."), errors="coerce")
        if (numbers.notna() | column.isna()).all():
            raise InputError(
                f"{where}: {quoted(texts.iloc[0])} may have a decimal comma or a thousands "
                "separator: write decimals with a point"
            )
    raise InputError(
        f"{where}: holds text such as {quoted(texts.iloc[0])} in "
        f"{format_rows(is_text.nonzero()[0].tolist())}: {what} must be a number"
    )


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan


def is_name(value: object) -> bool:
    """Tell whether a value can name a class or a series.

    Examples
    --------
    >>> is_name("north"), is_name(7), is_name(b"north"), is_name(["north"])
    (True, True, False, False)
    """
    if isinstance(value, bytes | bytearray) or not isinstance(value, Hashable):
        return False
    try:
        hash(value)  # a tuple that holds a list is an instance of Hashable
    except TypeError:
        return False
    return True
