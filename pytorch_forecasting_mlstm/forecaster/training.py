"""Fit mLSTMTime with a fixed recipe, and keep the epoch with the lowest validation loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning import pytorch as pl
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.metrics import QuantileLoss
from torch.utils.data import RandomSampler

from ..models import mLSTMTime
from .quantiles import QUANTILES

BATCH_SIZE = 64
TRAINER_OPTIONS: dict[str, Any] = {
    "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
    "devices": 1,
    "logger": False,
    "enable_model_summary": False,
}

_BATCHES_PER_EPOCH = 30  # windows are sampled, so that an epoch takes equally long for any table
_LEARNING_RATE = 5e-3
_PATIENCE = 15  # epochs: enough to reach the small learning rates, which improve most


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch of training.

    Attributes
    ----------
    epoch, max_epochs : int
        Number of the epoch, counted from 1, and of the last possible one.
    training_loss : float
        Mean over its batches.
    validation_loss : float or None
        None without validation windows.
    is_best : bool
        Whether the validation loss is lower than in all earlier epochs.
    seconds : float
        Since the start of training.
    """

    epoch: int
    max_epochs: int
    training_loss: float
    validation_loss: float | None
    is_best: bool
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """A fitted model, ready to predict.

    Attributes
    ----------
    model : mLSTMTime
        With the weights of `epoch`.
    epoch : int
        The selected epoch, counted from 1.
    out_of_time : bool
        Whether training ended because of its time limit.
    """

    model: mLSTMTime
    epoch: int
    out_of_time: bool = False


OnEpoch = Callable[[EpochResult], None]


def fit(
    training: TimeSeriesDataSet,
    validation: TimeSeriesDataSet | None,
    *,
    epochs: int,
    seed: int,
    max_seconds: float | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Fit mLSTMTime.

    Parameters
    ----------
    training : TimeSeriesDataSet
        Windows to learn from.
    validation : TimeSeriesDataSet or None
        Windows that select the epoch; None keeps the last one.
    epochs : int
        Maximum number of epochs; training stops early when validation no longer improves.
    seed : int
        Seed of the sampled windows. Weights and dropout use torch's global generator, which the
        caller seeds.
    max_seconds : float, optional
        Start no epoch after this time. Without a limit, equal seeds give equal models.
    on_epoch : callable, optional
        Called with an `EpochResult` after each epoch.
    """
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
    history = _BestEpoch(on_epoch)
    callbacks: list[pl.Callback] = [history, timer]
    if validation is not None:
        loaders.append(validation.to_dataloader(train=False, batch_size=4 * BATCH_SIZE))
        callbacks.append(pl.callbacks.EarlyStopping("val_loss", patience=_PATIENCE))
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        enable_progress_bar=False,  # `on_epoch` reports: an epoch takes seconds
        num_sanity_val_steps=0,
        **TRAINER_OPTIONS,
    )
    trainer.fit(model, *loaders)
    out_of_time = max_seconds is not None and timer.time_elapsed() >= max_seconds
    if validation is None:
        return FitResult(model, epochs, out_of_time)
    model.load_state_dict(history.weights)
    return FitResult(model, history.epoch, out_of_time)


class _BestEpoch(pl.Callback):
    """Report each epoch, and keep the weights of the one with the lowest validation loss."""

    def __init__(self, on_epoch: OnEpoch | None) -> None:
        self.on_epoch = on_epoch
        self.started = time.monotonic()
        self.loss = math.inf
        self.epoch = 0
        self.weights: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        epoch = trainer.current_epoch + 1
        loss = float(metrics["val_loss"]) if "val_loss" in metrics else None
        is_best = loss is not None and loss < self.loss
        if loss is not None and (is_best or not self.epoch):  # the first epoch in any case
            self.epoch, self.weights = epoch, deepcopy(pl_module.state_dict())
            self.loss = loss if is_best else math.inf
        if self.on_epoch is not None:
            self.on_epoch(
                EpochResult(
                    epoch=epoch,
                    max_epochs=int(trainer.max_epochs or 0),
                    training_loss=float(metrics["train_loss_epoch"]),
                    validation_loss=loss,
                    is_best=is_best,
                    seconds=time.monotonic() - self.started,
                )
            )


def _training_loader(training: TimeSeriesDataSet, seed: int) -> Any:
    sampler = RandomSampler(
        training,
        num_samples=BATCH_SIZE * _BATCHES_PER_EPOCH,
        generator=torch.Generator().manual_seed(seed),
    )
    return training.to_dataloader(train=True, batch_size=BATCH_SIZE, sampler=sampler, shuffle=False)


def _learning_rates(epochs: int) -> list[float]:
    """Return one rate per epoch, falling to near zero along half a cosine."""
    return [
        _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * epoch / (epochs + 1)))
        for epoch in range(epochs)
    ]
