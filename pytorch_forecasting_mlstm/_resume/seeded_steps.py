"""The callback that seeds each step by its index, and saves checkpoints of completed steps."""

import os
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from .epoch_means import gather_epoch_means, read_epoch_means, restore_epoch_means
from .resume_point import (
    AFTER_STEP,
    BEFORE_BATCH,
    BEFORE_EPOCH,
    EPOCH_END,
    find_resume_point,
    set_resume_point,
)
from .seeds import mix_seeds
from .step_schedulers import read_step_schedulers, write_step_schedulers

__all__ = ["SeededSteps"]


@dataclass
class _Snapshot:
    """What a checkpoint needs from an earlier moment, besides weights and optimizers."""

    loop: dict[str, Any]
    callbacks: dict[str, Any]
    state: dict[str, Any]  # of SeededSteps
    buffers: dict[str, Tensor]


@dataclass
class _Accumulation:
    """What was true at the first batch of an accumulation and may have changed since."""

    done: int
    logged_step: int
    callbacks: dict[str, Any]
    metrics: dict[str, Tensor]
    means: list[Any]


class SeededSteps(Callback):
    """Make training resume exactly: seed each step by its index, save only completed steps.

    The random numbers of a step, for example those of dropout, are derived from the seed and the
    index of the step alone. The processes of a distributed run draw different ones.

    A checkpoint describes the run after the last completed step of the optimizer, even if it
    is written during an accumulation of gradients or a validation, at the end of an epoch or after
    an exception. Resuming repeats what follows that step: the validation with early stopping and
    schedulers, or the end of the epoch. However often a run is killed, it sees the same
    batches, epochs, logged epoch values and learning rates as one that is not. To achieve this, the
    callback moves itself to the front of the trainer's list of callbacks.

    Parameters
    ----------
    seed : int
        Seed of the run.

    Raises
    ------
    RuntimeError
        If a checkpoint is requested while the optimizer is changing the weights, as after an
        exception there.

    Examples
    --------
    >>> from lightning import Trainer
    >>> trainer = Trainer(accelerator="cpu", logger=False, callbacks=[SeededSteps(seed=1)])
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._stepping = False  # whether the optimizer is changing the weights
        self._logged_step = 0  # Lightning's step number for loggers when the batch ended
        self._schedulers: dict[str, Any] | None = None  # their states when the batch ended
        self._buffers: dict[str, Tensor] = {}
        self._means: list[Any] = []
        self._accumulation: _Accumulation | None = None
        self._stopped: _Snapshot | None = None  # after the last step of an epoch that was cut short
        self._loaded: _Snapshot | None = None  # until the training continues from it
        self._at_step: dict[str, Any] | None = None  # states of the callbacks after the step
        self._at_epoch_end: dict[str, Any] | None = None

    # Lightning's hooks, in the order in which they run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move to the front, to see the states of all other callbacks before their hooks run."""
        # Lightning is iterating over this list; callbacks not yet visited stay where they are.
        trainer.callbacks.remove(self)  # type: ignore[attr-defined]
        trainer.callbacks.insert(0, self)  # type: ignore[attr-defined]
        self._loaded = self._accumulation = self._stopped = None
        self._at_step = self._at_epoch_end = self._schedulers = None
        self._stepping = False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what Lightning does not restore."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state and trainer.state.fn == TrainerFn.FITTING:
            callbacks = {k: v for k, v in checkpoint["callbacks"].items() if k != self.state_key}
            snapshot = _Snapshot(checkpoint["loops"]["fit_loop"], callbacks, state, buffers={})
            self._loaded = deepcopy(snapshot)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move Lightning's loops to the point that the checkpoint describes."""
        loop: Any = trainer.fit_loop
        self._logged_step = loop.epoch_loop._batches_that_stepped
        self._schedulers = read_step_schedulers(trainer)
        if self._loaded is None:
            return
        state = self._loaded.state
        self._restore_values(trainer, pl_module, state)
        # Otherwise Lightning skips schedulers that read a metric at the end of this epoch.
        loop._restarting = False
        if state["point"] == BEFORE_EPOCH:
            loop.epoch_loop.restarting = False
        if state["point"] == EPOCH_END:
            loop.epoch_loop.val_loop._has_run = True
        if state["point"] == AFTER_STEP and not loop.epoch_loop._should_check_val_fx(
            loop._data_fetcher
        ):
            # Do what follows a step without a validation; Lightning begins with the next batch.
            loop.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            loop.epoch_loop._batches_that_stepped += 1
            loop.epoch_loop.val_loop._has_run = loop.epoch_loop._num_ready_batches_reached()

    def _restore_values(
        self, trainer: Trainer, pl_module: LightningModule, state: dict[str, Any]
    ) -> None:
        """Restore logged values, and the knowledge of which callbacks have saved this step."""
        metrics = {name: value.to(pl_module.device) for name, value in state["metrics"].items()}
        trainer.callback_metrics.update(metrics)
        restore_epoch_means(trainer, state["means"])
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and (
                callback.state_key in state["saved"] or _has_written(callback, trainer.ckpt_path)
            ):
                callback._last_global_step_saved = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the snapshots of the previous epoch."""
        self._discard_snapshots()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step by its index, counted over all epochs."""
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        torch.manual_seed(mix_seeds(self.seed, trainer.global_rank, progress.processed))
        self._discard_snapshots()
        self._means = read_epoch_means(trainer)
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._buffers = {name: value.clone() for name, value in pl_module.named_buffers()}
            self._accumulation = None
            if trainer.accumulate_grad_batches > 1:
                self._accumulation = _Accumulation(
                    done=batch_idx,
                    logged_step=self._logged_step,
                    callbacks=_read_callbacks(trainer),
                    metrics=dict(trainer.callback_metrics),
                    means=self._means,
                )

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Record that the weights are changing."""
        self._stepping = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Record that the step is complete."""
        self._stepping = False
        self._logged_step = trainer.fit_loop.epoch_loop._batches_that_stepped
        self._schedulers = read_step_schedulers(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the states of the callbacks, since the validation is repeated on resume."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._loaded = None
            if self._at_step is None:
                self._at_step = _read_callbacks(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the states of the callbacks, since the end of the epoch is repeated on resume."""
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        if self._loaded is not None:  # the epoch ends without a batch or a validation
            self._loaded = None
            epoch_loop.restarting = epoch_loop.val_loop._has_run = False
        self._at_epoch_end = _read_callbacks(trainer)
        if self._at_step is None:
            self._at_step = self._at_epoch_end
        self._stopped = None
        if trainer.should_stop or not epoch_loop.batch_progress.is_last_batch:
            self._stopped = self._take_snapshot(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the checkpoint describe the training after its last completed step."""
        if self._stepping:
            raise RuntimeError(
                "SeededSteps: a checkpoint must hold the weights of a completed step, but an "
                "exception has interrupted the optimizer; resume from the last checkpoint, which "
                "is unchanged."
            )
        snapshot = self._choose_snapshot(trainer)
        state = {**snapshot.state, "saved": _read_saved(trainer)}
        if snapshot is not self._loaded:
            state["means"] = gather_epoch_means(trainer, state["means"])
            state["metrics"] = {k: v.detach().cpu() for k, v in state["metrics"].items()}
        writers = {callback.state_key for callback in trainer.checkpoint_callbacks}
        states = {k: v for k, v in checkpoint["callbacks"].items() if k in writers}
        checkpoint["callbacks"] = {**states, **snapshot.callbacks, self.state_key: state}
        checkpoint["loops"]["fit_loop"] = snapshot.loop
        if state["point"] == AFTER_STEP and self._schedulers is not None:
            write_step_schedulers(checkpoint, self._schedulers)
        checkpoint["epoch"] = snapshot.loop["epoch_progress"]["current"]["completed"]
        checkpoint["state_dict"].update(
            {k: v for k, v in snapshot.buffers.items() if k in checkpoint["state_dict"]}
        )

    # Snapshots

    def _choose_snapshot(self, trainer: Trainer) -> _Snapshot:
        """Choose the snapshot that matches the current weights."""
        if self._loaded is not None:
            return self._loaded
        current = trainer.fit_loop.epoch_progress.current
        if self._stopped is not None and current.ready == current.completed:
            return self._stopped
        return self._take_snapshot(trainer)

    def _take_snapshot(self, trainer: Trainer) -> _Snapshot:
        """Take a snapshot of the last point that the training passed with a completed step."""
        loop = trainer.fit_loop.state_dict()
        point = find_resume_point(loop, self._logged_step, trainer.should_stop)
        progress = loop["epoch_loop.batch_progress"]
        batches = progress["current"]
        within = batches["ready"] > batches["processed"]
        accumulating = batches["processed"] % trainer.accumulate_grad_batches > 0
        start = self._accumulation
        if start is not None and (
            within or (accumulating and point != BEFORE_EPOCH and not progress["is_last_batch"])
        ):
            point = BEFORE_BATCH if start.done else BEFORE_EPOCH
            undone = batches["processed"] - start.done
            set_resume_point(loop, point, start.logged_step, undone)
            state = _build_state(point, start.metrics, start.means)
            return _Snapshot(loop, start.callbacks, state, self._buffers)
        set_resume_point(loop, point, self._logged_step)
        callbacks = {AFTER_STEP: self._at_step, EPOCH_END: self._at_epoch_end}.get(point)
        means = self._means if within else read_epoch_means(trainer)
        return _Snapshot(
            loop,
            _read_callbacks(trainer) if callbacks is None else callbacks,
            _build_state(point, trainer.callback_metrics, means),
            self._buffers if within else {},
        )

    def _discard_snapshots(self) -> None:
        """Discard what belongs to the previous step."""
        self._loaded = self._stopped = self._at_step = self._at_epoch_end = None


def _build_state(point: str, metrics: dict[str, Tensor], means: list[Any]) -> dict[str, Any]:
    """Build the state of SeededSteps that goes into a checkpoint."""
    means = [] if point == BEFORE_EPOCH else means
    return {"point": point, "metrics": dict(metrics), "means": means}


def _read_callbacks(trainer: Trainer) -> dict[str, Any]:
    """Copy the states of all callbacks but checkpoint writers, whose list of files is current."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    states = {
        callback.state_key: callback.state_dict()
        for callback in callbacks
        if not isinstance(callback, Checkpoint)
    }
    return {key: deepcopy(state) for key, state in states.items() if state}


def _read_saved(trainer: Trainer) -> list[str]:
    """List the callbacks that have saved this step and need not save it again on resume."""
    return [
        callback.state_key
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        and callback._last_global_step_saved == trainer.global_step
    ]


def _has_written(callback: Any, path: Any) -> bool:
    """Return whether a callback has written this file."""
    written = (callback.best_model_path, callback.last_model_path, *callback.best_k_models)
    return os.path.abspath(path) in [os.path.abspath(name) for name in written if name]
