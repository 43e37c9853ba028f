"""Everything that a fitted forecaster knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .fitting import Fitted
from .panel import Panel, clean_targets, find_faults, make_panel
from .prediction import predict_future
from .records import Records
from .roles import Roles
from .scaling import round_to_float32
from .table_kind import TableKind
from .time_axis import TimeAxis
from .windows import cut_last_windows, match_series


@dataclass(frozen=True)
class State:
    """A fitted model and the rows that it knows.

    Attributes
    ----------
    roles : Roles
        Columns of the tables.
    records : Records
        The rows of the fitted table.
    axis : TimeAxis
        Their times.
    groups : pandas.DataFrame
        One row per series of the model, with their numbers as index.
    kind : TableKind
        The library of the fitted table.
    fitted : Fitted
        The model.
    levels : tuple of float
        Its quantiles.
    """

    roles: Roles
    records: Records
    axis: TimeAxis
    groups: pd.DataFrame
    kind: TableKind
    fitted: Fitted
    levels: tuple[float, ...]


def panel_of(
    records: Records, roles: Roles, axis: TimeAxis, *, missing: Any, outliers: str, horizon: int
) -> Panel:
    """Place records on an axis, and clean their targets."""
    panel = make_panel(records, roles, axis, axis.place(records.times))
    faults = find_faults(panel, horizon)
    return clean_targets(panel, faults, missing=missing, outliers=outliers)


def forecast_panel(
    fitted: Fitted,
    known_groups: pd.DataFrame,
    levels: tuple[float, ...],
    panel: Panel,
    horizon: int,
) -> np.ndarray:
    """Forecast the steps after the last observed target of every series.

    Returns
    -------
    numpy.ndarray
        (series, h, Q): in the unit of the panel, not decreasing along Q.
    """
    numbers = match_series(known_groups, panel.groups)
    scaling = fitted.scaling.match(panel, numbers)
    dataset = fitted.dataset
    windows = cut_last_windows(panel, fitted.history, int(dataset.min_encoder_length), horizon)
    end = fitted.history
    frame = fitted.layout.frame(windows, scaling, numbers, end)
    scaled = predict_future(fitted.model, frame, end, horizon, list(levels))
    scaled = fitted.calibration.apply(scaled)
    quantiles = scaling.unscale(scaled, np.arange(len(panel)))
    return np.maximum(round_to_float32(quantiles, scaling.spread), fitted.lower_bound)
