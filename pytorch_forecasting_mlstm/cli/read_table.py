"""Read the needed columns of a table from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .._messages import printable
from ..forecaster import InputError
from .column_names import show_path
from .number_text import convert_numbers
from .read_csv import read_csv
from .read_typed import read_excel, read_parquet

_KINDS = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".xlsx": "excel",
    ".parquet": "parquet",
}


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
    numbers : sequence of str
        Columns of numbers.
    others : sequence of str
        Columns of numbers, booleans or classes.
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
    kind = next((kind for end, kind in _KINDS.items() if path.name.lower().endswith(end)), None)
    if kind is None:
        raise InputError(
            f"{show_path(path)}: is none of {', '.join(_KINDS)}: save the table as one of them"
        )
    needed = list(dict.fromkeys([*text, *numbers, *others]))
    separator = ""
    try:
        if not path.exists():
            raise InputError(f"{show_path(path)}: no such file")
        if kind == "csv":
            table, separator = read_csv(path, needed)
        else:
            table = (read_excel if kind == "excel" else read_parquet)(path, needed)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(
            f"{show_path(path)}: is not UTF-8 text: save it as CSV in UTF-8"
        ) from error
    # For a damaged file, pandas, pyarrow and openpyxl raise errors of many classes.
    except Exception as error:
        raise InputError(
            f"{show_path(path)}: cannot be read: {error or type(error).__name__}"
        ) from error
    table = _without_empty_end(table[needed].reset_index(drop=True))
    if table.empty:
        raise InputError(f"{show_path(path)}: has column names but no rows")
    return convert_numbers(
        table, numbers, others, printable(path.name), separator=separator, decimal=decimal
    )


def _without_empty_end(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the empty rows that spreadsheets write after a table."""
    is_empty = table.isna() | table.map(lambda cell: isinstance(cell, str) and not cell.strip())
    filled = (~is_empty.all(axis=1)).to_numpy().nonzero()[0]
    return table.iloc[: filled[-1] + 1] if len(filled) else table.iloc[:0]
