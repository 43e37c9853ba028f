"""mLSTMTime through Lightning: training steps, forecasts, and the numbers of GPU and CPU."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from _gpu_bench import Bench, Row, attempt
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer

from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

HISTORY, HORIZON = 512, 96
PRECISIONS = ("32-true", "TF32", "bf16-mixed")


def make_table(n_series: int, steps: int) -> pd.DataFrame:
    """Make noisy daily and weekly cycles."""
    rng = np.random.default_rng(0)
    t = np.tile(np.arange(steps), n_series)
    series = np.repeat(np.arange(n_series), steps)
    cycles = np.sin(2 * np.pi * t / 24 + series) + 0.5 * np.sin(2 * np.pi * t / 168)
    values = 10 + series % 7 + cycles + 0.1 * rng.normal(size=len(t))
    return pd.DataFrame({"t": t, "series": series.astype(str), "y": values})


def make_dataset(bench: Bench, normalizer: Any) -> BatchedTimeSeriesDataSet:
    history, horizon = (24, 8) if bench.quick else (HISTORY, HORIZON)
    return BatchedTimeSeriesDataSet(
        make_table(3, 90 if bench.quick else 9000),
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=history,
        max_prediction_length=horizon,
        time_varying_unknown_reals=["y"],
        target_normalizer=normalizer,
    )


class Steps(pl.Callback):
    """Record when each step of a training ends, and what the last one launches."""

    def __init__(self, bench: Bench, steps: int) -> None:
        self.bench = bench
        self.steps = steps
        self.ends: list[float] = []
        self.profiler = bench.profiler()

    def on_train_batch_end(self, *args: Any) -> None:
        """Wait for the device, and record the time; let the profiler see the last step alone."""
        self.bench.wait()
        self.ends.append(time.perf_counter())
        if len(self.ends) == self.steps - 1:
            self.profiler.start()
        elif len(self.ends) == self.steps:
            self.profiler.stop()

    @property
    def milliseconds(self) -> float:
        """The median time of a step in the second half, without the one that was profiled."""
        return 1e3 * statistics.median(np.diff(self.ends[self.steps // 2 : -1]))


def trainer(bench: Bench, **options: Any) -> pl.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    accelerator = "gpu" if bench.device.type == "cuda" else "cpu"
    return pl.Trainer(accelerator=accelerator, devices=1, **quiet, **options)


class Case(NamedTuple):
    """A training: where its tables are, and how it computes."""

    place: str
    data: BatchedTimeSeriesDataSet
    batch_size: int
    precision: str = PRECISIONS[0]
    compilation: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"batch {self.batch_size}, {self.place}"


def training_cases(bench: Bench) -> Iterator[Case]:
    """Yield trainings with tables on the CPU and on the device, in several precisions."""
    dataset = make_dataset(bench, GroupNormalizer(groups=["series"]))
    sizes = (8,) if bench.quick else (64, 1024)
    if bench.device.type != "cuda":
        yield from (Case("tables on the CPU", dataset, size) for size in sizes)
        return
    moved, place = dataset.to("cuda"), "tables on the device"
    for size in sizes:
        yield Case("tables on the CPU", dataset, size)
        yield from (Case(place, moved, size, precision) for precision in PRECISIONS)
    graphs = {"mode": "reduce-overhead"}
    for name, compilation in (("compiled", {}), ("compiled with CUDA graphs", graphs)):
        yield Case(f"{place}, network {name}", moved, sizes[0], compilation=compilation)


def measure_training(bench: Bench) -> Iterator[Row]:
    """Time a step of Lightning, and count its launches."""
    for case in training_cases(bench):
        if bench.is_late:
            yield Row("training step", str(case), case.precision, "out of time", "")
            continue
        figures = attempt(partial(run_training, bench, case))
        if isinstance(figures, str):
            yield Row("training step", str(case), case.precision, figures, "")
            continue
        milliseconds, launches, busy = figures
        yield Row("training step", str(case), case.precision, milliseconds, "ms")
        yield Row("training step", str(case), f"{case.precision}, launches", launches, "")
        yield Row("training step", str(case), f"{case.precision}, device busy", busy, "ms")


def run_training(bench: Bench, case: Case) -> tuple[float, float, float]:
    """Return the milliseconds of a step, its launches, and how long the device is busy."""
    tf32 = case.precision == "TF32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    steps = Steps(bench, 6 if bench.quick else 24 if case.batch_size > 100 else 100)
    model = mLSTMTime.from_dataset(case.data, learning_rate=1e-3)
    if case.compilation is not None:
        model.network.compile(**case.compilation)
    fit = trainer(
        bench,
        max_epochs=1,
        limit_train_batches=steps.steps,
        precision="32-true" if tf32 else case.precision,
        gradient_clip_val=1.0,
        callbacks=[steps],
    )
    fit.fit(model, case.data.to_dataloader(train=True, batch_size=case.batch_size, num_workers=0))
    return (steps.milliseconds, *bench.recorded_launches(steps.profiler))


def measure_forecast(bench: Bench) -> Iterator[Row]:
    """Time forecasts of many series, and compare the numbers of device and CPU."""
    if bench.is_late:
        yield Row("forecast", "all", "skipped", "out of time", "")
        return
    dataset = make_dataset(bench, EncoderNormalizer())  # which needs no statistics of a series
    model = mLSTMTime.from_dataset(dataset).eval()
    table = make_table(20 if bench.quick else 10_000, dataset.max_encoder_length)

    def seconds() -> float:
        placed = model.to(bench.device)
        placed.forecast(table[table["series"] == "0"])  # builds the dataset, compiles kernels
        start = time.perf_counter()
        placed.forecast(table)
        return time.perf_counter() - start

    case = f"{table['series'].nunique()} series"
    yield Row("forecast", case, "forecast", attempt(seconds), "s")
    if bench.is_late:
        yield Row("agreement", "device and CPU", "skipped", "out of time", "")
        return
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=16, num_workers=0)))
    largest = attempt(partial(error, bench, model, x))
    yield Row("agreement", "device and CPU", "largest error of a forecast", largest, "")


@torch.no_grad()
def error(bench: Bench, model: mLSTMTime, x: dict[str, Any]) -> float:
    """Return the largest difference between device and CPU, divided by the largest forecast."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    expected = model.cpu()(x).prediction
    moved = {
        name: value.to(bench.device) if torch.is_tensor(value) else value
        for name, value in x.items()
    }
    actual = model.to(bench.device)(moved).prediction.cpu()
    return float((actual - expected).abs().max() / expected.abs().max())
