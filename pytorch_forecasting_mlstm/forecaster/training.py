"""Fit the model with the Lightning Trainer, and keep the epoch that validates best."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning import pytorch as pl
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.metrics import QuantileLoss
from torch.utils.data import RandomSampler

from ..models import mLSTMTime
from .datasets import ModelFrame

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
INTERVAL = (0.1, 0.9)

_BATCH = 64
_BATCHES_PER_EPOCH = 30  # windows are drawn, so that an epoch takes as long for any table
_LEARNING_RATE = 5e-3
_PATIENCE = 15  # long enough to reach the small learning rates, where most is gained

_TRAINER: dict[str, Any] = {
    "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
    "devices": 1,
    "logger": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class Fit:
    """A fitted model, and the epoch that it is from, counted from 1."""

    model: mLSTMTime
    epoch: int


class _Progress(pl.Callback):
    """One line per epoch."""

    def __init__(self) -> None:
        self.best = math.inf
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        line = f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"
        line += f"   training loss {float(metrics['train_loss_epoch']):.4f}"
        if "val_loss" in metrics:
            loss = float(metrics["val_loss"])
            line += f"   validation loss {loss:.4f}{' *' if loss < self.best else '  '}"
            self.best = min(self.best, loss)
        line += f"   {time.monotonic() - self.started:5.1f} s"
        print(line, flush=True)


def fit(
    training: TimeSeriesDataSet,
    validation: TimeSeriesDataSet | None,
    *,
    epochs: int,
    seed: int,
    max_seconds: float | None = None,
) -> Fit:
    """Fit mLSTMTime.

    Parameters
    ----------
    training : TimeSeriesDataSet
        Windows to learn from.
    validation : TimeSeriesDataSet or None
        Windows that choose the epoch; None keeps the last one.
    epochs : int
        Most epochs; training stops early once validation no longer improves.
    seed : int
        Of weights, dropout and the order of windows.
    max_seconds : float, optional
        Start no epoch after this time, whatever is left of `epochs`; without it a seed always
        gives the same model.

    Returns
    -------
    Fit
        The model, ready to predict.
    """
    pl.seed_everything(seed, verbose=False)
    model = mLSTMTime.from_dataset(
        training,
        loss=QuantileLoss(list(QUANTILES)),
        learning_rate=_learning_rates(epochs),
        optimizer="adamw",
        weight_decay=1e-2,
    )
    loaders = [_training_loader(training, seed)]
    limit = None if max_seconds is None else timedelta(seconds=max_seconds)
    timer = pl.callbacks.Timer(limit, interval="epoch", verbose=False)
    callbacks: list[pl.Callback] = [_Progress(), timer]
    with TemporaryDirectory(prefix="mlstm-") as folder:
        if validation is not None:
            loaders.append(validation.to_dataloader(train=False, batch_size=4 * _BATCH))
            best = pl.callbacks.ModelCheckpoint(
                Path(folder), monitor="val_loss", save_weights_only=True
            )
            callbacks += [best, pl.callbacks.EarlyStopping("val_loss", patience=_PATIENCE)]
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=callbacks,
            gradient_clip_val=1.0,
            enable_checkpointing=validation is not None,
            enable_progress_bar=False,  # an epoch takes seconds, and has a line of its own
            num_sanity_val_steps=0,
            **_TRAINER,
        )
        _run(trainer.fit, model, *loaders)
        if max_seconds is not None and timer.time_elapsed() >= max_seconds:
            print(f"Stopped after {max_seconds:g} s: a faster machine may get a better model")
        if validation is None:
            return Fit(model, epochs)
        # The file was written a moment ago, by this process: its pickled parts can be trusted.
        checkpoint = torch.load(best.best_model_path, weights_only=False)
        model.load_state_dict(checkpoint["state_dict"])
        return Fit(model, int(checkpoint["epoch"]) + 1)


def predict_quantiles(
    model: mLSTMTime, data: TimeSeriesDataSet, frame: ModelFrame, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantile forecasts of all windows of `data`.

    Parameters
    ----------
    model : mLSTMTime
        Fitted.
    data : TimeSeriesDataSet
        Windows of the full horizon.
    frame : ModelFrame
        Where they are from: it knows the scale of each series.
    floor : float
        Forecasts below it are raised to it.

    Returns
    -------
    quantiles : numpy.ndarray
        (W, h, Q), in the unit of the table, not decreasing along Q.
    series, origins : numpy.ndarray
        (W,): series and first forecast step of each window.
    """
    prediction = _run(
        model.predict,
        data,
        mode="quantiles",
        return_index=True,
        batch_size=4 * _BATCH,
        trainer_kwargs=dict(_TRAINER),
    )
    series = prediction.index["series"].astype(int).to_numpy()
    scaled = prediction.output.cpu().double().numpy()
    quantiles = _scale_back(scaled, series, frame, floor)
    return quantiles, series, prediction.index["time_idx"].to_numpy()


def predict_future(model: mLSTMTime, frame: ModelFrame, floor: float) -> np.ndarray:
    """Quantile forecasts of what comes after the table.

    Parameters
    ----------
    model, frame, floor
        As of `predict_quantiles`.

    Returns
    -------
    numpy.ndarray
        (series, h, Q), in the unit of the table, not decreasing along Q.
    """
    forecast = _run(
        model.forecast,
        frame.rows,
        frame.future,
        batch_size=4 * _BATCH,
        trainer_kwargs=dict(_TRAINER),
    )
    columns = [f"q{level:g}" for level in QUANTILES]
    scaled = forecast[columns].to_numpy(float).reshape(len(frame.center), -1, len(columns))
    return _scale_back(scaled, forecast["series"].unique().astype(int), frame, floor)


def _scale_back(
    scaled: np.ndarray, series: np.ndarray, frame: ModelFrame, floor: float
) -> np.ndarray:
    """Bring quantiles (W, h, Q) of these series, (W,), to the unit of the table, and sort them."""
    center, spread = (own[series][:, None, None] for own in (frame.center, frame.spread))
    # Quantiles of a network may cross; sorted, none of them forecasts worse.
    return np.sort(np.maximum(center + spread * scaled, floor), axis=-1)


def _training_loader(training: TimeSeriesDataSet, seed: int) -> Any:
    draws = RandomSampler(
        training,
        num_samples=_BATCH * _BATCHES_PER_EPOCH,
        generator=torch.Generator().manual_seed(seed),
    )
    return training.to_dataloader(train=True, batch_size=_BATCH, sampler=draws, shuffle=False)


def _learning_rates(epochs: int) -> list[float]:
    """One per epoch, falling to near zero along half a cosine."""
    return [
        _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * epoch / (epochs + 1)))
        for epoch in range(epochs)
    ]


def _run(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run the trainer on one thread, and give Ctrl-C back, which it turns into an exit of its own.

    Tensors are small here: several threads would mostly wait for one another, and for minutes where
    other programs keep the processor busy.
    """
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(1)
    try:
        return call(*args, **kwargs)
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        torch.set_num_threads(threads)
        with suppress(ValueError):  # handlers belong to the main thread
            signal.signal(signal.SIGINT, handler)
