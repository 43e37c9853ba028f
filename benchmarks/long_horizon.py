"""Long-horizon forecasts of several models, by the protocol of the literature.

    python benchmarks/long_horizon.py --data ETTh1.csv
    python benchmarks/long_horizon.py --data ETTh1.csv --horizons 96 192 336 720 --seeds 0 1 2
    python benchmarks/long_horizon.py --data ETTh1.csv --models ours nhits tide --minutes 10
    python benchmarks/long_horizon.py --data weather.csv --split 0.7 0.1 0.2

The table has a date column and one column per series. It is split by time into training, validation
and test data (by default the 12, 4 and 4 months of ETTh1) and standardized by the training data.
The series are groups of one dataset, so a model sees one series at a time. Forecasts start at every
step of the validation and the test data that a whole horizon follows; histories reach back across
the splits. Errors are means over all windows, steps and series, in standard deviations.

Every model trains on absolute errors with AdamW and one cycle of the learning rate, for the same
number of epochs, or until ``--minutes`` are over; the cycle ends with the training. Validation data
select the epoch. Test data are read once per model, horizon and seed, and only with ``--test``.

The evaluated weights are a running average of the trained weights; ``--average 0`` evaluates the
trained weights. ``--minutes`` counts training alone. ``--clock cpu`` counts processor time, for a
machine that does other work, too: one thread does all the work. Seconds per epoch are training
time; seconds per forecast are one call of the model with a window of every series.
"""

import argparse
import copy
import csv
import itertools
import logging
import math
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from _competitors import COMPETITORS, Competitor, count_parameters
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import EncoderNormalizer
from pytorch_forecasting.models import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader

from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARM_UP = 0.3  # fraction of the training after which the learning rate is highest
EVALUATION_BATCH = 512
COLUMNS = [
    "data",
    "model",
    "horizon",
    "seed",
    "validation_mse",
    "validation_mae",
    "test_mse",
    "test_mae",
    "epoch",
    "epochs",
    "parameters",
    "seconds_per_epoch",
    "seconds_per_forecast",
]


@dataclass(frozen=True)
class Split:
    """Numbers of rows of the training, validation and test data, in this order."""

    training: int
    validation: int
    test: int

    @classmethod
    def from_numbers(cls, numbers: list[float], rows: int) -> "Split":
        """Make a split from row counts or fractions; validation gets the rows rounded away."""
        if len(numbers) != 3 or min(numbers) <= 0:
            raise ValueError(f"--split: expected three positive numbers, got {numbers}")
        if max(numbers) >= 1:
            split = cls(*(int(number) for number in numbers))
        else:
            if abs(sum(numbers) - 1) > 1e-6:
                raise ValueError(f"--split: fractions must sum to 1, got {numbers}")
            training, test = int(rows * numbers[0]), int(rows * numbers[2])
            split = cls(training, rows - training - test, test)
        if split.training + split.validation + split.test > rows:
            raise ValueError(f"--split: asks for {split}, the table has {rows} rows")
        return split


def read_table(path: Path, split: Split | list[float], date: str) -> tuple[pd.DataFrame, Split]:
    """Read a table, standardize it by its training rows, and return it in long format."""
    wide = pd.read_csv(path)
    if date not in wide:
        raise ValueError(f"--date: no column {date!r} in {path}, which has {list(wide)}")
    wide = wide.drop(columns=date).astype(np.float64)
    if isinstance(split, list):
        split = Split.from_numbers(split, len(wide))
    training = wide.iloc[: split.training]
    std = training.std(ddof=0)
    wide = (wide - training.mean()) / std.where(std > 0, 1.0)
    wide = wide.astype(np.float32).iloc[: split.training + split.validation + split.test]
    wide.columns = [f"{number:03d} {name}" for number, name in enumerate(wide.columns)]
    wide["step"] = np.arange(len(wide))
    return wide.melt(id_vars="step", var_name="series", value_name="y"), split


@dataclass(frozen=True)
class Data:
    """Windows of the training, validation and test data."""

    training: TimeSeriesDataSet
    validation: TimeSeriesDataSet
    test: TimeSeriesDataSet


def make_data(
    table: pd.DataFrame, split: Split, history: int, horizon: int, **arguments: Any
) -> Data:
    """Make the datasets: every step that a whole horizon follows starts a forecast."""
    training = BatchedTimeSeriesDataSet(
        table[table["step"] < split.training],
        time_idx="step",
        target="y",
        group_ids=["series"],
        min_encoder_length=history,
        max_encoder_length=history,
        min_prediction_length=horizon,
        max_prediction_length=horizon,
        time_varying_unknown_reals=["y"],
        target_normalizer=EncoderNormalizer(),  # scales a window by its history, for every model
        **arguments,
    )
    ends = np.cumsum([split.training, split.validation, split.test])
    parts = [
        BatchedTimeSeriesDataSet.from_dataset(
            training, table[table["step"] < end], min_prediction_idx=start
        )
        for start, end in itertools.pairwise(ends)
    ]
    for part, rows in zip(parts, (split.validation, split.test), strict=True):
        expected = table["series"].nunique() * (rows - horizon + 1)
        if len(part) != expected:
            raise RuntimeError(f"expected {expected} windows, got {len(part)}")
    return Data(training, *parts)


@torch.no_grad()
def errors(model: BaseModel, batches: Iterable[Any]) -> tuple[float, float]:
    """Return mean squared and mean absolute error over all windows."""
    device = model.device
    squares, sizes, count = 0.0, 0.0, 0
    model.eval()
    for x, (y, _) in batches:
        forecast = model({name: _to(value, device) for name, value in x.items()})["prediction"]
        error = (forecast[..., 0] - y.to(device)).double()
        squares += error.square().sum().item()
        sizes += error.abs().sum().item()
        count += error.numel()
    return squares / count, sizes / count


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def one_cycle(progress: float) -> float:
    """Return the learning rate, relative to the highest, at this fraction of the training."""
    if progress < WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / WARM_UP)) / 2
    decay = min((progress - WARM_UP) / (1 - WARM_UP), 1.0)
    return (1 + math.cos(math.pi * decay)) / 2


class Training(pl.Callback):
    """Sets the learning rate, stops at the budget, averages weights and keeps the best epoch."""

    def __init__(self, arguments: argparse.Namespace, validation: DataLoader) -> None:
        self.learning_rate, self.epochs = arguments.learning_rate, arguments.epochs
        self.budget, self.clock = 60 * arguments.minutes, CLOCKS[arguments.clock]
        self.decay = arguments.average
        self.validation = validation
        self.seconds = 0.0  # of training, without validation
        self.batches = 0
        self.average: list[Tensor] = []
        self.best: tuple[float, float] = (math.inf, math.inf)
        self.best_epoch = 0
        self.weights: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> int | None:
        """Set the learning rate; stop the training once the budget is spent."""
        if self.seconds >= self.budget:
            trainer.should_stop = True
            return -1
        progress = self.batches / (trainer.num_training_batches * self.epochs)
        factor = one_cycle(max(progress, self.seconds / self.budget))
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * factor
        self.start = self.clock()
        return None

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, model: BaseModel, *_: Any) -> None:
        """Count the batch, and average the weights."""
        self.batches += 1
        if self.decay:
            weights = [parameter.detach() for parameter in model.parameters()]
            if not self.average:
                self.average = [weight.clone() for weight in weights]
            # average over few steps at first, since the initial weights are random
            decay = min(self.decay, (1 + self.batches) / (10 + self.batches))
            torch._foreach_lerp_(self.average, weights, 1 - decay)
        self.seconds += self.clock() - self.start

    def on_train_epoch_end(self, trainer: pl.Trainer, model: BaseModel) -> None:
        """Keep the weights if they are the best so far."""
        with self._averaged(model):
            mse, mae = errors(model, self.validation)
            if mse + mae < sum(self.best) or not self.weights:
                self.best, self.best_epoch = (mse, mae), trainer.current_epoch + 1
                self.weights = copy.deepcopy(model.state_dict())
        model.train()
        logging.getLogger(__name__).info(
            "epoch %d: validation %.4f / %.4f", trainer.current_epoch + 1, mse, mae
        )

    @contextmanager
    def _averaged(self, model: BaseModel) -> Iterator[None]:
        """Use the averaged weights inside the context."""
        parameters = list(model.parameters())
        trained = [parameter.data for parameter in parameters]
        for parameter, average in zip(parameters, self.average, strict=bool(self.average)):
            parameter.data = average
        yield
        for parameter, data in zip(parameters, trained, strict=True):
            parameter.data = data


def seconds_per_forecast(model: BaseModel, dataset: TimeSeriesDataSet) -> float:
    """Return the median time of a forecast of one window of every series."""
    series = dataset.index["sequence_id"].nunique()
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=series)))
    x = {name: _to(value, model.device) for name, value in x.items()}
    model.eval()
    seconds = []
    with torch.no_grad():
        for _ in range(6):
            start = time.perf_counter()
            model(x)["prediction"].sum().item()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def run(competitor: Competitor, data: Data, seed: int, arguments: argparse.Namespace) -> dict:
    """Train and evaluate one model."""
    pl.seed_everything(seed, verbose=False)
    model = competitor.build(data.training)
    model.hparams.optimizer, model.hparams.weight_decay = "adamw", arguments.weight_decay
    model.optimizer = "adamw"
    model.hparams.reduce_on_plateau_patience = 10**6  # only the cycle sets the learning rate
    training = Training(
        arguments, data.validation.to_dataloader(train=False, batch_size=EVALUATION_BATCH)
    )
    batches = data.training.to_dataloader(train=True, batch_size=arguments.batch_size)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        limit_train_batches=max(1, round(arguments.windows * len(batches))),
        accelerator=arguments.accelerator,
        gradient_clip_val=1.0,
        callbacks=[training],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, batches)
    model.load_state_dict(training.weights)
    model.to("cpu" if arguments.accelerator == "cpu" else trainer.strategy.root_device)
    test = (math.nan, math.nan)
    if arguments.test:
        test = errors(model, data.test.to_dataloader(train=False, batch_size=EVALUATION_BATCH))
    return {
        "validation_mse": training.best[0],
        "validation_mae": training.best[1],
        "test_mse": test[0],
        "test_mae": test[1],
        "epoch": training.best_epoch,
        "epochs": round(training.batches / trainer.num_training_batches, 2),
        "parameters": count_parameters(model),
        "seconds_per_epoch": training.seconds / training.batches * trainer.num_training_batches,
        "seconds_per_forecast": seconds_per_forecast(model, data.validation),
    }


def summary(rows: list[dict]) -> list[str]:
    """Make a Markdown table of means over seeds, and standard deviations of the errors."""
    lines = [
        "| model | horizon | seeds | validation MSE / MAE | test MSE / MAE | ± (MSE, MAE) | "
        "parameters | s / epoch | ms / forecast |",
        "|" + " --- |" * 9,
    ]
    for (model, horizon), group in pd.DataFrame(rows).groupby(["model", "horizon"], sort=False):
        mean = group.mean(numeric_only=True)
        std = group[["test_mse", "test_mae"]].std(ddof=1)
        lines.append(
            f"| {model} | {horizon} | {len(group)} "
            f"| {mean.validation_mse:.4f} / {mean.validation_mae:.4f} "
            f"| {mean.test_mse:.4f} / {mean.test_mae:.4f} "
            f"| {std.test_mse:.4f}, {std.test_mae:.4f} | {mean.parameters:,.0f} "
            f"| {mean.seconds_per_epoch:.1f} | {1000 * mean.seconds_per_forecast:.1f} |"
        )
    return lines


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="CSV with dates and one column per series"
    )
    parser.add_argument("--date", default="date", help="name of the date column")
    parser.add_argument(
        "--split",
        type=float,
        nargs=3,
        default=[8640, 2880, 2880],
        help="rows of training, validation and test data, or fractions that sum to 1",
    )
    parser.add_argument("--history", type=int, default=512)
    parser.add_argument("--horizons", type=int, nargs="+", default=[96])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--models", nargs="+", choices=list(COMPETITORS), default=["ours"], metavar="MODEL",
        help=", ".join(COMPETITORS),
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="time limit of each training run"
    )
    parser.add_argument(
        "--windows", type=float, default=0.5, help="fraction of the windows in an epoch, up to 1"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--average", type=float, default=0.99, help="decay of the weight average")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument(
        "--accelerator", default="cpu", help="Lightning's accelerator: cpu, gpu, auto"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="also evaluate on the test data")
    parser.add_argument("--csv", type=Path, help="append one row per run to this file")
    parser.add_argument("--verbose", action="store_true", help="print every epoch")
    return parser.parse_args()


def append_row(path: Path, row: dict) -> None:
    """Append a row to a CSV file; a new file gets a header first."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(
            {name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()}
        )


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")  # advice, for example on loaders
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)

    table, split = read_table(arguments.data, arguments.split, arguments.date)
    print(f"{arguments.data.name}: {table['series'].nunique()} series, {split}")
    rows = []
    for horizon, name in itertools.product(arguments.horizons, arguments.models):
        competitor = COMPETITORS[name]
        data = make_data(table, split, arguments.history, horizon, **competitor.dataset)
        for seed in arguments.seeds:
            row = {
                "data": arguments.data.stem,
                "model": competitor.label,
                "horizon": horizon,
                "seed": seed,
                **run(competitor, data, seed, arguments),
            }
            rows.append(row)
            print(
                f"{competitor.label}, horizon {horizon}, seed {seed}: validation "
                f"{row['validation_mse']:.4f} / {row['validation_mae']:.4f}, test "
                f"{row['test_mse']:.4f} / {row['test_mae']:.4f}, epoch {row['epoch']}, "
                f"{row['seconds_per_epoch']:.1f} s per epoch",
                flush=True,
            )
            if arguments.csv:
                append_row(arguments.csv, row)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
