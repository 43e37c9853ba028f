"""Small forecasts and backtests in the form that the plots and tables of the forecaster read."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.evaluation.backtest_result import BacktestResult

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def forecast_of(values: np.ndarray, levels: Sequence[float] = LEVELS) -> dict[str, np.ndarray]:
    """Return a prediction that is 1 too high, and quantiles of a normal distribution around it."""
    point = values + 1.0
    quantiles = {f"q{level:g}": point + 2 * NormalDist().inv_cdf(level) for level in levels}
    return {"prediction": point, **quantiles}


def history_and_forecast(
    times: Any, horizon: int, *, keys: Sequence[dict[str, Any]] = ({},), levels: Any = LEVELS
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return history, forecast and truth in columns of `keys`, "time" and "sales"."""
    times = pd.Series(times)
    tables: list[list[pd.DataFrame]] = [[], [], []]
    for seed, key in enumerate(keys):
        values = noisy_season(len(times), seed=seed)
        split = len(times) - horizon
        ahead = pd.DataFrame({"time": times[split:], **forecast_of(values[split:], levels)})
        own = pd.DataFrame({"time": times, "sales": values})
        for table, part in zip(tables, (own[:split], ahead, own[split:]), strict=True):
            table.append(part.assign(**key))
    history, forecast, actual = map(pd.concat, tables)
    return history, forecast, actual


def backtest_of(
    times: Any,
    horizon: int,
    cutoffs: Sequence[int],
    *,
    keys: Sequence[dict[str, Any]] = ({},),
    levels: Sequence[float] = LEVELS,
) -> BacktestResult:
    """Return a backtest of "mLSTMTime", 1 too high, and "SeasonalNaive", 3 too high."""
    times = pd.Series(times)
    histories, forecasts, scales = [], [], []
    for seed, key in enumerate(keys):
        values = noisy_season(len(times), seed=seed)
        histories.append(pd.DataFrame({"time": times, "sales": values}).assign(**key))
        for cutoff in cutoffs:
            ahead = slice(cutoff, cutoff + horizon)
            for model, bias in (("mLSTMTime", 0.0), ("SeasonalNaive", 2.0)):
                part = pd.DataFrame({"time": times[ahead], "actual": values[ahead]})
                part = part.assign(**forecast_of(values[ahead] + bias, levels), **key)
                part["cutoff"], part["model"] = times[cutoff - 1], model
                forecasts.append(part.assign(step=np.arange(1, len(part) + 1)))
            scales.append({**key, "cutoff": times[cutoff - 1], "scale": 2.0})
    return BacktestResult(
        pd.concat(forecasts, ignore_index=True),
        pd.concat(histories, ignore_index=True),
        pd.DataFrame(scales),
        "time",
        "sales",
        tuple(keys[0]),
    )
