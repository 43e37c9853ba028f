"""Read the needed columns of a file of text cells, also a compressed one."""

from __future__ import annotations

import csv
import gzip
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import pandas as pd

from ..forecaster import InputError
from .column_names import check_names, show_path

_MANY = 10  # times the needed columns; from there, reading only these is faster


def read_csv(path: Path, needed: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return the needed columns of a .csv or .tsv file as text, and the separator of its cells."""
    separator, header = _header(path)
    check_names(path, header, needed)
    is_wide = len(header) > _MANY * len(needed)
    if is_wide:
        _check_widths(path, separator, len(header))
    with warnings.catch_warnings():
        # Rows longer than the header, from decimal commas for example, must raise an error. With
        # `usecols`, pandas truncates them silently: hence `_check_widths`, which takes longer than
        # reading a few columns.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            index_col=False,
            dtype=dict.fromkeys(needed, str),
            keep_default_na=False,
            low_memory=False,  # one type per column, even in a large file
            usecols=list(needed) if is_wide else None,
        )
    return table, separator


def _header(path: Path) -> tuple[str, list[str]]:
    """Detect the separator and the column names."""
    with _open(path) as file:
        line = next((line for line in file if line.strip()), "")
    if not line:
        raise InputError(f"{show_path(path)}: is empty")
    is_tsv = path.name.lower().removesuffix(".gz").endswith(".tsv")
    separator = "\t" if is_tsv else max(",;\t", key=line.count)
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
                    f"{show_path(path)}: row {number} has {len(row)} cells, the header {width}: "
                    "correct one of them"
                )


@contextmanager
def _rows(path: Path, separator: str) -> Iterator[Iterator[list[str]]]:
    """Iterate over the rows; cells may be of any size."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with _open(path) as file:
            yield csv.reader(file, delimiter=separator)
    finally:
        csv.field_size_limit(limit)


def _open(path: Path) -> TextIO:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", newline=""))
