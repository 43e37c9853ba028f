"""Numbers written as text: read those with one meaning, and refuse the others.

1.003 is 1.003 in one file and 1003 in another. A column of such text is read if its file, or the
user, says which mark is the decimal one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from ..forecaster import InputError
from ..forecaster.errors import Argument, format_rows, quoted

_EMPTY = {"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-nan", "#N/A", "<NA>"}
_BOOLEANS = {"true": True, "false": False}
_MAX_LENGTH = 100  # characters of a number

_SPACES = " \u00a0\u2007\u2009\u202f"  # between thousands; the others are of fixed width or narrow
_MARKS = f"{_SPACES}'\u2019\u02bc_"  # that stand between thousands only
_WHOLE = re.compile(r"[+-]?(\d+(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)
_DECIMAL = {
    mark: re.compile(rf"[+-]?(\d+[{mark}]\d*|[{mark}]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
    for mark in ".,"
}
_OPEN = {mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}[{mark}]\d{{3}}", re.ASCII) for mark in ".,"}
_GROUPS = rf"[1-9]\d{{0,2}}([.,{_MARKS}])\d{{3}}(\1\d{{3}})*"
_GROUPED = re.compile(rf"[+-]?{_GROUPS}([.,]\d*)?", re.ASCII)
_CURRENCY = (
    r"(?:[$€£¥₹₽₩₺₿¢]|R\$|USD|EUR|CHF|GBP|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|Fr\.|kr\.?|zł)"
)
_DECORATED = re.compile(
    rf"\(?{_CURRENCY}?[{_SPACES}]*[+\-\u2212\u2013]?[{_SPACES}]*{_CURRENCY}?[{_SPACES}]*"
    rf"(?:{_GROUPS}(?:[.,]\d*)?|\d+(?:[.,]\d*)?|[.,]\d+)"
    rf"(?:[{_SPACES}]*(?:{_CURRENCY}|%|‰|[\-\u2013\u2014]+))?\)?",
    re.ASCII,
)


def convert_numbers(
    table: pd.DataFrame,
    numbers: Sequence[str],
    others: Sequence[str],
    source: str,
    *,
    separator: str = "",
    decimal: str | None = None,
) -> pd.DataFrame:
    """Convert columns of text to numbers where all values are numbers.

    Parameters
    ----------
    table : pandas.DataFrame
        With columns of text, of other values, or of both. It is changed.
    numbers, others : sequence of str
        Columns of numbers, and columns that may also hold classes or booleans.
    source : str
        Name of the file, for messages.
    separator : str
        That of the cells. A comma cannot be the decimal mark then.
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
            if decimal is None:
                mark = _decimal_mark(text, kinds[name], where, separator, certain)
                values = pd.to_numeric(text.str.replace(mark, "."))
            else:
                values = _read_with_mark(text, kinds[name], where, decimal)
        table[name] = _put(table[name], values)
    return table


def _texts(column: pd.Series) -> pd.Series:
    """Return the cells that are text, stripped, without those that are empty."""
    is_text = column.map(lambda value: isinstance(value, str)).astype(bool)
    texts = column[is_text].astype(object).str.strip()
    return texts[~texts.isin(_EMPTY)]


def _put(column: pd.Series, values: pd.Series) -> pd.Series:
    """Return a column with its text replaced by values; other text is empty."""
    is_text = column.map(lambda value: isinstance(value, str)).astype(bool)
    if not is_text.any():
        return column
    result = column.astype(object).where(~is_text, None)
    result[values.index] = values.astype(object)
    return result.infer_objects()


def _kind(text: str) -> str:
    """Return what a text is: "whole", a certain decimal mark, an open one, or something else."""
    if len(text) > _MAX_LENGTH:
        return "text"
    if _WHOLE.fullmatch(text):
        return "whole"
    for mark in ".,":
        if _OPEN[mark].fullmatch(text):
            return f"open {mark}"
        if _DECIMAL[mark].fullmatch(text):
            return mark
    if _GROUPED.fullmatch(text):
        return "grouped"
    return "decorated" if _DECORATED.fullmatch(text) else "text"


def _decimal_mark(
    text: pd.Series, kinds: pd.Series, where: str, separator: str, certain: set[str]
) -> str:
    """Return the decimal mark of a column of numbers; raise an InputError if it is open."""
    _check_plain(text, kinds, where)
    own = set(kinds.unique()) & {".", ","}
    marks = own or certain
    mark = min(marks) if len(marks) == 1 else ""
    unread = text[~kinds.isin({"whole", mark, f"open {mark}"})]
    if mark == separator and mark in own:
        unread = text[kinds == mark]
    if unread.empty:
        return mark or "."
    found = (
        "has marks between thousands: write it without them"
        if _GROUPED.fullmatch(unread.iloc[0]) and not kinds[unread.index[0]].startswith("open")
        else "has a mark that may be the decimal one or stand between thousands: write decimals "
        "with a point and thousands without a mark"
    )
    raise InputError(
        f"{where}: {quoted(unread.iloc[0])} in {format_rows(unread.index.tolist())} {found}, or "
        "name the decimal mark, . or , with ",
        Argument("decimal"),
    )


def _read_with_mark(text: pd.Series, kinds: pd.Series, where: str, decimal: str) -> pd.Series:
    """Read numbers with a known decimal mark, and the other marks between thousands."""
    _check_plain(text, kinds, where)
    between = f"{'.' if decimal == ',' else ','}{_MARKS}"
    pattern = re.compile(
        rf"[+-]?(?:[1-9]\d{{0,2}}([{between}])\d{{3}}(?:\1\d{{3}})*(?:[{decimal}]\d*)?)", re.ASCII
    )
    is_grouped = text.map(lambda value: pattern.fullmatch(value) is not None).astype(bool)
    readable = is_grouped | kinds.isin({"whole", decimal, f"open {decimal}"})
    if not readable.all():
        wrong = text[~readable]
        raise InputError(
            f"{where}: {quoted(wrong.iloc[0])} in {format_rows(wrong.index.tolist())} is no number "
            f"with the decimal mark {quoted(decimal)}: correct it, or choose the other ",
            Argument("decimal"),
        )
    plain = text.where(~is_grouped, text.str.replace(rf"[{between}]", "", regex=True))
    return pd.to_numeric(plain.str.replace(decimal, "."))


def _check_plain(text: pd.Series, kinds: pd.Series, where: str) -> None:
    """Raise an InputError for numbers with signs, such as 12 % or $ 5."""
    decorated = text[kinds == "decorated"]
    if len(decorated):
        raise InputError(
            f"{where}: {quoted(decorated.iloc[0])} in {format_rows(decorated.index.tolist())} is "
            "no plain number: remove signs of percent and currencies and parentheses, and begin "
            "negative numbers with -"
        )
