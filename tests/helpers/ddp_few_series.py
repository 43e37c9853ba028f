"""Two processes with a single window, which ``test_ddp.py`` starts."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything

from helpers.datasets import QUIET, make_dataset, make_table
from pytorch_forecasting_mlstm import mLSTMTime


def error_message(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main() -> dict[str, Any]:
    seed_everything(0, verbose=False)
    table = make_table(n_series=1)
    training = make_dataset(table)
    single_window = make_dataset(table, predict_mode=True)
    ddp = {**QUIET, "devices": 2, "strategy": "ddp"}
    model = mLSTMTime.from_dataset(training, hidden_size=4, num_heads=2)
    loader = single_window.to_dataloader(train=False, batch_size=4, num_workers=0)
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, **ddp)
    trainer.fit(model, training.to_dataloader(train=True, batch_size=2, num_workers=0), loader)
    return {
        "rank": trainer.global_rank,
        "windows": len(single_window),
        "val_loss": float(trainer.callback_metrics["val_loss"]),
        "test_loss": Trainer(**ddp).test(model, loader, verbose=False)[0]["test_loss"],
        "trainer.predict": error_message(lambda: Trainer(**ddp).predict(model, loader)),
        "model.predict": error_message(lambda: model.predict(single_window, trainer_kwargs=ddp)),
        "forecast": error_message(lambda: model.forecast(table, trainer_kwargs=ddp)),
        "without distributed sampler": error_message(
            lambda: Trainer(use_distributed_sampler=False, **ddp).predict(model, loader)
        ),
        "rows on one device": len(model.forecast(table, trainer_kwargs={**QUIET, "devices": 1})),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = main()
    torch.save(results, Path(sys.argv[1]) / f"few{results['rank']}.pt")
