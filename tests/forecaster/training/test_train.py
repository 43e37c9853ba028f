"""A training keeps its best epoch, and learns from the training windows alone."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import pytorch as pl

from helpers.forecasters import fit_settings, panel_of_values
from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.training import fitting
from pytorch_forecasting_mlstm.forecaster.training import train as training
from pytorch_forecasting_mlstm.forecaster.training.fitting import Settings
from pytorch_forecasting_mlstm.forecaster.training.lightning_output import quiet_lightning
from pytorch_forecasting_mlstm.forecaster.training.progress import ProgressBar
from pytorch_forecasting_mlstm.forecaster.training.recipe import Recipe
from pytorch_forecasting_mlstm.forecaster.training.train import EpochResult, learning_rates

RECIPE = Recipe(
    epochs=6,
    batches_per_epoch=1,
    batch_size=8,
    patience=3,
    model={"hidden_size": 4, "num_heads": 1},
)


def settings(**parameters: Any) -> Settings:
    return fit_settings(**{"recipe": RECIPE, **parameters})


def test_best_epoch_is_kept_and_patience_ends_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The weights are those of the epoch with the lowest validation loss, not of the last."""
    monkeypatch.setattr(
        training, "learning_rates", lambda first, epochs: [1e-3] * 2 + [10.0] * (epochs - 2)
    )
    fit = fitting._Fit(panel_of_values(noisy_season(60)), settings(), None)
    epochs: list[EpochResult] = []
    fit.on_progress = lambda name, result: epochs.append(result)
    split = fit.split.with_history(fit.panel, 7)
    windows = fitting.training_set(fit.frame, fit.layout, split, split.validation)
    validation = fit.validation_set(windows, split)
    result = fit.train("fit", windows, validation, RECIPE, {})
    losses = [epoch.validation_loss for epoch in epochs]
    assert result.epoch == 1 + int(np.argmin(losses)) <= 2
    assert len(epochs) == result.epoch + 3 and not result.interrupted
    assert [epoch.is_best for epoch in epochs][: result.epoch] == [True] * result.epoch
    assert [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1))
    with quiet_lightning():
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        loader = validation.to_dataloader(train=False, batch_size=64)
        (metrics,) = trainer.validate(result.model, loader, verbose=False)
    assert metrics["val_loss"] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision_of_the_trainer(precision: str) -> None:
    """Weights are averaged, though the precision may differ from that of the first copy."""
    fit = fitting._Fit(panel_of_values(noisy_season(60)), settings(), None)
    split = fit.split.with_history(fit.panel, 7)
    windows = fitting.training_set(fit.frame, fit.layout, split, split.validation)
    options = {"precision": precision, "max_epochs": 2}
    result = fit.train("fit", windows, fit.validation_set(windows, split), RECIPE, options)
    assert np.isfinite(result.validation_loss)


def test_loss_that_is_not_a_number_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after a finite one nor before it; alone, it is better than none."""
    model = torch.nn.Linear(1, 1)
    for losses, expected in (
        ([0.5, np.nan, 0.6], 1),
        ([np.nan, 0.7, np.nan], 2),
        ([np.nan], 1),
        ([0.5, 0.4, 0.4], 2),
    ):
        best = training._BestEpoch(None)
        for epoch, loss in enumerate(losses):
            metrics = {"val_loss": torch.tensor(loss), "train_loss_epoch": torch.tensor(0.0)}
            trainer: Any = SimpleNamespace(
                callback_metrics=metrics, current_epoch=epoch, max_epochs=9
            )
            lightning_module: Any = model
            best.on_validation_epoch_end(trainer, lightning_module)
            best.on_train_epoch_end(trainer, lightning_module)
        assert best.epoch == expected


def test_calibration_and_minimum_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = panel_of_values(noisy_season(60).round())
    one = {"recipe": Recipe(epochs=1, batches_per_epoch=1, model=RECIPE.model)}
    monkeypatch.setattr(fitting._Fit, "refit", lambda self, fitted, *others: fitted)
    fitted = fitting.fit_panel(panel, settings(**one, calibrate=False, minimum=None))
    assert (fitted.calibration.shift == 0).all() and fitted.lower_bound == -np.inf


def test_learning_rates_fall_to_near_zero() -> None:
    rates = learning_rates(0.1, 10)
    assert rates[0] == 0.1 and (np.diff(rates) < 0).all() and 0 < rates[-1] < 0.01
    assert learning_rates(0.1, 1) == [0.1]


def test_progress_bar_shows_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        for stage, epochs in (("history 7", 2), ("fit", 3), ("fit", 5)):
            for epoch in range(1, epochs + 1):
                bar(stage, EpochResult(epoch, epochs, 0.5, 0.25, True, 0.0))
        bar("refit", EpochResult(1, 1, 0.5, None, False, 0.0))
    shown = capsys.readouterr().err
    for words in (
        "history 7",
        "2/2",
        "fit",
        "3/3",
        "5/5",
        "loss=0.5000, validation=0.2500",
        "refit",
    ):
        assert words in shown
