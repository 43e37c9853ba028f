"""Forecasts of chosen steps, in the layout of sktime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..forecaster import Forecaster
from ..forecaster.tables.quantile_columns import quantile_columns
from ..forecaster.tables.roles import TARGET_COLUMN
from .observed import Observed

_TARGET, _SERIES, _STEP = "_target", "_series", "_step"  # beside the columns of a forecast


@dataclass(frozen=True)
class Forecast:
    """Forecasts of some steps of every series.

    Attributes
    ----------
    index : pandas.Index
        (rows,): the times, or series and times, series by series.
    median : numpy.ndarray
        (rows, targets).
    quantiles : numpy.ndarray
        (targets, rows, Q), not decreasing along Q.
    levels : tuple of float
        The Q levels, increasing.
    """

    index: pd.Index
    median: np.ndarray
    quantiles: np.ndarray
    levels: tuple[float, ...]

    def frame(self, values: np.ndarray, columns: pd.Index) -> pd.DataFrame:
        """Return values of all rows as a table."""
        return pd.DataFrame(values, index=self.index, columns=columns)


def forecast_steps(forecaster: Forecaster, observed: Observed, offsets: np.ndarray) -> Forecast:
    """Forecast some steps of every series.

    Series whose last targets are missing need a longer horizon than the others, for which the
    covariates may not be known. So each horizon is a forecast of its own.

    Parameters
    ----------
    forecaster : Forecaster
        A fitted forecaster.
    observed : Observed
        The rows to forecast from.
    offsets : numpy.ndarray
        (series, targets, steps): the steps, counted from the last observed target.

    Raises
    ------
    InputError
        If covariates are not known over the horizon.
    """
    columns = observed.columns
    horizons = offsets.max(axis=(1, 2))
    parts = []
    for horizon in np.unique(horizons):
        numbers = np.flatnonzero(horizons == horizon)
        table = forecaster.predict(observed.table(numbers), horizon=int(horizon))
        table = table.assign(
            **{
                _SERIES: observed.numbers_of(table),
                _STEP: np.tile(np.arange(1, horizon + 1), len(table) // horizon),
            }
        )
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    targets = pd.Index(columns.targets)
    place = targets.get_indexer(table[TARGET_COLUMN]) if len(targets) > 1 else 0
    table = table.assign(**{_TARGET: place}).set_index([_TARGET, _SERIES, _STEP])
    rows = [
        table.loc[[(target, number, step) for number, steps in enumerate(chosen) for step in steps]]
        for target, chosen in enumerate(offsets.swapaxes(0, 1))
    ]
    levels = quantile_columns(table.drop(columns=[columns.time, *columns.group]))
    return Forecast(
        index=observed.index_at(rows[0].index.get_level_values(_SERIES), rows[0][columns.time]),
        median=np.stack([part["prediction"].to_numpy() for part in rows], -1),
        quantiles=np.stack([part[list(levels)].to_numpy() for part in rows]),
        levels=tuple(levels.values()),
    )
