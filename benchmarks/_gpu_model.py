"""mLSTMTime through Lightning: training steps, forecasts, and the numbers of GPU and CPU."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

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


class StepTimes(pl.Callback):
    """Record when each step of a training ends."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        """Wait for the device, and record the time."""
        self.bench.wait()
        self.ends.append(time.perf_counter())


def trainer(bench: Bench, **options: Any) -> pl.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    accelerator = "gpu" if bench.device.type == "cuda" else "cpu"
    return pl.Trainer(accelerator=accelerator, devices=1, **quiet, **options)


def measure_training(bench: Bench) -> Iterator[Row]:
    """Time a step of Lightning, with tables on the CPU and on the device."""
    dataset = make_dataset(bench, GroupNormalizer(groups=["series"]))
    cases = [("tables on the CPU", dataset, PRECISIONS[0], False)]
    if bench.device.type == "cuda":
        moved, place = dataset.to("cuda"), "tables on the device"
        cases += [(place, moved, precision, False) for precision in PRECISIONS]
        cases += [(f"{place}, network compiled", moved, PRECISIONS[0], True)]
    for batch_size in (8,) if bench.quick else (64, 1024):
        for place, data, precision, compiled in cases:
            case = f"batch {batch_size}, {place}"
            if bench.is_late:
                yield Row("training step", case, precision, "out of time", "")
                continue
            measure = partial(time_step, bench, data, batch_size, precision, compiled)
            yield Row("training step", case, precision, attempt(measure), "ms")


def time_step(bench: Bench, data: Any, batch_size: int, precision: str, compiled: bool) -> float:
    tf32 = precision == "TF32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    steps = 4 if bench.quick else 24 if batch_size > 100 else 100
    times = StepTimes(bench)
    model = mLSTMTime.from_dataset(data, learning_rate=1e-3)
    if compiled:
        model.network.compile()
    fit = trainer(
        bench,
        max_epochs=1,
        limit_train_batches=steps,
        precision="32-true" if tf32 else precision,
        gradient_clip_val=1.0,
        callbacks=[times],
    )
    fit.fit(model, data.to_dataloader(train=True, batch_size=batch_size, num_workers=0))
    return 1e3 * statistics.median(np.diff(times.ends[steps // 2 :]))


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
