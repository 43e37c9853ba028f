"""Speed and memory of data loading: BatchedTimeSeriesDataSet and TimeSeriesDataSet, one thread.

    python benchmarks/loader_speed.py --data ETTh1.csv
    python benchmarks/loader_speed.py                            # synthetic table, same shape
    python benchmarks/loader_speed.py --only loader memory       # some parts

Batches are compared before they are timed; if they differ, the benchmark stops. The classes are
timed alternately, so that other load on the machine slows them down alike. Figures are medians.
On a shared machine, ``--clock cpu`` counts processor time: one thread does all the work, so on an
idle machine both clocks agree.
"""

import argparse
import gc
import itertools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from _speed_models import training_step
from pytorch_forecasting.data import (
    EncoderNormalizer,
    GroupNormalizer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.models import DecoderMLP
from torch import Tensor

from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

SERIES = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
STEPS = 17_420
PERIODS = {"day": 24, "half_day": 12, "week": 168, "half_week": 84, "year": 8760}
HISTORY, HORIZON, BATCH = 336, 96, 64
#: Tolerance for batches, relative to 1 + |value|. Values that an EncoderNormalizer scales are equal
#: up to rounding, and float32 rounds by 1e-7 of numbers that can be a hundred times their scale.
TOLERANCE = 1e-4
#: Relative tolerance for the first losses of a training run. Later ones are not compared: the
#: optimizer amplifies rounding errors, as it would a change in the last bit of the target.
LOSS_TOLERANCE, COMPARED_LOSSES = 1e-5, 5
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PARTS = ["loader", "construction", "memory", "epoch"]


def long_table(path: str | None) -> pd.DataFrame:
    """Load ETTh1, or random walks of its shape, as a long table with five covariates."""
    if path is None:
        walks = np.random.default_rng(0).normal(size=(STEPS, len(SERIES))).cumsum(0)
        wide = pd.DataFrame(walks, columns=SERIES)
    else:
        wide = pd.read_csv(path)[SERIES]
    hours = np.arange(len(wide))
    known = {name: np.sin(2 * np.pi * hours / period) for name, period in PERIODS.items()}
    table = wide.assign(time=hours, **known)
    return table.melt(
        id_vars=["time", *known], value_vars=SERIES, var_name="series", value_name="y"
    )


def common() -> dict[str, Any]:
    return dict(
        time_idx="time",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_unknown_reals=["y"],
        # What "auto" chooses for ETTh1.
        target_normalizer=EncoderNormalizer(),
    )


def cases() -> dict[str, tuple[dict[str, Any], bool, tuple[float, float]]]:
    """Return for every case: settings, whether steps are missing, and targets (ms, ratio)."""
    known = dict(time_varying_known_reals=list(PERIODS))
    by_group = dict(target_normalizer=GroupNormalizer(groups=["series"]))
    static = dict(static_categoricals=["series"], add_relative_time_idx=True)
    scalers = {name: EncoderNormalizer() for name in PERIODS}
    gaps = dict(allow_missing_timesteps=True, min_encoder_length=HISTORY // 2)
    lengths = dict(randomize_length=True, min_encoder_length=HISTORY // 2)
    return {
        "no covariates, EncoderNormalizer": ({}, False, (1.2, 30)),
        "no covariates, GroupNormalizer": (by_group, False, (1.2, 30)),
        "5 known reals, EncoderNormalizer": (known, False, (1.2, 30)),
        "5 known reals, GroupNormalizer": (known | by_group, False, (1.2, 30)),
        "5 known reals, static, relative time": (known | static, False, (1.2, 30)),
        "5 known reals with EncoderNormalizer": (
            known | dict(scalers=scalers),
            False,
            (np.inf, 10),
        ),
        "5 known reals, 5 % of steps missing": (known | gaps, True, (np.inf, 10)),
        "both": (known | gaps | dict(scalers=scalers), True, (np.inf, 10)),
        "5 known reals, random lengths": (known | lengths, False, (np.inf, 10)),
    }


def drop_steps(table: pd.DataFrame) -> pd.DataFrame:
    sampled = np.random.default_rng(1).random(len(table)) >= 0.05
    ends = table["time"].isin([table["time"].min(), table["time"].max()])
    return table[sampled | ends]


def match(actual: Any, expected: Any, *, exact: bool) -> bool:
    """Compare keys, order, types and values, bit by bit if ``exact``, else up to rounding."""
    if type(actual) is not type(expected):
        return False
    if isinstance(expected, Tensor):
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            return False
        tolerance = 0.0 if exact else TOLERANCE
        return torch.allclose(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(expected, dict):
        return list(actual) == list(expected) and all(
            match(actual[name], expected[name], exact=exact) for name in expected
        )
    if isinstance(expected, (list, tuple)):
        return len(actual) == len(expected) and all(
            match(*pair, exact=exact) for pair in zip(actual, expected, strict=True)
        )
    return actual is expected


def shuffled_batches(dataset: TimeSeriesDataSet, seed: int) -> Iterator[Any]:
    torch.manual_seed(seed)
    return iter(dataset.to_dataloader(train=True, batch_size=BATCH))


def require_parity(name: str, stock: TimeSeriesDataSet, batched: TimeSeriesDataSet) -> None:
    expected, actual = (
        list(itertools.islice(shuffled_batches(dataset, 0), 5)) for dataset in (stock, batched)
    )
    scalers = [stock.target_normalizer, *stock._scalers.values()]
    exact = not any(isinstance(scaler, EncoderNormalizer) for scaler in scalers)
    if not match(actual, expected, exact=exact):
        raise SystemExit(f"{name}: batches differ from TimeSeriesDataSet's, nothing is timed.")


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def verdict(*passed: bool) -> str:
    return "yes" if all(passed) else "NO"


def time_loaders(table: pd.DataFrame, rounds: int, clock: Callable[[], float]) -> None:
    print(f"\nLoader: batches of {BATCH}, history {HISTORY}, horizon {HORIZON}\n")
    print("| case | stock ms | wrapped ms | batched ms | ratio | target | met |")
    print("|---|---|---|---|---|---|---|")
    for name, (settings, gaps, (max_ms, min_ratio)) in cases().items():
        rows = drop_steps(table) if gaps else table
        stock = TimeSeriesDataSet(rows, **(common() | settings))
        wrapped = BatchedTimeSeriesDataSet.wrap(stock)
        batched = BatchedTimeSeriesDataSet(rows, **(common() | settings))
        times: dict[str, list[float]] = {"stock": [], "wrapped": [], "batched": []}
        fetch = {}
        for kind, dataset in zip(times, (stock, wrapped, batched), strict=True):
            require_parity(name, stock, dataset)
            fetch[kind] = partial(next, shuffled_batches(dataset, 1))
        for _ in range(rounds):
            for kind, measured in times.items():
                count = 1 if kind == "stock" else 10
                measured += [seconds(fetch[kind], clock) for _ in range(count)]
        stock_ms, wrapped_ms, batched_ms = (
            1e3 * statistics.median(measured) for measured in times.values()
        )
        ratio = stock_ms / batched_ms
        target = f"{min_ratio:g}×" if np.isinf(max_ms) else f"{max_ms:g} ms, {min_ratio:g}×"
        met = verdict(batched_ms <= max_ms, ratio >= min_ratio)
        print(
            f"| {name} | {stock_ms:.1f} | {wrapped_ms:.2f} | {batched_ms:.2f} | {ratio:.0f}× | "
            f"{target} | {met} |"
        )


def time_construction(table: pd.DataFrame, rounds: int, clock: Callable[[], float]) -> None:
    parts = [table.assign(series=table["series"] + f" {copy}") for copy in range(10)]
    rows = pd.concat(parts, ignore_index=True)
    settings = common() | cases()["5 known reals, GroupNormalizer"][0]
    times: dict[type[TimeSeriesDataSet], list[float]] = {
        TimeSeriesDataSet: [],
        BatchedTimeSeriesDataSet: [],
    }
    built: dict[type[TimeSeriesDataSet], TimeSeriesDataSet] = {}
    for _ in range(rounds):
        for cls, measured in times.items():
            built.pop(cls, None)
            gc.collect()
            start = clock()
            built[cls] = cls(rows, **settings)
            measured.append(clock() - start)
    stock, batched = built[TimeSeriesDataSet], built[BatchedTimeSeriesDataSet]
    if not (stock.index.equals(batched.index) and match(batched.data, stock.data, exact=True)):
        raise SystemExit("construction: the datasets differ.")
    slow, fast = (statistics.median(measured) for measured in times.values())
    print(f"\nConstruction: {len(rows):,} rows, {len(parts) * len(SERIES)} series, 5 known reals\n")
    print("| stock s | batched s | share of stock | target | met |\n|---|---|---|---|---|")
    met = verdict(fast <= slow / 2)
    print(f"| {slow:.2f} | {fast:.2f} | {fast / slow:.0%} | at most 50 % | {met} |")


def held_bytes(value: Any, seen: set[int]) -> int:
    """Count the bytes of all reachable tensors, arrays and tables, each once."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
    elif isinstance(value, np.ndarray):
        key, size = id(value if value.base is None else value.base), value.nbytes
    elif isinstance(value, pd.DataFrame):
        key, size = id(value), int(value.memory_usage(deep=True).sum())
    else:
        key, size = id(value), 0
    if key in seen:
        return 0
    seen.add(key)
    if isinstance(value, dict):
        return sum(held_bytes(item, seen) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(held_bytes(item, seen) for item in value)
    if not size and hasattr(value, "__dict__") and not isinstance(value, type):
        return held_bytes(vars(value), seen)
    return size


def measure_memory(table: pd.DataFrame) -> None:
    print("\nMemory: held by the dataset after 20 batches\n")
    print("| case | data tensors MB | stock MB | batched MB | extra | target | met |")
    print("|---|---|---|---|---|---|---|")
    for name, (settings, gaps, _) in cases().items():
        rows = drop_steps(table) if gaps else table
        stock = TimeSeriesDataSet(rows, **(common() | settings))
        batched = BatchedTimeSeriesDataSet(rows, **(common() | settings))
        for dataset in (stock, batched):
            batches = shuffled_batches(dataset, 0)
            for _ in range(20 if dataset is batched else 1):
                next(batches)
        data, slow, fast = (
            held_bytes(held, set()) / 1e6 for held in (stock.data, vars(stock), vars(batched))
        )
        share = (fast - slow) / data
        met = verdict(share <= 0.2)
        print(f"| {name} | {data:.2f} | {slow:.2f} | {fast:.2f} | {share:+.1%} | +20 % | {met} |")


class Curve(pl.Callback):
    """Records the loss of every step, and the time at its end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.losses: list[float] = []
        self.times: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Record loss and time."""
        self.losses.append(float(args[2]["loss"]))
        self.times.append(self.clock())

    @property
    def step(self) -> float:
        """Return the median time of a step, including loading."""
        return statistics.median(np.diff(self.times))


def time_epoch(table: pd.DataFrame, rounds: int, steps: int, clock: Callable[[], float]) -> None:
    try:
        from pytorch_forecasting_mlstm import mLSTMTime
    except ImportError:
        print("\nTraining: skipped, since this installation has no mLSTMTime")
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    known = cases()["5 known reals, EncoderNormalizer"][0]
    models: dict[str, tuple[Any, dict[str, Any], dict[str, Any], float]] = {
        "mLSTMTime": (mLSTMTime, {}, {}, 5),
        "mLSTMTime, small": (mLSTMTime, dict(hidden_size=16, patch_length=48), {}, 0),
        "DecoderMLP, 5 known reals": (DecoderMLP, dict(hidden_size=32), known, 0),
    }
    print(f"\nTraining: median of {steps} steps, times the steps of an epoch")
    print("At most: the ratio if loading took no time")
    print("Per step alone: the batched epoch divided by its steps without Lightning and loader\n")
    print(
        "| model | stock s/epoch | batched s/epoch | ratio | at most | per step alone "
        "| first losses same | target | met |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (model, settings, covariates, min_ratio) in models.items():
        stock = TimeSeriesDataSet(table, **(common() | covariates))
        batched = BatchedTimeSeriesDataSet.wrap(stock)
        epoch = len(stock) // BATCH
        fetch = partial(next, shuffled_batches(batched, 1))
        loading = statistics.median(seconds(fetch, clock) for _ in range(100))
        curves: dict[str, list[Curve]] = {"stock": [], "batched": []}
        alone = []
        for _ in range(rounds):
            step = training_step(model.from_dataset(batched, **settings), *fetch())
            step()
            alone += [seconds(step, clock) for _ in range(steps)]
            for kind, dataset in (("stock", stock), ("batched", batched)):
                curves[kind].append(train(model, settings, dataset, steps, clock))
        losses = [curve.losses[:COMPARED_LOSSES] for runs in curves.values() for curve in runs]
        same = all(np.allclose(run, losses[0], rtol=LOSS_TOLERANCE, atol=0) for run in losses)
        slow, fast = (statistics.median(curve.step for curve in runs) for runs in curves.values())
        target = f"{min_ratio:g}×, same" if min_ratio else "same"
        met = verdict(same, slow / fast >= min_ratio)
        print(
            f"| {name} | {slow * epoch:.0f} | {fast * epoch:.0f} | {slow / fast:.1f}× | "
            f"{slow / (fast - loading):.1f}× | {fast / statistics.median(alone):.2f} "
            f"| {verdict(same)} | {target} | {met} |"
        )


def train(
    model: Any,
    settings: dict[str, Any],
    dataset: TimeSeriesDataSet,
    steps: int,
    clock: Callable[[], float],
) -> Curve:
    pl.seed_everything(0, verbose=False)
    curve = Curve(clock)
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        accelerator="cpu",
        callbacks=[curve],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = dataset.to_dataloader(train=True, batch_size=BATCH)
    trainer.fit(model.from_dataset(dataset, **settings), loader)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="CSV", help="path of ETTh1.csv; default: a synthetic table"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--rounds", type=int, default=30, help="batches of the stock loader")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="time to measure")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Advice of scikit-learn, Lightning and pytorch-forecasting on data and loaders of this size.
    warnings.simplefilter("ignore")
    table = long_table(arguments.data)
    source = arguments.data or "synthetic"
    clock = CLOCKS[arguments.clock]
    print(
        f"torch {torch.__version__}, 1 thread, {arguments.clock} time, "
        f"data: {source}, {len(table):,} rows"
    )
    if "loader" in arguments.only:
        time_loaders(table, arguments.rounds, clock)
    if "construction" in arguments.only:
        time_construction(table, 3, clock)
    if "memory" in arguments.only:
        measure_memory(table)
    if "epoch" in arguments.only:
        time_epoch(table, 3, arguments.steps, clock)


if __name__ == "__main__":
    main()
