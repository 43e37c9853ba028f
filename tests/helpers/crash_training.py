"""A training that can be cut off: what ``test_crash_safety.py`` runs, in processes of their own."""

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

BATCHES = 4  # of an epoch
EVERY = int(os.environ.get("CRASH_TRAINING_EVERY", "3"))  # steps from file to file


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledInStep(Callback):
    """Kills the process in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            die()


def train(folder: Path, resume: str | None = None, *callbacks: Callback, every: int = EVERY) -> Any:
    """Train for three epochs, with dropout, random lengths and a schedule; return the trainer."""
    seed_everything(1, verbose=False)
    # windows of random length draw when they are loaded, dropout when they are trained on
    dataset = make_dataset(min_encoder_length=2, randomize_length=True)
    model = mLSTMTime.from_dataset(
        dataset, hidden_size=4, num_heads=2, dropout=0.3, learning_rate=0.01
    )
    if resume is not None:
        torch.manual_seed(12345)  # nothing rests on what was drawn before
    training, validation = (
        dataset.to_dataloader(train=train, batch_size=8, num_workers=0) for train in (True, False)
    )
    saved = ModelCheckpoint(
        folder, every_n_train_steps=every, save_top_k=-1, save_last=True, filename="{step}"
    )
    trainer = Trainer(
        max_epochs=3,
        limit_train_batches=BATCHES,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        gradient_clip_val=0.5,
        callbacks=[SeededSteps(seed=2), saved, *callbacks],
        plugins=[AtomicCheckpointIO()],
        **QUIET,
    )
    trainer.fit(model, resumable(training, seed=3), validation, ckpt_path=resume)
    return trainer


def main(folder: Path, step: int) -> None:
    """Train, from the last file where there is one, until the process is killed in this step."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    last = folder / "last.ckpt"
    train(folder, str(last) if last.exists() else None, KilledInStep(step), every=EVERY)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
