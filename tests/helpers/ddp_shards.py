"""Training on shards of a table in two processes, which ``test_ddp_shards.py`` starts."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from helpers.datasets import QUIET
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import ParquetShards
from pytorch_forecasting_mlstm.resume import SeededSteps

BATCH = 4  # windows of one process


class Batches(Callback):
    """Records what the process trains on."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *_: Any) -> None:
        self.batches.append(batch)


def make_model(shards: ParquetShards) -> mLSTMTime:
    seed_everything(0, verbose=False)
    return mLSTMTime.from_dataset(
        shards[0], hidden_size=8, num_heads=2, dropout=0.0, learning_rate=0.01
    )


def train(folder: Path, name: str, resume: bool = False, **options: Any) -> dict[str, Any]:
    """Fit, and return what the process has seen and learned."""
    shards = ParquetShards.load(folder / "shards.pt")
    model, batches = make_model(shards), Batches()
    saved = ModelCheckpoint(folder / name, every_n_train_steps=1, save_last=True)
    trainer = Trainer(
        num_sanity_val_steps=0,
        callbacks=[SeededSteps(1), saved, batches],
        devices=2,
        strategy="ddp",
        **QUIET,
        **options,
    )
    trainer.fit(
        model,
        shards.to_dataloader(batch_size=BATCH, seed=5),
        shards.to_dataloader(train=False, batch_size=BATCH),
        ckpt_path=folder / name / "last.ckpt" if resume else None,
    )
    return {
        "batches": batches.batches,
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "scales": model.hparams.series_scales,
        "val_loss": float(trainer.callback_metrics.get("val_loss", torch.nan)),
        "rank": trainer.global_rank,
    }


def main(folder: Path) -> None:
    results = {"whole": train(folder, "whole", max_epochs=2)}
    train(folder, "interrupted", max_steps=3)
    results["resumed"] = train(folder, "interrupted", resume=True, max_epochs=2)
    torch.save(results, folder / f"rank{results['whole']['rank']}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
