"""A training by one or two processes: what ``test_ddp.py`` runs, and each of its processes."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from torch.utils.data import DistributedSampler

from helpers.datasets import QUIET, make_dataset
from pytorch_forecasting_mlstm import mLSTMTime

GLOBAL_BATCH = 8


class Losses(Callback):
    """Keeps the loss of every step, averaged over the processes."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        self.values.append(float(trainer.strategy.reduce(loss, reduce_op="mean")))


def train(devices: int) -> dict[str, Any]:
    """Fit two epochs, without dropout; return what came out."""
    seed_everything(0, verbose=False)
    # 45 windows: an odd number, which two processes cannot share evenly, and no whole batches
    dataset = make_dataset(time_varying_known_reals=["price"], min_encoder_length=6)
    model = mLSTMTime.from_dataset(
        dataset, hidden_size=8, num_heads=2, dropout=0.0, learning_rate=0.01
    )
    share = {"batch_size": GLOBAL_BATCH // devices, "num_workers": 0}
    # the order that Lightning has for several processes, whatever the loader shuffles
    order = DistributedSampler(dataset, num_replicas=1, rank=0, seed=0) if devices == 1 else None
    training = dataset.to_dataloader(train=True, shuffle=False, sampler=order, **share)
    validation = dataset.to_dataloader(train=False, **share)
    losses = Losses()
    trainer = Trainer(
        max_epochs=2,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        callbacks=[losses],
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",  # no flag for unused parameters
        **QUIET,
    )
    trainer.fit(model, training, validation)
    validated = trainer.callback_metrics["val_loss"]
    by_all = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    everything = {"return_x": True, "return_y": True, "return_index": True}
    options = {"batch_size": 4, "mode": "raw", **everything}
    together = model.predict(dataset, trainer_kwargs={**QUIET, **by_all}, **options)
    whole = model.predict(dataset, trainer_kwargs={**QUIET, "devices": 1}, **options)
    folder = Path(sys.argv[1]) if devices > 1 else None
    if folder is not None:
        kept = {"output_dir": folder / "written", "write_interval": "epoch"}
        model.predict(dataset, trainer_kwargs={**QUIET, **by_all}, **options, **kept)
    return {
        "losses": losses.values,
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "validation": float(validated),
        "together": {**together._asdict(), "output": together.output.prediction},
        "whole": {**whole._asdict(), "output": whole.output.prediction},
        "windows": len(dataset),
        "rank": trainer.global_rank,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    got = train(2)
    torch.save(got, Path(sys.argv[1]) / f"rank{got['rank']}.pt")
