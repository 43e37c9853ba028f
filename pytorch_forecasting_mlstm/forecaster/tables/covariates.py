"""Read covariates as numbers or classes, depending on their type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from ..errors import Argument, InputError, format_rows, quoted
from .columns import is_name, plain_values, read_numbers, sort_of_values

#: The class of rows without a value. It is a class like others: a model can learn from it.
MISSING = "(missing)"

_HINTS = {
    "dates": "write what matters about them as numbers or text, such as the age in days or the "
    "season",
    "durations": "write them as numbers in one unit, such as dt.total_seconds()",
    "times of day": "write them as numbers, such as the hour, or as text",
    "complex numbers": "write real and imaginary part as two columns",
}


@dataclass(frozen=True)
class Covariate:
    """The values of a covariate.

    Attributes
    ----------
    values
        (N,): float64, with NaN where a value is missing; or classes as text, without a gap.
    is_real
        Whether the values are numbers.
    """

    values: np.ndarray
    is_real: bool


def read_covariate(
    column: pd.Series, name: str, role: str, is_real: bool | None = None
) -> Covariate:
    """Read a covariate as numbers or classes, depending on its type.

    Numbers and booleans, as 0 and 1, are real; text, categories and mixtures of both are classes.
    Classes are told apart by their text, where 2.0 is written as 2: a column of whole numbers
    becomes one of floats if a value is missing. An empty value is NaN among numbers and the class
    `MISSING` among classes, and so is blank text.

    Parameters
    ----------
    column : pandas.Series
        (N,).
    name : str
        Name of the column.
    role : {"known", "past", "static"}
        Name of the argument that lists the column.
    is_real : bool, optional
        What the column was when the model was fitted, since a later table may lack a value or hold
        text where numbers stood. By default, decide by type.

    Raises
    ------
    InputError
        If the column holds dates, durations or complex numbers; lists or the like; infinite
        numbers; or, unless `is_real` is given, no value.

    Examples
    --------
    >>> read_covariate(pd.Series(["rain", None]), "weather", "past").values.tolist()
    ['rain', '(missing)']
    >>> read_covariate(pd.Series([True, False]), "promo", "known")
    Covariate(values=array([1., 0.]), is_real=True)
    """
    where = f"column {quoted(name)}"
    sort = sort_of_values(plain_values(column))
    if sort in _HINTS:
        raise InputError(
            f"{where}: holds {sort}, which ", Argument(role), f" cannot use: {_HINTS[sort]}"
        )
    if is_real is None:
        if column.isna().all():
            raise InputError(f"{where} is empty in every row: remove it from ", Argument(role))
        is_real = not isinstance(column.dtype, pd.CategoricalDtype) and (
            sort == "numbers" or bool(column.dropna().map(_is_number).all())
        )
    if is_real:
        return Covariate(read_numbers(column, where, "a column fitted with numbers"), True)
    return Covariate(_read_classes(column, where, role), False)


def read_static(
    covariate: Covariate, series: np.ndarray, name: str, label: Callable[[int], str]
) -> Covariate:
    """Reduce a static covariate to one value per series.

    Rows without a value, such as those of the future, take that of their series.

    Parameters
    ----------
    covariate : Covariate
        (N,) values.
    series : numpy.ndarray
        (N,): number of each row's series, from 0 to S - 1, each with a row.
    name : str
        Name of the column.
    label : callable
        Returns the name of a series, for messages.

    Returns
    -------
    Covariate
        (S,) values.

    Raises
    ------
    InputError
        If a series has two values.

    Examples
    --------
    >>> sizes = Covariate(np.array([4.0, np.nan, 7.0]), is_real=True)
    >>> read_static(sizes, np.array([0, 0, 1]), "size", "store {}".format).values.tolist()
    [4.0, 7.0]
    """
    values = covariate.values
    missing = np.isnan(values) if covariate.is_real else values == MISSING
    rows = np.flatnonzero(~missing)
    numbers, first = np.unique(series[rows], return_index=True)
    empty = np.nan if covariate.is_real else MISSING
    static = np.full(int(series.max(initial=-1)) + 1, empty, dtype=values.dtype)
    static[numbers] = values[rows[first]]
    differs = np.flatnonzero(static[series[rows]] != values[rows])
    if len(differs):
        row = int(rows[differs[0]])
        number = int(series[row])
        raise InputError(
            f"{label(number)}: column {quoted(name)} changes from {quoted(static[number])} to "
            f"{quoted(values[row])} in row {row + 1}: ",
            Argument("static"),
            " columns must have one value per series; list it under ",
            Argument("known"),
            " or ",
            Argument("past"),
            " instead",
        )
    return Covariate(static, covariate.is_real)


def _is_number(value: object) -> bool:
    return isinstance(value, Real | Decimal | np.bool_)


def _read_classes(column: pd.Series, where: str, role: str) -> np.ndarray:
    """Return classes as text."""
    objects = column.astype(object)
    present = objects.notna()
    unusable = np.flatnonzero(
        (present & objects.map(lambda value: not is_name(value)).astype(bool)).to_numpy(bool)
    )
    if len(unusable):
        raise InputError(
            f"{where}: holds {quoted(objects.iloc[unusable[0]])} in "
            f"{format_rows(unusable.tolist())}, which ",
            Argument(role),
            " cannot use: write classes as text",
        )
    codes, classes = pd.factorize(objects)
    texts = np.array([*map(_class_text, classes), MISSING], dtype=object)
    return texts[codes]  # -1, the code of a missing value, selects the last


def _class_text(value: Any) -> str:
    if isinstance(value, float | np.floating | Decimal) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return text if text.strip() else MISSING
