"""Read the needed columns of a table from a file, and lists of dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .._messages import printable
from ..forecaster import InputError
from ..forecaster.tables.number_text import convert_numbers
from .column_names import show_path
from .read_csv import read_csv
from .read_typed import read_excel, read_parquet

_TEXT_FILES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_FILES = (*_TEXT_FILES, ".xlsx", ".parquet")


def read_table(
    path: Path,
    text: Sequence[str],
    numbers: Sequence[str] = (),
    others: Sequence[str] = (),
    *,
    decimal: str | None = None,
) -> pd.DataFrame:
    """Read columns of a file.

    Parameters
    ----------
    path : pathlib.Path
        A .csv or .tsv file, which may be compressed as .gz, an .xlsx or a .parquet file. A .csv may
        be separated by commas, semicolons or tabs.
    text : sequence of str
        Columns whose text stays as it is: store 007 stays 007, region NA stays NA.
    numbers, others : sequence of str
        Columns of numbers; and of numbers, booleans or classes.
    decimal : str, optional
        The decimal mark of numbers in text. Default: what the columns say.

    Returns
    -------
    pandas.DataFrame
        The columns of `text`, `numbers` and `others`, in this order.

    Raises
    ------
    InputError
        If the file is missing, of another kind, damaged or without rows, or lacks a column, or if
        a number can be read in two ways.
    """
    name = path.name.lower()
    if not name.endswith(_FILES):
        raise InputError(
            f"{show_path(path)}: is none of {', '.join(_FILES)}: save the table as one of them"
        )
    needed = list(dict.fromkeys([*text, *numbers, *others]))
    separator = ""
    try:
        if not path.exists():
            raise InputError(f"{show_path(path)}: no such file")
        if name.endswith(_TEXT_FILES):
            table, separator = read_csv(path, needed)
        else:
            table = (read_excel if name.endswith(".xlsx") else read_parquet)(path, needed)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{show_path(path)}: is not UTF-8 text: save it as UTF-8") from error
    # For a damaged file, pandas, pyarrow and openpyxl raise errors of many classes.
    except Exception as error:
        reason = error or type(error).__name__
        raise InputError(f"{show_path(path)}: cannot be read: {reason}") from error
    table = _without_empty_end(table[needed].reset_index(drop=True))
    if table.empty:
        raise InputError(f"{show_path(path)}: has column names but no rows")
    file = printable(path.name)
    convert_numbers(table, numbers, others, file, separator=separator, decimal=decimal)
    return table


def _without_empty_end(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the empty rows that spreadsheets write after a table."""
    is_blank = table.map(lambda cell: isinstance(cell, str) and not cell.strip()).astype(bool)
    filled = (~(table.isna() | is_blank).all(axis=1)).to_numpy().nonzero()[0]
    return table.iloc[: filled[-1] + 1 if len(filled) else 0].copy()


def read_holidays(option: str) -> str | list[str]:
    """Return the dates of a file, one per line, or the code of a country or an exchange.

    Empty lines, a first line without digits, such as "date", and what follows a comma, a semicolon,
    a tab or # are left out.

    Raises
    ------
    InputError
        If there is no such file, or it holds no dates.
    """
    path = Path(option)
    where = f"--holidays: {show_path(path)}"
    if not path.is_file():
        if re.fullmatch(r"[A-Za-z]{2,6}(-[A-Za-z0-9]{1,5})?", option):
            return option
        raise InputError(
            f"{where}: no such file: name a file with one date per line, or the code of a country "
            "or an exchange, such as US or NYSE"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{where} is not UTF-8 text: write one date per line") from error
    cells = [re.split(r"[,;\t#]", line)[0].strip().strip('"') for line in lines]
    dates = [cell for cell in cells if cell]
    dates = dates[1:] if dates and not re.search(r"\d", dates[0]) else dates
    if not dates:
        raise InputError(f"{where} holds no dates: write one per line")
    return dates
