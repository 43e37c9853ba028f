"""The forecast as a tidy DataFrame: one row per series and step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .errors import InputError, quoted
from .panel import Panel
from .quantiles import MEDIAN, QUANTILE_NAMES


def check_column_names(panel: Panel) -> None:
    """Reject column names that the forecast uses.

    Raises
    ------
    InputError
        If a group or time column has the name of a column of the forecast.
    """
    reserved = {"step", "prediction", *QUANTILE_NAMES}
    for name in [*panel.groups.columns, panel.time]:
        if name in reserved:
            raise InputError(
                f"column {quoted(name)} is also a column of the forecast: rename yours"
            )


def forecast_frame(panel: Panel, quantiles: np.ndarray) -> pd.DataFrame:
    """Return group columns, time, step, prediction and quantiles, one row per series and step.

    Parameters
    ----------
    panel : Panel
        The series that were forecast.
    quantiles : numpy.ndarray
        (series, h, Q), in the unit and order of the panel.
    """
    quantiles = _round_to_float32(quantiles)
    n_series, horizon, _ = quantiles.shape
    steps = np.arange(1, horizon + 1)
    positions = (panel.starts + panel.lengths - 1)[:, None] + steps
    columns = {
        name: np.repeat(panel.groups[name].to_numpy(), horizon) for name in panel.groups.columns
    }
    columns[panel.time] = panel.axis.at(positions.ravel())
    columns["step"] = np.tile(steps, n_series)
    columns["prediction"] = quantiles[..., MEDIAN].ravel()
    for k, name in enumerate(QUANTILE_NAMES):
        columns[name] = quantiles[..., k].ravel()
    return pd.DataFrame(columns)


def _round_to_float32(values: np.ndarray) -> np.ndarray:
    """Round to seven digits, the precision of float32; further digits would be meaningless."""
    with np.errstate(divide="ignore"):
        digits = 6 - np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** np.clip(np.nan_to_num(digits, posinf=0), 0, 300)
    return np.round(values * scale) / scale
