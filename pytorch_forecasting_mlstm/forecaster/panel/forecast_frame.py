"""The forecast as a tidy DataFrame: one row per series and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .panel import Panel


def forecast_frame(panel: Panel, quantiles: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    """Return group columns, time, prediction and quantiles, one row per series and step.

    Parameters
    ----------
    panel : Panel
        The series that were forecast.
    quantiles : numpy.ndarray
        (series, h, Q), in the unit and order of the panel.
    levels : sequence of float
        The quantiles, 0.5 among them.
    """
    n_series, horizon, _ = quantiles.shape
    positions = panel.ends[:, None] + np.arange(horizon)
    table: dict[str, Any] = {}
    for name in panel.groups.columns:
        table[name] = panel.groups[name].repeat(horizon).reset_index(drop=True)
    table[panel.roles.time] = panel.write_times(positions.ravel())
    table["prediction"] = quantiles[..., list(levels).index(0.5)].ravel()
    for k, level in enumerate(levels):
        table[f"q{level:g}"] = quantiles[..., k].ravel()
    # The target's name, if there are several, follows the time.
    order = [*panel.roles.group, panel.roles.time, *panel.roles.series_columns]
    return pd.DataFrame({name: table[name] for name in dict.fromkeys([*order, *table])})
