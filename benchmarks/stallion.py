"""Demand with covariates and quantiles: the tutorial of TemporalFusionTransformer, both models.

    python benchmarks/stallion.py --data stallion.parquet
    python benchmarks/stallion.py --data stallion.parquet --seeds 0 1 2 --csv stallion.csv

The setup is that of pytorch-forecasting's tutorial "Demand forecasting with the Temporal Fusion
Transformer": 350 series of monthly sales, up to 24 months of history, a horizon of six months, the
same covariates and sizes, `QuantileLoss`, and early stopping on the loss of the last six months.
Adam replaces the tutorial's optimizer. The reported loss is the best validation loss. It also stops
the training, so it is a little optimistic for both models. Seconds are the time of fitting and
validation until early stopping, until the best loss, and until the loss is as low as the
transformer's best.
"""

import argparse
import csv
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from _covariate_tables import SPECIAL_DAYS
from lightning.pytorch.callbacks import EarlyStopping
from pytorch_forecasting import (
    GroupNormalizer,
    QuantileLoss,
    TemporalFusionTransformer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.models import BaseModel

from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

HISTORY, HORIZON = 24, 6
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TRANSFORMER = "TemporalFusionTransformer"
COLUMNS = [
    "model",
    "seed",
    "validation_loss",
    "seconds",
    "seconds_to_best",
    "seconds_to_transformer",
    "epochs",
    "parameters",
]


def read_table(path: Path) -> pd.DataFrame:
    """Read the sales, with the columns that the tutorial adds."""
    data = pd.read_parquet(path)
    data["time_idx"] = data["date"].dt.year * 12 + data["date"].dt.month
    data["time_idx"] -= data["time_idx"].min()
    data["month"] = data["date"].dt.month.astype(str)
    data["log_volume"] = np.log(data["volume"] + 1e-8)
    for group in ("sku", "agency"):
        data[f"avg_volume_by_{group}"] = data.groupby(["time_idx", group], observed=True)[
            "volume"
        ].transform("mean")
    for day in SPECIAL_DAYS:
        data[day] = data[day].map({0: "-", 1: day}).astype(str)
    for group in ("sku", "agency"):
        data[group] = data[group].astype(str)
    return data


def make_data(table: pd.DataFrame) -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    """Make the training data, and validation data from the last six months of every series."""
    training = BatchedTimeSeriesDataSet(
        table[table["time_idx"] <= table["time_idx"].max() - HORIZON],
        time_idx="time_idx",
        target="volume",
        group_ids=["agency", "sku"],
        min_encoder_length=HISTORY // 2,
        max_encoder_length=HISTORY,
        min_prediction_length=1,
        max_prediction_length=HORIZON,
        static_categoricals=["agency", "sku"],
        static_reals=["avg_population_2017", "avg_yearly_household_income_2017"],
        time_varying_known_categoricals=["special_days", "month"],
        variable_groups={"special_days": SPECIAL_DAYS},
        time_varying_known_reals=["time_idx", "price_regular", "discount_in_percent"],
        time_varying_unknown_reals=[
            "volume",
            "log_volume",
            "industry_volume",
            "soda_volume",
            "avg_max_temp",
            "avg_volume_by_agency",
            "avg_volume_by_sku",
        ],
        target_normalizer=GroupNormalizer(groups=["agency", "sku"], transformation="softplus"),
        add_relative_time_idx=True,
        add_target_scales=True,
        add_encoder_length=True,
    )
    validation = BatchedTimeSeriesDataSet.from_dataset(
        training, table, predict=True, stop_randomization=True
    )
    return training, validation


def transformer(dataset: TimeSeriesDataSet) -> BaseModel:
    return TemporalFusionTransformer.from_dataset(
        dataset,
        learning_rate=0.03,
        hidden_size=16,
        attention_head_size=2,
        dropout=0.1,
        hidden_continuous_size=8,
        loss=QuantileLoss(),
        reduce_on_plateau_patience=4,
    )


def ours(dataset: TimeSeriesDataSet) -> BaseModel:
    return mLSTMTime.from_dataset(
        dataset, learning_rate=3e-3, loss=QuantileLoss(), reduce_on_plateau_patience=4
    )


MODELS: dict[str, Callable[[TimeSeriesDataSet], BaseModel]] = {
    TRANSFORMER: transformer,
    "mLSTMTime": ours,
}


class ValidationCurve(pl.Callback):
    """Records the validation loss of every epoch, and the time at its end."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.start = now()
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, model: BaseModel) -> None:
        """Record loss and time."""
        if not trainer.sanity_checking:
            self.losses.append(trainer.callback_metrics["val_loss"].item())
            self.seconds.append(self.now() - self.start)

    def seconds_until(self, target: float) -> float | None:
        """Return the seconds until the loss was at most ``target``, or None."""
        epochs = zip(self.seconds, self.losses, strict=True)
        return next((round(seconds, 1) for seconds, loss in epochs if loss <= target), None)


def run(
    build: Callable[[TimeSeriesDataSet], BaseModel],
    training: TimeSeriesDataSet,
    validation: TimeSeriesDataSet,
    seed: int,
    arguments: argparse.Namespace,
    target: float | None,
) -> dict[str, Any]:
    """Fit one model as the tutorial does; ``target`` is the transformer's loss if it is known."""
    pl.seed_everything(seed, verbose=False)
    model = build(training)
    curve = ValidationCurve(CLOCKS[arguments.clock])
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        limit_train_batches=50,
        gradient_clip_val=0.1,
        accelerator="cpu",
        callbacks=[curve, EarlyStopping("val_loss", min_delta=1e-4, patience=10, mode="min")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        model,
        training.to_dataloader(train=True, batch_size=128),
        validation.to_dataloader(train=False, batch_size=1280),
    )
    seconds = curve.now() - curve.start
    best = min(curve.losses)
    return {
        "validation_loss": round(best, 3),
        "seconds": round(seconds, 1),
        "seconds_to_best": curve.seconds_until(best),
        "seconds_to_transformer": None if target is None else curve.seconds_until(target),
        "epochs": trainer.current_epoch,
        "parameters": sum(weights.numel() for weights in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the tutorial's stallion.parquet")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--epochs", type=int, default=50, help="maximum number of epochs")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--csv", type=Path, help="append one row per run to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # advice, for example on loaders
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    training, validation = make_data(read_table(arguments.data))
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    for seed in arguments.seeds:
        target = None
        for name in sorted(arguments.models, key=list(MODELS).index):  # the transformer first
            measured = run(MODELS[name], training, validation, seed, arguments, target)
            if name == TRANSFORMER:
                target = measured["validation_loss"]
            row = {"model": name, "seed": seed, **measured}
            print("| " + " | ".join(str(row[column]) for column in COLUMNS) + " |", flush=True)
            if arguments.csv:
                new = not arguments.csv.exists()
                with arguments.csv.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    if new:
                        writer.writeheader()
                    writer.writerow(row)


if __name__ == "__main__":
    main()
