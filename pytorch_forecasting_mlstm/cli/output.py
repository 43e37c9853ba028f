"""Write the forecast, and replace files atomically."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api import types

from .._atomic_write import atomic_write
from ..forecaster import InputError
from ..forecaster.errors import Argument

# The characters that start a formula according to OWASP, including their full-width forms.
_FORMULA = re.compile("'*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]")


def writable_folder(folder: Path, option: str = "output") -> Path:
    """Create `folder` if needed, and check that a file can be written in it.

    Call it before the model is fitted, so that nobody waits for a forecast that cannot be saved.

    Raises
    ------
    InputError
        If the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {str(folder)!r} ({error.strerror}): name another one "
            "with ",
            Argument(option),
        ) from error
    return folder


@contextmanager
def replace_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Provide temporary paths, and rename them to `paths` once all of them are complete.

    A reader sees complete old or new files, and never a new first file next to an old second one.
    After an error, the old files remain. A symbolic link is kept, and the file that it points to is
    replaced.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    try:
        with atomic_write(*(Path(os.path.realpath(path)) for path in paths)) as temporary_paths:
            yield temporary_paths
    except OSError as error:
        names = " and ".join(repr(str(path)) for path in paths)
        raise InputError(f"cannot write {names}: {error.strerror or error}") from error


def write_forecast(forecast: pd.DataFrame, path: Path, *, quote_formulas: bool) -> None:
    """Write the forecast as CSV.

    Parameters
    ----------
    forecast : pandas.DataFrame
        From `Forecaster.predict`.
    path : pathlib.Path
        The file.
    quote_formulas : bool
        Put an apostrophe before text that a spreadsheet would run as a formula, in column names
        too, and quotes around all text. An apostrophe before such text is doubled, so that
        different names stay different.

    Raises
    ------
    InputError
        If a name has a character that Python cannot write.
    """
    quoting = csv.QUOTE_MINIMAL
    if quote_formulas:
        quoting = csv.QUOTE_NONNUMERIC
        forecast = forecast.rename(columns=_quote_formula)
        for k, name in enumerate(forecast.columns):
            if not types.is_numeric_dtype(forecast[name].dtype):
                forecast.isetitem(k, forecast[name].map(_quote_formula))
    for k, column in enumerate(forecast.columns):
        times = forecast[column]
        if types.is_datetime64_any_dtype(times.dtype) and times.dt.year.min() < 1000:
            # pandas would write fewer than four digits of the year
            forecast.isetitem(k, times.map(pd.Timestamp.isoformat))
    try:
        forecast.to_csv(path, index=False, lineterminator="\n", quoting=quoting)
    except csv.Error as error:
        raise InputError(
            "cannot write the forecast: the name of a column or series has the character NUL, "
            "which Python can write from 3.11 on: correct the table"
        ) from error


def _quote_formula(cell: Any) -> Any:
    is_formula = isinstance(cell, str) and _FORMULA.match(cell)
    return f"'{cell}" if is_formula else cell
