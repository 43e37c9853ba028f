"""Small models, and saving their checkpoints."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from pytorch_forecasting import TimeSeriesDataSet

from helpers.datasets import QUIET, configured
from pytorch_forecasting_mlstm import mLSTMTime

SMALL = {"hidden_size": 4, "num_heads": 2}


def make_model(dataset: TimeSeriesDataSet | None = None, **changes: Any) -> mLSTMTime:
    dataset = configured("known real") if dataset is None else dataset
    return mLSTMTime.from_dataset(dataset, **{**SMALL, **changes})


def save(model: mLSTMTime, path: Path) -> Path:
    """Save a checkpoint of a model, trained or not, as a trainer does."""
    trainer = Trainer(enable_checkpointing=False, **QUIET)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path
