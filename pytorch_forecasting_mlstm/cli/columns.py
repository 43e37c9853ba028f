"""Read the columns asked for from a file, and say plainly what is wrong with it."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from .errors import UserError

_EMPTY = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-nan", "#N/A"]


def read_columns(path: Path, text: Sequence[str], other: Sequence[str]) -> pd.DataFrame:
    """Read columns of a .csv or .parquet file.

    Parameters
    ----------
    path : pathlib.Path
        The file. A .csv may be separated by commas, semicolons or tabs.
    text : sequence of str
        Columns that a .csv gives as they are written: store 007 stays 007, region NA stays NA.
    other : sequence of str
        Columns whose type is found out.

    Raises
    ------
    UserError
        The file is missing, of another kind, damaged or without rows, or lacks a column.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(f"{path}: is neither .csv nor .parquet: save the table as one of them")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        frame = _csv(path, text, other) if kind == ".csv" else _parquet(path)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: save it as CSV in UTF-8") from error
    # pandas' and pyarrow's own errors are ValueErrors
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    _check_names(path, list(frame.columns), [*text, *other])
    if frame.empty:
        raise UserError(f"{path}: has column names but no rows")
    return frame[[*text, *other]]


def _csv(path: Path, text: Sequence[str], other: Sequence[str]) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    if not header.strip():
        raise UserError(f"{path}: is empty")
    separator = max(",;\t", key=header.count)
    layout = {
        "sep": separator,
        "encoding": "utf-8-sig",
        "keep_default_na": False,
        "index_col": False,
    }
    written = next(csv.reader([header.rstrip("\n")], delimiter=separator))
    twice = [name for name in (*text, *other) if written.count(name) > 1]
    if twice:  # pandas would rename the second
        raise UserError(f"{path}: has two columns {twice[0]!r}: rename one of them")
    names = list(pd.read_csv(path, nrows=0, **layout).columns)
    _check_names(path, names, [*text, *other])
    with warnings.catch_warnings():
        # Rows longer than the header, from decimal commas for example, must not be cut off: hence
        # also no `usecols`, with which pandas cuts them off in silence.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(text, str),
            na_values={name: _EMPTY for name in other},
            decimal="," if separator == ";" else ".",
            low_memory=False,  # one type per column, also of a large file
            **layout,
        )


def _parquet(path: Path) -> pd.DataFrame:
    if find_spec("pyarrow") is None:
        raise UserError(f"{path}: needs pyarrow: pip install pyarrow, or save the table as .csv")
    frame = pd.read_parquet(path, engine="pyarrow")
    # Times often live in the index.
    return frame if frame.index.names == [None] else frame.reset_index()


def _check_names(path: Path, present: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in present:
            close = get_close_matches(name, [str(column) for column in present], n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            some = ", ".join(map(str, present[:12])) + (", ..." if len(present) > 12 else "")
            raise UserError(f"{path}: has no column {name!r}{hint}; its columns are: {some}")
