"""Measure `Forecaster` with its defaults on tables with covariates, and on small tables.

    python benchmarks/covariates.py --data FOLDER
    python benchmarks/covariates.py --data FOLDER --models lightgbm naive --output results.csv
    python benchmarks/covariates.py --data FOLDER --models ours --keys bicimad --history 336

The tables are in ``_covariate_tables.py``, with their files in the folder. Windows that do not
overlap, at the end of every series, are forecast after one training on what comes before all of
them. The others are LightGBM, tuned by Optuna on the last windows before these
(``_lightgbm_forecast.py``), AutoETS and the seasonal naive forecast, which see every value before a
window. MASE and MAE are those of the median of mLSTMTime, and of the point forecast of the others.

With ``--development``, the test part is cut off first, and the windows before it are forecast: use
this to choose settings.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _covariate_tables import TABLES, Task, read_task
from _forecast_panel import to_panel, to_table
from _forecast_scores import LEVELS, Score, report, score_forecasts

from pytorch_forecasting_mlstm import Forecaster
from pytorch_forecasting_mlstm.forecaster.evaluation.auto_ets import ets_forecast
from pytorch_forecasting_mlstm.forecaster.evaluation.naive_baseline import naive_forecast


def ours(task: Task, seed: int, **parameters: Any) -> pd.DataFrame:
    """Forecast with `Forecaster`."""
    spec = task.spec
    forecaster = Forecaster(
        spec.horizon,
        time=spec.time,
        target=spec.target,
        group=list(spec.group) or None,
        known=list(spec.known) or None,
        past=list(spec.past) or None,
        static=list(spec.static) or None,
        quantiles=LEVELS,
        seed=seed,
        verbose=False,
        **parameters,
    )
    return forecaster.backtest(task.data, cutoffs=task.windows, baselines=False).forecasts


def trees(task: Task, seed: int) -> pd.DataFrame:
    """Forecast with LightGBM, which is imported where it is needed only."""
    return importlib.import_module("_lightgbm_forecast").lightgbm_forecast(task, seed)


def smoothing(task: Task, seed: int) -> pd.DataFrame:
    """Forecast with AutoETS, and with the naive forecast where AutoETS has no model."""

    def method(history: np.ndarray, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        point, quantiles = ets_forecast(history, *arguments)
        return (
            (point, quantiles) if np.isfinite(point).all() else naive_forecast(history, *arguments)
        )

    return _one_by_one(task, method)


def naive(task: Task, seed: int) -> pd.DataFrame:
    """Repeat the last season, the one of the table that was best before."""
    return _one_by_one(task, naive_forecast)


def _one_by_one(
    task: Task,
    method: Callable[[np.ndarray, int, Sequence[int], Sequence[float]], Any],
) -> pd.DataFrame:
    """Forecast every series from every cutoff on its own."""
    panel, spec = to_panel(task), task.spec
    seasons = [*spec.seasons, 1]
    forecasts = [
        [method(values[:cutoff], spec.horizon, seasons, LEVELS) for values in panel.values]
        for cutoff in panel.cutoffs
    ]
    point = np.array([[point for point, _ in window] for window in forecasts])
    quantiles = np.array([[quantiles for _, quantiles in window] for window in forecasts])
    lower = panel.lower_bound
    return to_table(task, panel, np.maximum(point, lower), np.maximum(quantiles, lower))


MODELS: dict[str, Callable[[Task, int], pd.DataFrame]] = {
    "ours": ours,
    "lightgbm": trees,
    "auto_ets": smoothing,
    "naive": naive,
}
WITHOUT_SEED = ("auto_ets", "naive")


def run(task: Task, model: str, seed: int, **parameters: Any) -> tuple[Score, float]:
    """Forecast one task with one model; return its score and the seconds."""
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecasts = MODELS[model](task, seed, **parameters)
    seconds = time.monotonic() - started
    spec = task.spec
    score = score_forecasts(
        forecasts,
        task.data,
        time=spec.time,
        target=spec.target,
        series=spec.group,
        season=spec.seasons[0],
    )
    return score, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--keys", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--history", type=int, help="steps that mLSTMTime looks back")
    parser.add_argument("--development", action="store_true", help="leave the test part out")
    parser.add_argument("--output", type=Path, help="CSV file of the results")
    arguments = parser.parse_args()
    rows = []
    for key in arguments.keys:
        task = read_task(key, arguments.data, arguments.development)
        for model in arguments.models:
            for seed in range(1 if model in WITHOUT_SEED else arguments.seeds):
                given = {"history": arguments.history} if model == "ours" else {}
                score, seconds = run(task, model, seed, **given)
                rows.append(
                    {
                        "table": key,
                        "model": model,
                        "seed": seed,
                        "MASE": score.mase,
                        "MAE": score.mae,
                        "CRPS": score.crps,
                        "coverage": score.coverage,
                        "values": score.values,
                        "seconds": seconds,
                    }
                )
                report(rows, arguments.output)
    results = pd.DataFrame(rows)
    print(results.pivot_table(index="table", columns="model", values="MASE", sort=False).round(3))


if __name__ == "__main__":
    main()
