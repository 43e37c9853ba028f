"""Time and peak memory of building a dataset from tables of 10^5 to 5 million rows.

    python benchmarks/dataset_scaling.py
    python benchmarks/dataset_scaling.py --rows 100000 1000000 --series 100 10000

Every figure is from a process of its own, on one thread. The table has a name of the series, a time
index, a target and two covariates, and is sorted by series and time, or by time alone. Memory is
the growth of the resident set to its peak while the dataset is built, beyond the table, as counted
by Linux. The allocator of the process returns every large freed block, so that memory that the
table needed before does not hide a part of it. Rows per second are those of processor time, which
is wall time on an idle machine. They, and memory per byte of the table, do not depend on the number
of rows if building is linear.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _speed_memory import resident
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet

from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

HISTORY, HORIZON = 48, 12
ORDERS = ["series", "time"]
CLASSES = {"batched": BatchedTimeSeriesDataSet, "stock": TimeSeriesDataSet}
NORMALIZERS = {
    "group": lambda: GroupNormalizer(groups=["series"]),
    "encoder": lambda: EncoderNormalizer(),
}
COLUMNS = (
    "dataset",
    "normalizer",
    "sorted by",
    "rows",
    "series",
    "wall seconds",
    "processor seconds",
    "rows per second",
    "table MB",
    "peak beyond the table MB",
    "peak / table",
    "dataset MB",
)


def make_table(rows: int, series: int, order: str = "series") -> pd.DataFrame:
    """Make noise with two covariates."""
    rng = np.random.default_rng(0)
    steps = rows // series
    names = np.array([f"series {number:05d}" for number in range(series)])
    by_series = order == "series"
    t = np.tile(np.arange(steps), series) if by_series else np.repeat(np.arange(steps), series)
    return pd.DataFrame(
        {
            "series": np.repeat(names, steps) if by_series else np.tile(names, steps),
            "t": t,
            "y": rng.normal(size=len(t)),
            "price": rng.uniform(1, 2, size=len(t)),
            "day": np.sin(2 * np.pi * t / 24),
        }
    )


def measure(dataset: str, normalizer: str, order: str, rows: int, series: int) -> dict[str, Any]:
    """Build one dataset, and return its row of the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    build(dataset, normalizer, make_table(2000, 10))  # loads what is loaded late
    table = make_table(rows, series, order)
    size = table.memory_usage(deep=True).sum() / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, start = resident("VmRSS"), (time.perf_counter(), time.process_time())
    built = build(dataset, normalizer, table)
    wall, seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    peak = resident("VmHWM") - before
    tensors = [built.data[name] for name in ("reals", "categoricals", "groups", "time")]
    held = sum(part.nbytes for part in [*tensors, *built.data["target"]]) / 1e6
    held += built.index.memory_usage().sum() / 1e6
    figures = (
        dataset,
        normalizer,
        order,
        len(table),
        series,
        round(wall, 2),
        round(seconds, 2),
        round(len(table) / seconds),
        round(size, 1),
        round(peak, 1),
        round(peak / size, 2),
        round(held, 1),
    )
    return dict(zip(COLUMNS, figures, strict=True))


def build(dataset: str, normalizer: str, table: pd.DataFrame) -> TimeSeriesDataSet:
    return CLASSES[dataset](
        table,
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        static_categoricals=["series"],
        time_varying_known_reals=["price", "day"],
        time_varying_unknown_reals=["y"],
        target_normalizer=NORMALIZERS[normalizer](),
    )


def run(*case: Any) -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--run", *map(str, case)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(result.stderr or f"{case}: exit status {result.returncode}")
    return json.loads(lines[0].removeprefix("RESULT "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 5 * 10**6])
    parser.add_argument("--series", type=int, nargs="+", default=[100, 10**4])
    parser.add_argument("--normalizers", nargs="+", choices=NORMALIZERS, default=["group"])
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    parser.add_argument("--datasets", nargs="+", choices=CLASSES, default=[*CLASSES])
    parser.add_argument("--stock-rows", type=int, default=10**6, help="most rows of the stock one")
    parser.add_argument("--csv", type=Path, help="where to write the rows")
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        *names, rows, series = arguments.run
        print("RESULT", json.dumps(measure(*names, int(rows), int(series))))
        return
    print(" | ".join(COLUMNS))
    results = []
    for normalizer, order, series, rows, dataset in itertools.product(
        arguments.normalizers,
        arguments.orders,
        arguments.series,
        arguments.rows,
        arguments.datasets,
    ):
        too_short = rows // series <= HISTORY + HORIZON
        if too_short or (dataset == "stock" and rows > arguments.stock_rows):
            continue
        results.append(run(dataset, normalizer, order, rows, series))
        print(" | ".join(map(str, results[-1].values())), flush=True)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(results)


if __name__ == "__main__":
    main()
