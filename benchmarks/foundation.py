"""Measure foundation models on the tables of gift_eval.py and covariates.py, by their scores.

    python benchmarks/foundation.py --data FOLDER --tables gift
    python benchmarks/foundation.py --data FOLDER --tables covariates --models chronos-2 tirex-2
    python benchmarks/foundation.py --data FOLDER --weights chronos-2=/models/chronos-2

``_foundation_models.py`` says which packages to install; a model without its package is left out.
The folder is that of gift_eval.py or covariates.py. Every window is forecast from all values before
it, without any training. Covariates are passed on, known and past ones; static columns are not,
since none of the models reads them. ``--univariate`` passes on the target alone.

The point forecast is the median. A table of covariates.py that is never negative before the test
windows has no negative forecasts, as for the other models there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _covariate_tables import TABLES, read_task
from _covariate_tables import Task as CovariateTask
from _forecast_panel import to_panel, to_table
from _forecast_scores import LEVELS, Score, report, score_forecasts
from _foundation_models import FOUNDATION_MODELS, Forecast, Window
from gift_eval import Task as GiftTask
from gift_eval import compare, tasks

MEDIAN = LEVELS.index(0.5)


class Measured(NamedTuple):
    """The score of one model on one task."""

    key: str
    score: Score
    seconds: float


def forecast_gift(task: GiftTask, forecast: Forecast) -> pd.DataFrame:
    """Forecast the windows of a task of GIFT-Eval, oldest first, as a table."""
    frames = []
    items = {item: rows.sort_values("date") for item, rows in task.table.groupby("item")}
    for number in range(task.windows, 0, -1):
        ahead = number * task.horizon
        windows = [
            Window(rows["y"].to_numpy(dtype=float)[:-ahead], np.empty((0, 0)), np.empty((0, 0)))
            for rows in items.values()
        ]
        quantiles = forecast(windows, task.horizon)
        for values, (item, rows) in zip(quantiles, items.items(), strict=True):
            end = len(rows) - ahead
            times = rows["date"].to_numpy()
            frame = pd.DataFrame({"item": item, "date": times[end : end + task.horizon]})
            frame["cutoff"] = times[end - 1]
            frame["prediction"] = values[:, MEDIAN]
            for place, level in enumerate(LEVELS):
                frame[f"q{level:g}"] = values[:, place]
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def forecast_covariates(task: CovariateTask, forecast: Forecast, univariate: bool) -> pd.DataFrame:
    """Forecast the windows of a table with covariates, oldest first, as a table."""
    panel, horizon = to_panel(task), task.spec.horizon
    quantiles = []
    for cutoff in panel.cutoffs:
        windows = [
            Window(
                panel.values[series, :cutoff],
                panel.past[series, :cutoff].T[: 0 if univariate else None],
                panel.known[series, : cutoff + horizon].T[: 0 if univariate else None],
            )
            for series in range(len(panel.values))
        ]
        quantiles.append(forecast(windows, horizon))
    values = np.maximum(np.stack(quantiles), panel.lower_bound)
    return to_table(task, panel, values[..., MEDIAN], values)


def measure_gift(
    folder: Path, forecast: Forecast, options: argparse.Namespace
) -> Iterator[Measured]:
    """Score a model on tasks of GIFT-Eval."""
    for task in tasks(folder, options.keys, options.development):
        started = time.monotonic()
        forecasts = forecast_gift(task, forecast)
        seconds = time.monotonic() - started
        yield Measured(
            task.key,
            score_forecasts(
                forecasts, task.table, time="date", target="y", series=["item"], season=task.season
            ),
            seconds,
        )


def measure_covariates(
    folder: Path, forecast: Forecast, options: argparse.Namespace
) -> Iterator[Measured]:
    """Score a model on tables with covariates."""
    for key in options.keys or TABLES:
        task = read_task(key, folder, options.development)
        started = time.monotonic()
        forecasts = forecast_covariates(task, forecast, options.univariate)
        seconds = time.monotonic() - started
        spec = task.spec
        columns: dict[str, Any] = {"time": spec.time, "target": spec.target, "series": spec.group}
        score = score_forecasts(forecasts, task.data, season=spec.seasons[0], **columns)
        yield Measured(key, score, seconds)


MEASURES = {"gift": measure_gift, "covariates": measure_covariates}


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict[str, str]]:
    """Read the command line; return it, and the weights of each model that can run."""
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--tables", choices=list(MEASURES), default="gift")
    parser.add_argument("--keys", nargs="*", help="tasks, such as us_births_D/short or bicimad")
    names = list(FOUNDATION_MODELS)
    parser.add_argument("--models", nargs="*", choices=names, default=names)
    parser.add_argument(
        "--weights", nargs="*", default=[], metavar="MODEL=WEIGHTS", help="other weights, a folder"
    )
    parser.add_argument("--univariate", action="store_true", help="pass on no covariates")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--development", action="store_true", help="leave the test part out")
    parser.add_argument("--output", type=Path, help="CSV file of the results")
    options = parser.parse_args()
    given = dict(pair.partition("=")[::2] for pair in options.weights)
    for name, weights in given.items():
        if name not in names or not weights:
            parser.error(f"--weights: must be MODEL=WEIGHTS of {names}, got {name}={weights}")
    chosen = {}
    for name in options.models:
        model = FOUNDATION_MODELS[name]
        if find_spec(model.module) is None:
            print(f"{name} is left out: pip install '{model.package}'", flush=True)
        else:
            chosen[name] = given.get(name, model.weights)
    return options, chosen


def main() -> None:
    options, chosen = parse(argparse.ArgumentParser(description=__doc__.partition("\n")[0]))
    rows = []
    for name, weights in chosen.items():
        try:
            forecast = FOUNDATION_MODELS[name].load(weights, options.device, options.batch_size)
        except OSError as error:  # of the network, or of a folder without weights
            print(
                f"{name} is left out, without {weights}: {str(error).splitlines()[0]}", flush=True
            )
            continue
        for key, score, seconds in MEASURES[options.tables](options.data, forecast, options):
            rows.append(
                {
                    "key": key,
                    "model": name,
                    "MASE": score.mase,
                    "MAE": score.mae,
                    "CRPS": score.crps,
                    "coverage": score.coverage,
                    "values": score.values,
                    "seconds": seconds,
                }
            )
            report(rows, options.output)
    results = pd.DataFrame(rows)
    published = options.data / "leaderboard.csv"
    for name, part in results.groupby("model") if rows else ():
        if options.tables == "gift" and published.exists() and not options.development:
            print(f"{name}, divided by")
            print(compare(part, pd.read_csv(published)).round(3).to_string())


if __name__ == "__main__":
    main()
