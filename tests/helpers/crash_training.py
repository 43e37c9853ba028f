"""A training run that kills its process, which ``test_resume.py`` runs."""

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from helpers.datasets import QUIET, make_dataset
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.resume import AtomicCheckpointIO, SeededSteps, resumable

BATCHES = 4  # in an epoch
EVERY = int(os.environ.get("CRASH_TRAINING_EVERY", "3"))  # steps between checkpoints


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillInStep(Callback):
    """Kills the process in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            die()


def train(folder: Path, resume: str | None = None, *callbacks: Callback, every: int = EVERY) -> Any:
    """Train for three epochs, with dropout, random lengths and a schedule; return the trainer."""
    seed_everything(1, verbose=False)
    # loading draws random lengths, and training draws dropout
    dataset = make_dataset(min_encoder_length=2, randomize_length=True)
    model = mLSTMTime.from_dataset(
        dataset, hidden_size=4, num_heads=2, dropout=0.3, learning_rate=0.01
    )
    if resume is not None:
        torch.manual_seed(12345)  # the result must not depend on earlier draws
    training, validation = (
        dataset.to_dataloader(train=train, batch_size=8, num_workers=0) for train in (True, False)
    )
    checkpoint = ModelCheckpoint(
        folder, every_n_train_steps=every, save_top_k=-1, save_last=True, filename="{step}"
    )
    trainer = Trainer(
        max_epochs=3,
        limit_train_batches=BATCHES,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        gradient_clip_val=0.5,
        callbacks=[SeededSteps(seed=2), checkpoint, *callbacks],
        plugins=[AtomicCheckpointIO()],
        **QUIET,
    )
    trainer.fit(model, resumable(training, seed=3), validation, ckpt_path=resume)
    return trainer


def main(folder: Path, step: int) -> None:
    """Train until the process is killed in this step; resume from the last checkpoint if any."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    last = folder / "last.ckpt"
    train(folder, str(last) if last.exists() else None, KillInStep(step), every=EVERY)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
