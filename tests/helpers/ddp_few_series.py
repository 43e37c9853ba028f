"""Two processes with a single window: what ``test_ddp.py`` runs, in each of its processes."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything

from helpers.datasets import QUIET, make_dataset, make_table
from pytorch_forecasting_mlstm import mLSTMTime


def message(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main() -> dict[str, Any]:
    seed_everything(0, verbose=False)
    table = make_table(n_series=1)
    training = make_dataset(table)
    one = make_dataset(table, predict_mode=True)
    by_two = {**QUIET, "devices": 2, "strategy": "ddp"}
    model = mLSTMTime.from_dataset(training, hidden_size=4, num_heads=2)
    loader = one.to_dataloader(train=False, batch_size=4, num_workers=0)
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, **by_two)
    trainer.fit(model, training.to_dataloader(train=True, batch_size=2, num_workers=0), loader)
    return {
        "rank": trainer.global_rank,
        "windows": len(one),
        "validated": float(trainer.callback_metrics["val_loss"]),
        "tested": Trainer(**by_two).test(model, loader, verbose=False)[0]["test_loss"],
        "trainer.predict": message(lambda: Trainer(**by_two).predict(model, loader)),
        "model.predict": message(lambda: model.predict(one, trainer_kwargs=by_two)),
        "forecast": message(lambda: model.forecast(table, trainer_kwargs=by_two)),
        "each its own": message(
            lambda: Trainer(use_distributed_sampler=False, **by_two).predict(model, loader)
        ),
        "alone": len(model.forecast(table, trainer_kwargs={**QUIET, "devices": 1})),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    got = main()
    torch.save(got, Path(sys.argv[1]) / f"few{got['rank']}.pt")
