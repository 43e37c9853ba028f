"""What each process of ``test_ddp.py`` runs: a fit by two processes, and a prediction."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything

from datasets import QUIET, make_dataset, make_table
from pytorch_forecasting_mlstm import mLSTMTime

GLOBAL_BATCH = 8


def train(devices: int, folder: Path) -> dict[str, Any]:
    """Fit three epochs, without dropout and in the order of the table; return what came out."""
    seed_everything(0, verbose=False)
    # 15 windows a series: 45, which two processes share unevenly, and the last batch is not full
    dataset = make_dataset(make_table(), time_varying_known_reals=["price"])
    model = mLSTMTime.from_dataset(
        dataset, hidden_size=8, num_heads=2, dropout=0.0, learning_rate=0.01
    )
    arguments = {"batch_size": GLOBAL_BATCH // devices, "num_workers": 0}
    training = dataset.to_dataloader(train=True, shuffle=False, drop_last=True, **arguments)
    validation = dataset.to_dataloader(train=False, **arguments)
    losses: list[float] = []
    model.register_forward_hook(lambda *_: None)
    trainer = Trainer(
        max_epochs=2,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        **QUIET,
    )
    trainer.fit(model, training, validation)
    del losses
    return {
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "validation": float(trainer.callback_metrics["val_loss"]),
        "rank": trainer.global_rank,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    got = train(2, Path(sys.argv[1]))
    torch.save(got, Path(sys.argv[1]) / f"rank{got['rank']}.pt")
