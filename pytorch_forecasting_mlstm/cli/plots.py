"""Write plots of panels as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..forecaster.backtest_plot import plot_backtest
from ..forecaster.chosen_series import MAX_PANELS
from ..forecaster.evaluation import Evaluation
from ..forecaster.panel import Panel
from ..forecaster.plot_panels import count_series, history_length
from ..forecaster.plots import plot_forecast
from ..forecaster.quantiles import MEDIAN, QUANTILE_NAMES
from ..forecaster.splits import Split


def plot_test_window(
    panel: Panel, split: Split, evaluation: Evaluation, window: int, title: str, path: Path
) -> None:
    """Draw history, forecast, bands, naive forecast and truth of one test window."""
    windows = evaluation.windows
    past = windows.history[window]
    first = int(panel.starts[windows.series[window]]) + len(past)
    past = past[-history_length(split.horizon) :]
    before, ahead = _times(panel, first, len(past), split.horizon)
    actual = windows.actual[window]
    model = _forecast(panel, ahead, evaluation.quantiles[window])
    naive = pd.DataFrame({panel.time: ahead, "prediction": evaluation.naive_point[window]})
    forecasts = pd.concat(
        [
            model.assign(actual=actual, cutoff=before[-1], model="mLSTMTime"),
            naive.assign(actual=actual, cutoff=before[-1], model="seasonal naive"),
        ]
    )
    history = pd.DataFrame({panel.time: before, panel.target: past})
    figure = plot_backtest(forecasts, history, time=panel.time, target=panel.target, title=title)
    figure.savefig(path, format="png")  # whatever the suffix of `path`


def plot_future(panel: Panel, horizon: int, quantiles: np.ndarray, name: str, path: Path) -> None:
    """Draw history and forecast of the first few series; `quantiles` are (series, h, Q)."""
    histories, forecasts = [], []
    total = len(panel.values)
    for number in range(min(total, MAX_PANELS)):
        past = panel.values[number]
        first = int(panel.starts[number]) + len(past)
        past = past[-history_length(horizon) :]
        before, ahead = _times(panel, first, len(past), horizon)
        key = panel.groups.iloc[number].to_dict()
        history = pd.DataFrame({panel.time: before, panel.target: past})
        histories.append(history.assign(**key))
        forecasts.append(_forecast(panel, ahead, quantiles[number]).assign(**key))
    figure = plot_forecast(
        pd.concat(histories),
        pd.concat(forecasts),
        time=panel.time,
        target=panel.target,
        group=list(panel.groups.columns),
        title=f"{name}: {horizon} steps ahead" + count_series(len(histories), total, chosen=False),
    )
    figure.savefig(path, format="png")


def _times(panel: Panel, first: int, past: int, ahead: int) -> tuple[pd.Index, pd.Index]:
    """Return the times of the history before position `first`, and of the forecast from there."""
    times = panel.axis.at(np.arange(first - past, first + ahead))
    return times[:past], times[past:]


def _forecast(panel: Panel, times: pd.Index, quantiles: np.ndarray) -> pd.DataFrame:
    forecast = pd.DataFrame({panel.time: times, "prediction": quantiles[:, MEDIAN]})
    return forecast.assign(**dict(zip(QUANTILE_NAMES, quantiles.T, strict=True)))
