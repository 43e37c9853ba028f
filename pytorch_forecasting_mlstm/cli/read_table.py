"""Read the requested columns of a CSV or Parquet file."""

from __future__ import annotations

import csv
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from .._messages import printable
from ..forecaster.errors import InputError, quoted

_EMPTY = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-nan", "#N/A"]
_MANY = 10  # times the requested columns; from there, reading only these is faster
_MAX_NAMES, _MAX_NAME_LENGTH = 1000, 100  # to compare with a missing name
_MAX_PATH_LENGTH = 300


def read_table(path: Path, text: Sequence[str], inferred: Sequence[str]) -> pd.DataFrame:
    """Read columns of a .csv or .parquet file.

    Parameters
    ----------
    path : pathlib.Path
        The file. A .csv may be separated by commas, semicolons or tabs.
    text : sequence of str
        Columns of a .csv to keep as text: store 007 stays 007, region NA stays NA.
    inferred : sequence of str
        Columns whose type is inferred.

    Returns
    -------
    pandas.DataFrame
        The columns of `text` and `inferred`, in this order.

    Raises
    ------
    InputError
        If the file is missing, of another kind, damaged or without rows, or lacks a column.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise InputError(
            f"{_show(path)}: is neither .csv nor .parquet: save the table as one of them"
        )
    try:
        if not path.exists():
            raise InputError(f"{_show(path)}: no such file")
        frame = (_csv if kind == ".csv" else _parquet)(path, text, inferred)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{_show(path)}: is not UTF-8 text: save it as CSV in UTF-8") from error
    # For a damaged file, pandas and pyarrow raise errors of many classes.
    except Exception as error:
        raise InputError(
            f"{_show(path)}: cannot be read: {error or type(error).__name__}"
        ) from error
    if frame.empty:
        raise InputError(f"{_show(path)}: has column names but no rows")
    return frame[[*text, *inferred]]


def _csv(path: Path, text: Sequence[str], inferred: Sequence[str]) -> pd.DataFrame:
    separator, header = _header(path)
    _check_names(path, header, [*text, *inferred])
    layout: dict[str, Any] = {}
    if len(header) > _MANY * (len(text) + len(inferred)):
        _check_widths(path, separator, len(header))
        layout["usecols"] = [*text, *inferred]
    with warnings.catch_warnings():
        # Rows longer than the header, from decimal commas for example, must raise an error. With
        # `usecols`, pandas truncates them silently: hence `_check_widths`, which takes longer than
        # reading a few columns.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            index_col=False,
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,
            na_values={name: _EMPTY for name in inferred},
            decimal="," if separator == ";" else ".",
            low_memory=False,  # one type per column, even in a large file
            **layout,
        )


def _header(path: Path) -> tuple[str, list[str]]:
    """Detect the separator and the column names."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = next((line for line in file if line.strip()), "")
    if not line:
        raise InputError(f"{_show(path)}: is empty")
    separator = max(",;\t", key=line.count)
    with _rows(path, separator) as rows:
        names = next(row for row in rows if row)
    # pandas uses this name for a column without one.
    return separator, [name or f"Unnamed: {k}" for k, name in enumerate(names)]


def _check_widths(path: Path, separator: str, width: int) -> None:
    """Raise an error if a row has more cells than the header."""
    with _rows(path, separator) as rows:
        for number, row in enumerate(row for row in rows if row):
            if len(row) > width:
                raise InputError(
                    f"{_show(path)}: row {number} has {len(row)} cells, the header {width}: "
                    "correct one of them"
                )


@contextmanager
def _rows(path: Path, separator: str) -> Iterator[Iterator[list[str]]]:
    """Iterate over the rows of a CSV; cells may be of any size."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file, delimiter=separator)
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path, text: Sequence[str], inferred: Sequence[str]) -> pd.DataFrame:
    if find_spec("pyarrow") is None:
        raise InputError(
            f"{_show(path)}: needs pyarrow: pip install pyarrow, or save the table as .csv"
        )
    from pyarrow.parquet import ParquetDataset

    schema = ParquetDataset(path).schema
    stored, needed = schema.names, [*text, *inferred]
    for name in needed:
        if stored.count(name) == 1:
            _check_time_zone(path, name, getattr(schema.field(name).type, "tz", None))
        elif stored.count(name):
            _check_names(path, stored, [name])
    # pandas always reads the index, which often contains the times.
    frame = pd.read_parquet(path, engine="pyarrow", columns=[n for n in needed if n in set(stored)])
    if frame.index.names != [None]:
        frame = frame.reset_index()
    _check_names(path, [*frame.columns, *(n for n in stored if n not in frame.columns)], needed)
    return frame


def _check_time_zone(path: Path, name: str, zone: str | None) -> None:
    """Raise an error for an unknown time zone, for which pandas blames installed packages."""
    if zone is None or zone[:1] in "+-":
        return
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, LookupError) as error:  # OSError: "Europe" is a folder of zones
        raise InputError(
            f"{_show(path)}: column {quoted(name)} is in the unknown time zone {quoted(zone)}: "
            "write its times in UTC"
        ) from error


def _check_names(path: Path, present: Sequence[str], needed: Sequence[str]) -> None:
    count = Counter(present)
    for name in needed:
        if count[name] > 1:  # pandas would rename the second
            raise InputError(f"{_show(path)}: has two columns {quoted(name)}: rename one of them")
        if not count[name]:
            # Comparing with many thousands of names would take too long.
            columns = [str(column)[:_MAX_NAME_LENGTH] for column in present[:_MAX_NAMES]]
            close = get_close_matches(name[:_MAX_NAME_LENGTH], columns, n=1)
            hint = f" (did you mean {quoted(close[0])}?)" if close else ""
            listed = ", ".join(map(printable, columns[:12])) + (
                ", ..." if len(present) > 12 else ""
            )
            raise InputError(
                f"{_show(path)}: has no column {quoted(name)}{hint}; its columns are: {listed}"
            )


def _show(path: Path) -> str:
    """Format a path, with more characters than other values because its end matters."""
    return printable(path, _MAX_PATH_LENGTH)
