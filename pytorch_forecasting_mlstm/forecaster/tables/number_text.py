"""Numbers written as text: read those with one meaning, and refuse the others.

1.003 is 1.003 in one file and 1003 in another. A column of such text is read if it, another column,
or the user says which mark is the decimal one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

import pandas as pd

from ..errors import Argument, InputError, format_rows, quoted

_EMPTY = {"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-nan", "#N/A", "<NA>"}
_BOOLEANS = {"true": True, "false": False}
_MAX_LENGTH = 100  # characters of a number

_SPACES = " \u00a0\u2007\u2009\u202f"  # also those that do not break, or are narrow
_MARKS = f"{_SPACES}'\u2019\u02bc_"  # that stand between thousands only
_GROUPS = r"[1-9]\d{{0,2}}([{}])\d{{3}}(?:\1\d{{3}})*".format
_CURRENCY = r"(?:[$€£¥₹₽₩₺₿]|R\$|USD|EUR|CHF|GBP|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|Fr\.|kr\.?|zł)"
#: What a text can be, in the order of trial: "open" marks are decimal ones or stand between
#: thousands; "decorated" numbers have a sign for percent or a currency.
_KINDS = {
    kind: re.compile(pattern, re.ASCII | re.IGNORECASE)
    for kind, pattern in {
        "whole": r"[+-]?(\d+(e[+-]?\d+)?|inf(inity)?)",
        "open .": r"[+-]?[1-9]\d{0,2}\.\d{3}",
        "open ,": r"[+-]?[1-9]\d{0,2},\d{3}",
        ".": r"[+-]?(\d+\.\d*|\.\d+)(e[+-]?\d+)?",
        ",": r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?",
        "grouped": rf"[+-]?{_GROUPS(f'.,{_MARKS}')}([.,]\d*)?",
        "decorated": rf"\(?{_CURRENCY}?[{_SPACES}]*[+\-\u2212\u2013]?[{_SPACES}]*{_CURRENCY}?"
        rf"[{_SPACES}]*(?:{_GROUPS(f'.,{_MARKS}')}(?:[.,]\d*)?|\d+(?:[.,]\d*)?|[.,]\d+)"
        rf"(?:[{_SPACES}]*(?:{_CURRENCY}|%|‰|[\-\u2013\u2014]+))?\)?",
    }.items()
}


def convert_numbers(
    table: pd.DataFrame,
    numbers: Sequence[str],
    others: Sequence[str],
    source: str,
    *,
    separator: str = "",
    decimal: str | None = None,
) -> None:
    """Convert columns of text in place where all values are numbers, or booleans.

    Parameters
    ----------
    table : pandas.DataFrame
        With columns of text, of other values, or of both.
    numbers, others : sequence of str
        Columns of numbers, and columns that may also hold classes or booleans.
    source : str
        Name of the file, for messages.
    separator : str
        That of the cells. A comma cannot be the decimal mark then, unless `decimal` says so.
    decimal : str, optional
        The decimal mark, "." or ",". Default: what the columns say.

    Raises
    ------
    InputError
        If a number can be read in two ways, or has a sign for percent or a currency.
    """
    texts = {name: _texts(table[name]) for name in (*numbers, *others)}
    kinds = {name: text.map(_kind) for name, text in texts.items()}
    certain = {kind for column in kinds.values() for kind in column.unique()} & {".", ","}
    certain -= {separator}
    for name, text in texts.items():
        values = text
        if name in others and text.str.lower().isin(_BOOLEANS).all():
            values = text.str.lower().map(_BOOLEANS)
        elif not (kinds[name] == "text").any():
            where = f"{source}, column {quoted(name)}"
            values = _read(text, kinds[name], where, separator, certain, decimal)
        table[name] = _put(table[name], values)


def _texts(column: pd.Series) -> pd.Series:
    """Return the cells that are text, stripped, without those that are empty."""
    texts = column[_is_text(column)].astype(object).str.strip()
    return texts[~texts.isin(_EMPTY)]


def _put(column: pd.Series, values: pd.Series) -> pd.Series:
    """Return a column with its text replaced by values; other text is empty."""
    is_text = _is_text(column)
    if not is_text.any():
        return column
    result = column.astype(object).where(~is_text, None)
    result[values.index] = values.astype(object)
    return result.infer_objects()


def _is_text(column: pd.Series) -> pd.Series:
    return column.map(lambda value: isinstance(value, str)).astype(bool)


def _kind(text: str) -> str:
    """Return the kind of a text, "text" if it is no number."""
    if len(text) > _MAX_LENGTH:
        return "text"
    return next((kind for kind, form in _KINDS.items() if form.fullmatch(text)), "text")


def _read(
    text: pd.Series,
    kinds: pd.Series,
    where: str,
    separator: str,
    certain: set[str],
    decimal: str | None,
) -> pd.Series:
    """Read a column of numbers; `certain` are the decimal marks of the whole file."""
    if (kinds == "decorated").any():
        cure = "is no plain number: remove signs of percent and currencies and parentheses, and "
        _refuse(text[kinds == "decorated"], where, cure + "begin negative numbers with -")
    own = set(kinds.unique()) & {".", ","}
    marks = {decimal} if decimal else own or certain
    mark = min(marks) if len(marks) == 1 else ""
    is_grouped = pd.Series(False, text.index)
    if decimal:
        between = f"{'.' if decimal == ',' else ','}{_MARKS}"
        form = re.compile(rf"[+-]?{_GROUPS(between)}([{decimal}]\d*)?", re.ASCII)
        is_grouped = text.map(lambda value: form.fullmatch(value) is not None).astype(bool)
        text = text.where(~is_grouped, text.str.replace(rf"[{between}]", "", regex=True))
    unread = ~(is_grouped | kinds.isin({"whole", mark, f"open {mark}"}))
    if not decimal and mark == separator and mark in own:
        unread |= kinds == mark
    if unread.any() and decimal:
        cure = f"is no number with the decimal mark {quoted(decimal)}: correct it, or choose the "
        _refuse(text[unread], where, cure + "other ", Argument("decimal"))
    if unread.any():
        cure = "has a mark that may be the decimal one or stand between thousands: write decimals "
        if kinds[unread].iloc[0] == "grouped":
            cure = "has marks between thousands: write decimals "
        cure += "with a point and thousands without a mark, or name the decimal mark, . or , with "
        _refuse(text[unread], where, cure, Argument("decimal"))
    return pd.to_numeric(text.str.replace(mark, ".") if mark else text)


def _refuse(found: pd.Series, where: str, *parts: str) -> NoReturn:
    rows = format_rows(found.index.tolist())
    raise InputError(f"{where}: {quoted(found.iloc[0])} in {rows} {parts[0]}", *parts[1:])
