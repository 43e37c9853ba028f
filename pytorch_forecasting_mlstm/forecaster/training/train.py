"""Fit mLSTMTime once, and keep the epoch with the lowest validation loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from lightning import pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.metrics import QuantileLoss
from torch import Tensor
from torch.utils.data import RandomSampler

from ..._messages import one_line
from ...models import mLSTMTime
from ...models.base.scales.measure import adopt_scales
from ..errors import Argument, InputError
from .interruption import raise_interrupts
from .lightning_output import quiet_lightning
from .linear_start import optimizer_of, start_at
from .recipe import AVERAGE_DECAY, Recipe
from .ridge import LinearStart

_PREDICTION_BATCH_SIZE = 256


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
class TrainingResult:
    """A fitted model, ready to predict.

    Attributes
    ----------
    model : mLSTMTime
        With the weights of `epoch`.
    epoch : int
        The selected epoch, counted from 1.
    validation_loss : float
        Its validation loss; NaN without validation windows.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    model: mLSTMTime
    epoch: int
    validation_loss: float
    interrupted: bool = False


OnEpoch = Callable[[EpochResult], None]


def train(
    training: TimeSeriesDataSet,
    validation: TimeSeriesDataSet | None,
    recipe: Recipe,
    quantiles: Sequence[float],
    *,
    seed: int,
    trainer_kwargs: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch | None = None,
    model: mLSTMTime | None = None,
    start: LinearStart | None = None,
) -> TrainingResult:
    """Fit mLSTMTime.

    Weights, dropout and batches are drawn from torch's global generator, which the caller seeds.

    Parameters
    ----------
    training : TimeSeriesDataSet
        Windows to learn from.
    validation : TimeSeriesDataSet or None
        Windows that select the epoch; None keeps the last one.
    recipe : Recipe
        Settings of the training.
    quantiles : sequence of float
        Quantiles to forecast.
    seed : int
        Seed of the sampled windows.
    trainer_kwargs : mapping, optional
        Arguments of the Trainer, which replace those chosen here; callbacks are added to them.
    on_epoch : callable, optional
        Called with an `EpochResult` after each epoch.
    model : mLSTMTime, optional
        A model to go on with. Default: a new one.
    start : LinearStart, optional
        The linear forecast that a new model starts with. Default: the mean of the history.

    Raises
    ------
    InputError
        If the model or the Trainer refuses its arguments.
    KeyboardInterrupt
        After Ctrl-C in the first epoch.
    """
    rates = learning_rates(recipe.learning_rate, recipe.epochs)
    if model is None:
        model = new_model(training, recipe, quantiles, start)
        model.hparams.learning_rate = rates
    else:
        model.hparams.learning_rate = rates
        # Else this follows after the weights to average are copied, of which it changes the shapes.
        adopt_scales(model, training)
    best = _BestEpoch(on_epoch)
    # `best` comes first: at the end of a validation, it sees the averaged weights.
    callbacks: list[pl.Callback] = [best, pl.callbacks.WeightAveraging(multi_avg_fn=_average)]
    loaders = [_training_loader(training, recipe, seed)]
    if validation is not None:
        loaders.append(validation.to_dataloader(train=False, batch_size=_PREDICTION_BATCH_SIZE))
        callbacks.append(pl.callbacks.EarlyStopping("val_loss", patience=recipe.patience))
    given = dict(trainer_kwargs or {})
    given_callbacks = _as_list(given.get("callbacks"))
    options = {
        "max_epochs": recipe.epochs,
        "gradient_clip_val": 1.0,
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(
            isinstance(c, pl.callbacks.Checkpoint) for c in given_callbacks
        ),
        "enable_model_summary": False,
        "enable_progress_bar": False,  # `on_epoch` reports: an epoch takes seconds
        "num_sanity_val_steps": 0,
        **given,
        "callbacks": [*callbacks, *given_callbacks],
    }
    interrupted = False
    optimizer = model.optimizer
    if optimizer == "adamw":
        model.optimizer = optimizer_of(model, len(training))
    try:
        with quiet_lightning(), raise_interrupts():
            _make_trainer(options).fit(model, *loaders)
    except KeyboardInterrupt:
        if not best.epoch:
            raise
        interrupted = True
    finally:
        model.optimizer = optimizer
    if best.weights:
        model.load_state_dict(best.weights)
    return TrainingResult(model.cpu(), best.epoch, best.loss, interrupted)


def learning_rates(first: float, epochs: int) -> list[float]:
    """Return one rate per epoch, falling to near zero along half a cosine."""
    return [first * 0.5 * (1 + math.cos(math.pi * epoch / (epochs + 1))) for epoch in range(epochs)]


def _average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    """Average weights over about the last 50 steps; over fewer at the beginning.

    Validation compares epochs by these weights. Those of single steps differ by chance, so that an
    early epoch with large steps may seem the best.
    """
    decay = min((1 + int(count)) / (10 + int(count)), AVERAGE_DECAY)
    if averaged[0].is_floating_point():
        # A precision like "64-true" converts the weights of the model after they were copied.
        current = [new.to(old.dtype) for new, old in zip(current, averaged, strict=True)]
        torch._foreach_lerp_(averaged, current, 1 - decay)
    else:  # counters and labels
        torch._foreach_copy_(averaged, current)


def new_model(
    training: TimeSeriesDataSet,
    recipe: Recipe,
    quantiles: Sequence[float],
    start: LinearStart | None,
) -> mLSTMTime:
    """Make a model, whose forecast is that of `start`.

    Parameters
    ----------
    training, recipe, quantiles, start
        As in `train`.

    Raises
    ------
    InputError
        If the model refuses its arguments.
    """
    options = {"optimizer": "adamw", "weight_decay": recipe.weight_decay, **recipe.model}
    try:
        with quiet_lightning():
            model = mLSTMTime.from_dataset(training, loss=QuantileLoss(list(quantiles)), **options)
    except (TypeError, ValueError) as error:
        if not recipe.model:
            raise
        raise InputError(
            Argument("model_kwargs"), f" {dict(recipe.model)} do not fit: {one_line(error)}"
        ) from error
    if start is not None:
        start_at(model, start)
    return model


def _make_trainer(options: Mapping[str, Any]) -> pl.Trainer:
    try:
        return pl.Trainer(**options)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise InputError(
            Argument("trainer_kwargs"), f" do not fit Lightning's Trainer: {one_line(error)}"
        ) from error


class _BestEpoch(pl.Callback):
    """Report each epoch, and keep the weights of the one with the lowest validation loss."""

    def __init__(self, on_epoch: OnEpoch | None) -> None:
        self.on_epoch = on_epoch
        self.started = time.monotonic()
        self.loss = math.nan
        self.epoch = 0
        self.weights: dict[str, Any] = {}
        self.validated: dict[str, Any] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = deepcopy(pl_module.state_dict())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        epoch = trainer.current_epoch + 1
        loss = float(metrics["val_loss"]) if "val_loss" in metrics else None
        # A loss that is not a number is better than none only.
        is_best = loss is not None and (math.isnan(self.loss) or loss < self.loss)
        if loss is None:
            self.epoch = epoch
        elif is_best:
            self.epoch, self.weights, self.loss = epoch, self.validated, loss
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


def _training_loader(training: TimeSeriesDataSet, recipe: Recipe, seed: int) -> Any:
    sampler = RandomSampler(
        training,
        num_samples=recipe.batch_size * recipe.batches_per_epoch,
        generator=torch.Generator().manual_seed(seed),
    )
    return training.to_dataloader(
        train=True, batch_size=recipe.batch_size, sampler=sampler, shuffle=False
    )


def _as_list(callbacks: Any) -> list[pl.Callback]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
