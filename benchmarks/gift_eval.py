"""Measure `Forecaster` with its defaults on data sets of GIFT-Eval.

    python benchmarks/gift_eval.py --data FOLDER

The folder holds one Parquet file per data set, named ``name_frequency.parquet``, with the columns
item, date and y, and optionally ``leaderboard.csv`` with the columns key, m, MASE and CRPS. The
protocol is that of GIFT-Eval: windows that do not overlap at the end of every series, one training
on what comes before all of them.

With ``--development``, the test part is cut off first, and the windows before it are forecast: use
this to choose settings.

``--leaderboard FILE`` writes the results in the format of the leaderboard's `all_results.csv`, one
row per task, with means over seeds. `_gift_eval_format.py` says how MSIS and the metrics of the
mean are computed from the quantiles 0.1 to 0.9.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _forecast_scores import LEVELS, Score, match_truth, report, score_forecasts
from _gift_eval_format import dataset_name, leaderboard_metrics, write_leaderboard

from pytorch_forecasting_mlstm import Forecaster

HORIZONS = {"M": 12, "W": 8, "D": 30, "H": 48}
TERMS = {"short": 1, "medium": 10, "long": 15}
SEASONS = {"M": 12, "W": 1, "D": 1, "H": 24}
MAX_WINDOWS = 20
MODEL = "mLSTMTime"


class Task(NamedTuple):
    """A data set with a horizon."""

    key: str
    dataset: str
    table: pd.DataFrame
    horizon: int
    windows: int
    season: int


def tasks(folder: Path, keys: list[str] | None, development: bool) -> Iterator[Task]:
    """Read the tasks of a folder; medium and long terms are for data sets on the leaderboard."""
    listed = None
    if (folder / "leaderboard.csv").exists():
        listed = set(pd.read_csv(folder / "leaderboard.csv")["key"])
    for file in sorted(folder.glob("*.parquet")):
        frequency = file.stem.rpartition("_")[2]
        frequency = frequency if frequency in HORIZONS else "M"
        table = pd.read_parquet(file)
        for term, factor in TERMS.items():
            key = f"{file.stem}/{term}"
            if (keys and key not in keys) or (listed is not None and key not in listed):
                continue
            horizon = HORIZONS[frequency] * factor
            shortest = int(table.groupby("item").size().min())
            windows = min(max(1, math.ceil(0.1 * shortest / horizon)), MAX_WINDOWS)
            chosen = table
            if development:
                rank = table.groupby("item").cumcount(ascending=False)
                chosen = table[rank >= windows * horizon]
            dataset = dataset_name(key, frequency)
            yield Task(key, dataset, chosen, horizon, windows, SEASONS[frequency])


def run(task: Task, seed: int, **parameters: Any) -> tuple[Score, dict[str, float], float]:
    """Fit and forecast one task; return its score, the leaderboard's metrics and the seconds."""
    forecaster = Forecaster(
        task.horizon,
        time="date",
        target="y",
        group="item",
        quantiles=LEVELS,
        seed=seed,
        verbose=False,
        **parameters,
    )
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = forecaster.backtest(task.table, cutoffs=task.windows, baselines=False)
    seconds = time.monotonic() - started
    forecasts = result.forecasts
    columns: dict[str, Any] = {
        "time": "date",
        "target": "y",
        "series": ["item"],
        "season": task.season,
    }
    score = score_forecasts(forecasts, task.table, **columns)
    rows = match_truth(forecasts, task.table, **columns)
    metrics = leaderboard_metrics(
        rows["truth"].to_numpy(dtype=float),
        rows[[f"q{level:g}" for level in LEVELS]].to_numpy(dtype=float),
        rows["scale"].to_numpy(),
    )
    return score, metrics, seconds


def geometric_mean(values: pd.Series) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.log(values).mean()))


def compare(results: pd.DataFrame, leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the geometric means of ours divided by theirs."""
    ours = results.groupby("key")[["MASE", "CRPS"]].mean()
    rows = {}
    for model, theirs in leaderboard.groupby("m"):
        theirs = theirs.set_index("key").reindex(ours.index)
        ratio = ours / theirs[["MASE", "CRPS"]]
        rows[model] = {name: geometric_mean(ratio[name].dropna()) for name in ratio}
    return pd.DataFrame(rows).T.sort_values("MASE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--keys", nargs="*", help="tasks, such as us_births_D/short")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--development", action="store_true", help="leave the test part out")
    parser.add_argument("--output", type=Path, help="CSV file of the results")
    parser.add_argument(
        "--leaderboard",
        type=Path,
        metavar="FILE",
        help="CSV file of the results, in the format of the leaderboard",
    )
    arguments = parser.parse_args()
    published = arguments.data / "leaderboard.csv"
    if arguments.leaderboard and arguments.leaderboard.resolve() == published.resolve():
        parser.error(f"--leaderboard: {published} holds the published results; name another file")
    rows = []
    entries = []
    for task in tasks(arguments.data, arguments.keys, arguments.development):
        for seed in range(arguments.seeds):
            result, metrics, seconds = run(task, seed)
            rows.append(
                {
                    "key": task.key,
                    "seed": seed,
                    "MASE": result.mase,
                    "CRPS": result.crps,
                    "coverage": result.coverage,
                    "values": result.values,
                    "seconds": seconds,
                }
            )
            report(rows, arguments.output)
            entries.append((task.dataset, metrics))
            if arguments.leaderboard:
                write_leaderboard(entries, MODEL, arguments.leaderboard)
    results = pd.DataFrame(rows)
    if published.exists() and not arguments.development:
        print(compare(results, pd.read_csv(published)).round(3).to_string())


if __name__ == "__main__":
    main()
