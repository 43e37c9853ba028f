"""Ctrl-C keeps the best model so far, or else what was there before."""

import os
import signal
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import pytorch as pl
from lightning.pytorch.loggers import CSVLogger

from helpers.forecasters import rich_stores, tiny
from pytorch_forecasting_mlstm.forecaster import InputError
from pytorch_forecasting_mlstm.forecaster.forecaster import Forecaster
from pytorch_forecasting_mlstm.forecaster.training import fitting
from pytorch_forecasting_mlstm.forecaster.training import train as training


@pytest.fixture(autouse=True)
def handle_ctrl_c() -> Iterator[None]:
    """Handle SIGINT even in a background job of a shell, which starts with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class PressCtrlC(pl.Callback):
    """Send SIGINT to the process in one of the hooks of Lightning."""

    def __init__(self, hook: str, epoch: int) -> None:
        def press(trainer: pl.Trainer, *arguments: Any) -> None:
            if trainer.current_epoch == epoch:
                os.kill(os.getpid(), signal.SIGINT)

        setattr(self, hook, press)


def fit_interrupted(forecaster: Forecaster) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        forecaster.fit(rich_stores())
    assert signal.getsignal(signal.SIGINT) is handler


def press_at(
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    stage: str,
    epoch: int = 0,
    *,
    epochs: int | None = None,
) -> None:
    """Press Ctrl-C in one training of a fit, such as "refit", or the "fit" of so many epochs."""
    train = fitting._Fit.train

    def train_interrupted(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        recipe = arguments[2]
        if name.startswith(stage) and epochs in (None, recipe.epochs):
            *others, trainer_kwargs = arguments
            callback = PressCtrlC(hook, epoch)
            arguments = (*others, {**trainer_kwargs, "callbacks": [callback]})
        return train(self, name, *arguments, **options)

    monkeypatch.setattr(fitting._Fit, "train", train_interrupted)


@pytest.mark.parametrize("stage", ["history", "fit"])
def test_before_the_first_epoch_everything_stays(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    forecaster = tiny(history=None if stage == "history" else 2)
    monkeypatch.setattr(fitting, "candidate_histories", lambda panel, split: [2, 4])
    press_at(monkeypatch, "on_train_batch_end", stage)
    fit_interrupted(forecaster)
    with pytest.raises(InputError, match="not fitted"):
        forecaster.predict()


def test_old_model_stays(plain: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    forecaster = deepcopy(plain)
    expected = plain.predict()
    press_at(monkeypatch, "on_train_batch_end", "fit")
    fit_interrupted(forecaster)
    pd.testing.assert_frame_equal(forecaster.predict(), expected)


def test_after_an_epoch_the_best_model_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the model of the first epoch, which trained alone would be the same."""
    rates = training.learning_rates
    monkeypatch.setattr(training, "learning_rates", lambda first, epochs: rates(first, 9)[:epochs])
    monkeypatch.setattr(fitting, "budgets", lambda recipe: [recipe])
    forecaster = tiny(epochs=9)
    press_at(monkeypatch, "on_train_batch_start", "fit", epoch=1)
    fit_interrupted(forecaster)
    assert forecaster.epochs_ == 1
    monkeypatch.undo()
    monkeypatch.setattr(training, "learning_rates", lambda first, epochs: rates(first, 9)[:epochs])
    alone = tiny(epochs=1)
    monkeypatch.setattr(fitting._Fit, "refit", lambda self, fitted, *others: fitted)
    pd.testing.assert_frame_equal(forecaster.predict(), alone.fit(rich_stores()).predict())


@pytest.mark.parametrize("stage", ["refit 1/2", "refit 2/2", "calibration"])
def test_late_interruption_keeps_the_validated_model(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    forecaster = tiny(members=2)
    if stage == "calibration":
        start = pl.loops.prediction_loop._PredictionLoop.run

        def run(self: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return start(self)

        monkeypatch.setattr(pl.loops.prediction_loop._PredictionLoop, "run", run)
    else:
        press_at(monkeypatch, "on_train_batch_start", stage)
    fit_interrupted(forecaster)
    monkeypatch.undo()
    forecast = forecaster.predict()
    assert np.isfinite(forecast[["q0.1", "q0.5", "q0.9"]]).all(axis=None)
    assert len(forecaster.models) == 1
    # Its dataset leaves the validation part out.
    assert forecaster.dataset.data["time"].max() < 27


def test_interrupted_longer_training_keeps_the_shorter_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In its first epoch; the forecast is that of a fit that ends with the shorter training."""
    press_at(monkeypatch, "on_train_batch_start", "fit", epochs=3)
    forecaster = tiny(epochs=3)  # trainings of 1 and of 3 epochs compete
    fit_interrupted(forecaster)
    assert forecaster.epochs_ == 1
    monkeypatch.undo()
    budgets = fitting.budgets
    monkeypatch.setattr(fitting, "budgets", lambda recipe: budgets(recipe)[:1])
    monkeypatch.setattr(fitting._Fit, "refit", lambda self, fitted: fitted)
    shorter = tiny(epochs=3).fit(rich_stores())
    pd.testing.assert_frame_equal(forecaster.predict(), shorter.predict(), check_exact=True)


def test_interrupted_update_and_tune_leave_the_forecaster(
    plain: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, parameters = plain.predict(), plain.get_params()
    batch = training._BestEpoch.on_train_epoch_end

    def press(*arguments: Any) -> None:
        batch(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training._BestEpoch, "on_train_epoch_end", press)
    for call in (plain.update, plain.tune):
        with pytest.raises(KeyboardInterrupt):
            call(rich_stores(33))
        pd.testing.assert_frame_equal(plain.predict(), expected)
        assert plain.get_params() == parameters


def test_other_exits_pass() -> None:
    class Exit(pl.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            raise SystemExit(3)

    forecaster = tiny(trainer_kwargs={"callbacks": Exit(), "limit_train_batches": 1})
    with pytest.raises(SystemExit, match="3"):
        forecaster.fit(rich_stores())


def test_callbacks_and_loggers_follow_the_training_that_validates(tmp_path: Any) -> None:
    """Checkpoints too; and the model can be saved and updated although they are attached to it."""

    class Count(pl.Callback):
        fits = epochs = 0

        def on_fit_start(self, *arguments: Any) -> None:
            self.fits += 1

        def on_validation_epoch_end(self, *arguments: Any) -> None:
            self.epochs += 1

    count = Count()
    logger = CSVLogger(tmp_path)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path / "kept", monitor="val_loss")
    forecaster = tiny(
        epochs=3,
        history=None,
        trainer_kwargs={
            "callbacks": [count, checkpoint],
            "logger": logger,
            "limit_train_batches": 1,
            "log_every_n_steps": 1,
        },
    ).fit(rich_stores())
    assert (count.fits, count.epochs) == (1, 3)
    assert "val_loss" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    assert len(list(tmp_path.glob("kept/*.ckpt"))) == 1
    forecaster.update(rich_stores(32), epochs=1).predict()
    with pytest.warns(UserWarning, match="trainer_kwargs"):
        forecaster.save(tmp_path / "saved.ckpt")
