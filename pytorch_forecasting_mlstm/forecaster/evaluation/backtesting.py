"""Forecast from past cutoffs, and compare with what happened."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..errors import Argument, InputError
from ..panel.forecast_frame import forecast_frame
from ..panel.panel import Panel
from ..tables.groups import match_series
from ..training.fitted import Fitted
from ..training.forecasting import forecast_panel
from .auto_ets import ets_forecast, has_statsforecast
from .backtest_result import BacktestResult
from .metrics import seasonal_scale
from .naive_baseline import choose_season, naive_forecast

MODEL, NAIVE, ETS = "mLSTMTime", "SeasonalNaive", "AutoETS"


def choose_cutoffs(panel: Panel, horizon: int, cutoffs: int, step: int | None = None) -> list[int]:
    """Return the positions of the first forecast steps, oldest first.

    The last cutoff is the latest one after which at least half of the series have a value at the
    end of the horizon. Without `step`, they are one horizon apart.

    Raises
    ------
    InputError
        If the table is too short for so many cutoffs.
    """
    ends = np.sort(panel.ends)
    smaller = () if step is None else (Argument("step"), " or ")
    step = horizon if step is None else step
    last = int(ends[len(ends) // 2]) - horizon if len(ends) > 1 else int(ends[0]) - horizon
    positions = [last - step * k for k in range(cutoffs)][::-1]
    first_possible = int(panel.starts.min()) + horizon + 2
    if positions[0] < first_possible:
        possible = max(0, (last - first_possible) // step + 1)
        hint = f"choose at most {possible}" if possible else "pass more rows"
        raise InputError(
            Argument("cutoffs"),
            f" {cutoffs}, {step} steps apart, begin before there is anything to learn from: {hint}"
            ", or choose a smaller ",
            *smaller,
            Argument("horizon"),
        )
    return positions


def backtest_panel(
    panel: Panel,
    clean: Callable[[Panel], Panel],
    positions: Sequence[int],
    horizon: int,
    levels: tuple[float, ...],
    fit: Callable[[Panel], Fitted],
    *,
    refit: bool,
    baselines: bool = True,
) -> BacktestResult:
    """Forecast from each cutoff what was then known.

    Parameters
    ----------
    panel : Panel
        The series, as the table has them.
    clean : callable
        Masks faults and fills gaps. It is called with what was known at each cutoff, since what
        looks like a fault depends on all values that it sees.
    positions : sequence of int
        First forecast steps, oldest first.
    horizon : int
        Steps to forecast.
    levels : tuple of float
        Quantiles.
    fit : callable
        Fits a model to a panel.
    refit : bool
        Whether to fit a new model at each cutoff, or one before the first.
    baselines : bool, default True
        Whether to compare with the seasonal naive forecast, and with AutoETS where statsforecast
        is installed.
    """
    forecasts: list[pd.DataFrame] = []
    scales = []
    fitted: Fitted | None = None
    known, truth = panel.groups, clean(panel)
    for position in positions:
        if fitted is None or refit:
            past = clean(panel.until(position))
            fitted, known = fit(past), past.groups
        seen = _at_cutoff(panel, truth, position, horizon)
        if not len(seen):
            continue
        seen = clean(seen)
        quantiles = forecast_panel(fitted, known, levels, seen, horizon)
        actual = _actual(truth, seen, position, horizon)
        tables = [_table(seen, quantiles, levels, actual, MODEL)]
        scales.append(_scales(seen, horizon))
        if baselines:
            lower = fitted.lower_bound
            tables += _baselines(seen, levels, actual, lower)
        forecasts += tables
    if not forecasts:
        raise InputError(
            "no series has values both before and after any of the cutoffs: choose other ",
            Argument("cutoffs"),
            " or another ",
            Argument("step"),
        )
    result = BacktestResult(
        forecasts=pd.concat(forecasts, ignore_index=True),
        history=history_frame(truth),
        scales=pd.concat(scales, ignore_index=True),
        time=panel.roles.time,
        target=panel.roles.target,
        group=panel.roles.group,
    )
    for words in (result.coverage_warning(), result.missing_warning()):
        if words is not None:
            warnings.warn(words, UserWarning, stacklevel=3)
    return result


def _at_cutoff(panel: Panel, truth: Panel, position: int, horizon: int) -> Panel:
    """Return what was known at a time of the series that have a truth within the horizon.

    All series then end at `position`, where those whose last values are missing have gaps.
    """
    compared = truth.observed_within(position, position + horizon) & (panel.starts < position)
    seen = panel.take(np.flatnonzero(compared)).until(position)
    return replace(seen, lengths=position - seen.starts)


def history_frame(panel: Panel) -> pd.DataFrame:
    """Return the observed rows as a tidy table: group columns, time and value."""
    rows = panel.steps < panel.lengths[panel.series]
    series = panel.series[rows]
    table: dict[str, Any] = {
        name: panel.groups[name].iloc[series].reset_index(drop=True) for name in panel.groups
    }
    positions = panel.starts[series] + panel.steps[rows]
    table[panel.roles.time] = panel.write_times(positions)
    name = panel.roles.targets[0] if len(panel.roles.targets) == 1 else "value"
    table[name] = panel.target[rows]
    return pd.DataFrame(table)


def _actual(panel: Panel, seen: Panel, position: int, horizon: int) -> np.ndarray:
    """Return what happened, (series of `seen`, h)."""
    actual = np.full((len(seen), horizon), np.nan)
    for row, number in enumerate(match_series(panel.groups, seen.groups)):
        values = panel.values[number]
        first = position - panel.starts[number]  # negative if the first values are masked
        steps = np.arange(max(first, 0), min(first + horizon, len(values)))
        actual[row, steps - first] = values[steps]
    return actual


def _table(
    seen: Panel,
    quantiles: np.ndarray,
    levels: Sequence[float],
    actual: np.ndarray,
    model: str,
) -> pd.DataFrame:
    table = forecast_frame(seen, quantiles, levels)
    count, horizon = actual.shape
    cutoff = seen.write_times(seen.ends - 1)
    place = table.columns.get_loc("prediction")
    table.insert(place, "cutoff", cutoff.repeat(horizon).reset_index(drop=True))
    table.insert(place + 1, "step", np.tile(np.arange(1, horizon + 1), count))
    table.insert(place + 2, "model", model)
    table.insert(place + 3, "actual", actual.ravel())
    return table


def _scales(seen: Panel, horizon: int) -> pd.DataFrame:
    """Return what MASE divides by: the error of the seasonal naive forecast before the cutoff."""
    seasons = _seasons(seen)
    table = seen.groups.copy()
    table["cutoff"] = seen.write_times(seen.ends - 1)
    table["scale"] = [
        seasonal_scale(values, choose_season(values, horizon, seasons)) for values in seen.values
    ]
    return table


def _baselines(
    seen: Panel,
    levels: Sequence[float],
    actual: np.ndarray,
    lower_bound: float,
) -> list[pd.DataFrame]:
    methods = {NAIVE: naive_forecast}
    if has_statsforecast():
        methods[ETS] = ets_forecast
    horizon, seasons = actual.shape[1], _seasons(seen)
    tables = []
    for name, method in methods.items():
        forecasts = [method(values, horizon, seasons, levels) for values in seen.values]
        quantiles = np.maximum(np.stack([quantiles for _, quantiles in forecasts]), lower_bound)
        table = _table(seen, quantiles, levels, actual, name)
        table["prediction"] = np.maximum(
            np.concatenate([point for point, _ in forecasts]), lower_bound
        )
        tables.append(table)
    return tables


def _seasons(panel: Panel) -> list[int]:
    return [*panel.axis.seasons.values(), 1]
