"""Read the needed columns of Parquet and Excel files, whose cells have types."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd

from ..forecaster import InputError
from ..forecaster.errors import quoted
from .column_names import check_names, show_path


def read_excel(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Return the needed columns of the first sheet."""
    _require(path, "openpyxl", "'pytorch-forecasting-mlstm[excel]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and the like, which openpyxl leaves out
        with pd.ExcelFile(path, engine="openpyxl") as file:
            first, *more = file.sheet_names
            raw = file.parse(0, header=None, dtype=object, keep_default_na=False, na_values=[""])
    if more:
        sheets = f"{show_path(path)} has {len(more) + 1} sheets"
        warnings.warn(f"{sheets}, of which the first, {quoted(first)}, is read", stacklevel=2)
    if raw.empty:
        raise InputError(f"{show_path(path)}: the first sheet, {quoted(first)}, is empty")
    # With a header, pandas would rename the second of two equal names.
    names = [f"Unnamed: {k}" if pd.isna(name) else str(name) for k, name in enumerate(raw.iloc[0])]
    check_names(path, names, needed)
    table = raw.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index(names)
    return table[list(needed)].infer_objects()


def read_parquet(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Return the needed columns, of which the index may be one."""
    _require(path, "pyarrow", "pyarrow")
    from pyarrow.parquet import ParquetDataset

    schema = ParquetDataset(path).schema
    stored = schema.names
    for name in needed:
        if stored.count(name) == 1:
            _check_time_zone(path, name, getattr(schema.field(name).type, "tz", None))
        elif stored.count(name):
            check_names(path, stored, [name])
    # pandas always reads the index, which often contains the times.
    table = pd.read_parquet(path, engine="pyarrow", columns=[n for n in needed if n in set(stored)])
    if table.index.names != [None]:
        table = table.reset_index()
    check_names(path, [*table.columns, *(n for n in stored if n not in table.columns)], needed)
    return table


def _require(path: Path, package: str, install: str) -> None:
    if find_spec(package) is None:
        raise InputError(
            f"{show_path(path)}: needs {package}: pip install {install}, or save the table as .csv"
        )


def _check_time_zone(path: Path, name: str, zone: str | None) -> None:
    """Raise an error for an unknown time zone, for which pandas blames installed packages."""
    if zone is None or zone[:1] in "+-":
        return
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, LookupError) as error:  # OSError: "Europe" is a folder of zones
        raise InputError(
            f"{show_path(path)}: column {quoted(name)} is in the unknown time zone {quoted(zone)}: "
            "write its times in UTC"
        ) from error
