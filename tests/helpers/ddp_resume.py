"""Two processes that are killed and resume, which ``test_ddp.py`` starts."""

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from helpers.datasets import QUIET
from helpers.resume_training import MetricsLogger, NumberedSamples, TinyModel
from pytorch_forecasting_mlstm.resume import AtomicCheckpointIO, SeededSteps, resumable

#: Batches in which the processes are killed once, counted over epochs of 4 batches.
KILLS = (4, 9)


class KillInBatches(Callback):
    """Kills both processes within a batch: a single one would leave the other waiting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        batch = trainer.fit_loop.total_batch_idx
        marker = self.folder / f"killed {batch} {trainer.global_rank}"
        if batch in KILLS and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, *callbacks: Callback) -> dict[str, Any]:
    seed_everything(1, verbose=False)
    model = TinyModel("plateau of training")
    model.norm = torch.nn.Identity()  # type: ignore[assignment]
    saves: list[dict[str, Any]] = [{"every_n_train_steps": 1, "save_last": True}, {}]
    logged: dict[Any, float] = {}
    trainer = Trainer(
        max_epochs=3,
        devices=2,
        strategy="ddp",
        accumulate_grad_batches=2,
        num_sanity_val_steps=0,
        callbacks=[SeededSteps(2), *(ModelCheckpoint(folder, **save) for save in saves)]
        + list(callbacks),
        plugins=[AtomicCheckpointIO()],
        **{**QUIET, "logger": MetricsLogger(logged)},
    )
    last = folder / "last.ckpt"
    data = NumberedSamples(16)
    trainer.fit(
        model,
        resumable(DataLoader(data, batch_size=2, shuffle=True), seed=3),
        DataLoader(data, batch_size=8),
        ckpt_path=last if last.exists() else None,
    )
    return {
        "weights": dict(model.state_dict()),
        "steps": trainer.global_step,
        "epoch": trainer.current_epoch,
        "rate": trainer.optimizers[0].param_groups[0]["lr"],
        "last epoch": [v for (_, name), v in sorted(logged.items()) if name.endswith("_epoch")][-1],
        "rank": trainer.global_rank,
    }


def main(folder: Path) -> None:
    resumed = train(folder / "resumed", KillInBatches(folder))
    expected = train(folder / "expected")
    path = folder / f"resumed{resumed['rank']}.pt"
    torch.save({"resumed": resumed, "expected": expected}, path)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
