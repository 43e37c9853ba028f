"""A training run in one or two processes, which ``test_ddp.py`` starts."""

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
    """Records the loss of every step, averaged over the processes."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        self.values.append(float(trainer.strategy.reduce(loss, reduce_op="mean")))


def train(devices: int) -> dict[str, Any]:
    """Fit for two epochs without dropout, predict, and return the results."""
    seed_everything(0, verbose=False)
    # 45 windows: two processes cannot share them evenly, and the last batch is incomplete
    dataset = make_dataset(time_varying_known_reals=["price"], min_encoder_length=6)
    model = mLSTMTime.from_dataset(
        dataset, hidden_size=8, num_heads=2, dropout=0.0, learning_rate=0.01
    )
    loader_options = {"batch_size": GLOBAL_BATCH // devices, "num_workers": 0}
    # the order that Lightning uses for several processes
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=0) if devices == 1 else None
    training = dataset.to_dataloader(train=True, shuffle=False, sampler=sampler, **loader_options)
    validation = dataset.to_dataloader(train=False, **loader_options)
    losses = Losses()
    trainer = Trainer(
        max_epochs=2,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        callbacks=[losses],
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",  # without find_unused_parameters
        **QUIET,
    )
    trainer.fit(model, training, validation)
    val_loss = trainer.callback_metrics["val_loss"]
    ddp = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    returns = {"return_x": True, "return_y": True, "return_index": True}
    options = {"batch_size": 4, "mode": "raw", **returns}
    gathered = model.predict(dataset, trainer_kwargs={**QUIET, **ddp}, **options)
    on_one_device = model.predict(dataset, trainer_kwargs={**QUIET, "devices": 1}, **options)
    folder = Path(sys.argv[1]) if devices > 1 else None
    if folder is not None:
        output = {"output_dir": folder / "predictions", "write_interval": "epoch"}
        model.predict(dataset, trainer_kwargs={**QUIET, **ddp}, **options, **output)
    return {
        "losses": losses.values,
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "val_loss": float(val_loss),
        "gathered": {**gathered._asdict(), "output": gathered.output.prediction},
        "on one device": {**on_one_device._asdict(), "output": on_one_device.output.prediction},
        "windows": len(dataset),
        "rank": trainer.global_rank,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = train(2)
    torch.save(results, Path(sys.argv[1]) / f"rank{results['rank']}.pt")
