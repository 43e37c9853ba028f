"""Training stops at its time limit and keeps the best epoch."""

import numpy as np
import pytest
from lightning.pytorch import Trainer

from helpers.tables import make_test_panel, noisy_season
from pytorch_forecasting_mlstm.cli.console import suppress_lightning_output
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.forecaster import datasets, training
from pytorch_forecasting_mlstm.forecaster.panel import Panel
from pytorch_forecasting_mlstm.forecaster.splits import split_panel
from pytorch_forecasting_mlstm.forecaster.training import (
    BATCH_SIZE,
    TRAINER_OPTIONS,
    EpochResult,
    fit,
)


def make_datasets(panel: Panel) -> tuple[BatchedTimeSeriesDataSet, BatchedTimeSeriesDataSet]:
    """Return the windows for training and validation."""
    split = split_panel(panel, horizon=4)
    frame = datasets.model_frame(panel, split)
    training = datasets.training_set(frame, split, end=split.validation)
    held_out = datasets.held_out_set(training, frame, split.validation_origins, split.horizon)
    return training, held_out


def test_fit_stops_at_the_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """No epoch starts after the time limit, the result records it, and nothing is printed."""
    epochs: list[EpochResult] = []
    with suppress_lightning_output():
        result = fit(
            *make_datasets(make_test_panel(noisy_season(60))),
            epochs=3,
            seed=0,
            max_seconds=1e-3,
            on_epoch=epochs.append,
        )
    assert (result.epoch, result.out_of_time) == (1, True)
    assert [(epoch.epoch, epoch.max_epochs) for epoch in epochs] == [(1, 3)]
    assert capsys.readouterr().out == ""


def test_fit_keeps_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are those of the epoch with the lowest validation loss, not of the last."""
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 1)
    monkeypatch.setattr(training, "_learning_rates", lambda epochs: [1e-3] * 3 + [10.0] * 3)
    windows, held_out = make_datasets(make_test_panel(noisy_season(60)))
    epochs: list[EpochResult] = []
    with suppress_lightning_output():
        result = fit(windows, held_out, epochs=6, seed=0, on_epoch=epochs.append)
        trainer = Trainer(**TRAINER_OPTIONS, enable_progress_bar=False, enable_checkpointing=False)
        loader = held_out.to_dataloader(train=False, batch_size=4 * BATCH_SIZE)
        (metrics,) = trainer.validate(result.model, loader, verbose=False)
    losses = [epoch.validation_loss for epoch in epochs]
    assert result.epoch == 1 + int(np.argmin(losses)) < 6
    assert metrics["val_loss"] == pytest.approx(min(losses), rel=1e-5)
    best = [epoch.epoch for epoch in epochs if epoch.is_best]
    assert best[-1] == result.epoch
    assert not result.out_of_time
