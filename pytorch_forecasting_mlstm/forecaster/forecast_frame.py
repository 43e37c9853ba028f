"""The forecast of what comes after the table, as a tidy table of its own."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from .errors import UserError, quoted
from .panel import Table
from .training import QUANTILES

# What OWASP lists as the begin of a formula, the wide forms of Chinese and Japanese text included.
_FORMULA = re.compile("'*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]")


def check_names(table: Table) -> None:
    """Refuse column names that the forecast needs for itself.

    Raises
    ------
    UserError
        A group or time column has the name of an output column.
    """
    taken = {"step", "prediction", *_quantile_names()}
    for name in [*table.groups.columns, table.time]:
        if name in taken:
            raise UserError(
                f"column {quoted(name)} is also one of the forecast's own: rename yours"
            )


def tidy_forecast(table: Table, quantiles: np.ndarray) -> pd.DataFrame:
    """One row per series and step: group columns, time, step, prediction and quantiles.

    Parameters
    ----------
    table : Table
        What was forecast from.
    quantiles : numpy.ndarray
        (series, h, Q), in the table's unit and order.
    """
    quantiles = _seven_figures(quantiles)
    count, horizon, _ = quantiles.shape
    steps = np.arange(1, horizon + 1)
    positions = (table.starts + table.lengths - 1)[:, None] + steps
    columns = {
        name: np.repeat(table.groups[name].to_numpy(), horizon) for name in table.groups.columns
    }
    columns[table.time] = table.axis.at(positions.ravel())
    columns["step"] = np.tile(steps, count)
    columns["prediction"] = quantiles[..., QUANTILES.index(0.5)].ravel()
    for k, name in enumerate(_quantile_names()):
        columns[name] = quantiles[..., k].ravel()
    return pd.DataFrame(columns)


def write_forecast(forecast: pd.DataFrame, path: Path, *, quote_formulas: bool) -> None:
    """Write the forecast as CSV.

    Parameters
    ----------
    forecast : pandas.DataFrame
        As of `tidy_forecast`.
    path : pathlib.Path
        The file.
    quote_formulas : bool
        Put an apostrophe before text that a spreadsheet would run as a formula, in column names
        too, and quotes around all text. An apostrophe before such text is doubled: different names
        stay different.
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
            # with four figures of the year, which pandas leaves out
            forecast.isetitem(k, times.map(pd.Timestamp.isoformat))
    forecast.to_csv(path, index=False, lineterminator="\n", quoting=quoting)


def _quote_formula(cell: Any) -> Any:
    formula = isinstance(cell, str) and _FORMULA.match(cell)
    return f"'{cell}" if formula else cell


def _seven_figures(values: np.ndarray) -> np.ndarray:
    """Round to what 32 bits hold: more figures would only look exact."""
    with np.errstate(divide="ignore"):
        digits = 6 - np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** np.clip(np.nan_to_num(digits, posinf=0), 0, 300)
    return np.round(values * scale) / scale


def _quantile_names() -> list[str]:
    return [f"q{level:g}" for level in QUANTILES]
