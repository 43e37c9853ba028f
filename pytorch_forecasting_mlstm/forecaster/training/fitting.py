"""The whole fit: choose the history and the epoch on held-out rows, calibrate, fit to all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pytorch_forecasting import TimeSeriesDataSet

from ...models import mLSTMTime
from ..errors import Argument, InputError
from ..panel.panel import Panel
from .calibration import Calibration
from .datasets import training_set, validation_set
from .history import candidate_histories, choose_history
from .layout import Layout
from .prediction import predict_windows
from .recipe import TRIAL_EPOCHS, Recipe
from .scaling import Scaling
from .seeds import seeded
from .splits import Split, split_panel
from .train import EpochResult, TrainingResult, train


@dataclass(frozen=True)
class Fitted:
    """A fitted model, and what is needed to forecast with it.

    Attributes
    ----------
    model : mLSTMTime
        The model.
    dataset : TimeSeriesDataSet
        The windows that it was fitted to.
    layout : Layout
        Columns of the dataset.
    scaling : Scaling
        Scales of the series.
    calibration : Calibration
        Shifts of the quantiles.
    lower_bound : float
        Forecasts below it are raised to it.
    history : int
        Steps that the model looks back.
    epochs : int
        Epochs of the training.
    validation_loss : float
        Its quantile loss on the held-out rows, in units of the series' spread; NaN without them.
    trials : dict of int to float
        The validation loss of each history that was tried.
    """

    model: mLSTMTime
    dataset: TimeSeriesDataSet
    layout: Layout
    scaling: Scaling
    calibration: Calibration
    lower_bound: float
    history: int
    epochs: int
    validation_loss: float
    trials: dict[int, float]


#: Called with the part of the fit, such as "history 48", "fit" or "refit", and one of its epochs.
OnProgress = Callable[[str, EpochResult], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during the fit; `fitted` is the best model so far, and `groups` are its series."""

    def __init__(self, fitted: Fitted, groups: pd.DataFrame) -> None:
        super().__init__()
        self.fitted, self.groups = fitted, groups


@dataclass(frozen=True)
class Settings:
    """What the user chose; None leaves the choice to `fit_panel`.

    `learn_all` is whether the model of a fit learns the held-out rows, too.
    """

    horizon: int
    quantiles: Sequence[float]
    history: int | None
    minimum: Any
    calibrate: bool
    recipe: Recipe
    seed: int
    trainer_kwargs: Mapping[str, Any]
    learn_all: bool = True


def fit_panel(panel: Panel, settings: Settings, on_progress: OnProgress | None = None) -> Fitted:
    """Fit a model to a panel.

    1. Short trainings with several lengths of the history; the best on the validation part is kept.
    2. A training that stops at the best epoch of validation.
    3. The intervals are calibrated with its forecasts of the validation part.
    4. A training on all rows, for as many epochs.

    Parameters
    ----------
    panel : Panel
        The series.
    settings : Settings
        What is given.
    on_progress : callable, optional
        Called after each epoch.

    Raises
    ------
    InputError
        If the series are too short.
    Interrupted
        After Ctrl-C, if there is a model already.
    """
    return _Fit(panel, settings, on_progress).run()


def refit_panel(
    panel: Panel, settings: Settings, chosen: Fitted, on_progress: OnProgress | None = None
) -> Fitted:
    """Fit a model to all rows of a panel, with what an earlier fit has chosen.

    Parameters
    ----------
    panel, settings, on_progress
        As in `fit_panel`.
    chosen : Fitted
        Fit to an earlier part of the panel. Its history, epochs and calibration are used.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C.
    """
    return _Fit(panel, settings, on_progress, validate=False).refit(chosen)


def measure_validation_loss(
    panel: Panel, settings: Settings, on_progress: OnProgress | None = None
) -> float:
    """Train once with the given history, and return the lowest loss on the validation part.

    Parameters
    ----------
    panel, settings, on_progress
        As in `fit_panel`.
    """
    fit = _Fit(panel, settings, on_progress)
    return fit.try_history("trial", fit.given_history(), settings.recipe).validation_loss


class _Fit:
    """The trainings of one fit, which share panel, split, scales and columns."""

    def __init__(
        self,
        panel: Panel,
        settings: Settings,
        on_progress: OnProgress | None,
        *,
        validate: bool = True,
    ) -> None:
        self.panel, self.settings, self.on_progress = panel, settings, on_progress
        self.split = split_panel(panel, settings.horizon, validate=validate)
        self.scaling = Scaling.fit(panel, self.split.end - self.split.validation)
        self.layout = Layout.fit(panel, past=self.split.validation)
        self.frame = self.layout.frame(panel, self.scaling, np.arange(len(panel)), self.split.end)
        self.trials: dict[int, float] = {}

    def run(self) -> Fitted:
        settings, recipe = self.settings, self.settings.recipe
        history = self.choose_history() if settings.history is None else self.given_history()
        split = self.split.with_history(self.panel, history)
        training = training_set(self.frame, self.layout, split, split.validation)
        validation = self.validation_set(training, split)
        result = self.train("fit", training, validation, recipe, settings.trainer_kwargs)
        levels = np.array(settings.quantiles)
        calibration = Calibration.none(split.horizon, levels)
        fitted = self.fitted(result, training, split, calibration)
        try:
            if validation is not None and settings.calibrate:
                windows = predict_windows(result.model, validation)
                calibration = Calibration.fit(windows.actual, windows.quantiles, levels)
                fitted = replace(fitted, calibration=calibration)
            if result.interrupted:
                raise KeyboardInterrupt
            if validation is None or not settings.learn_all:
                return fitted
            return self.refit(fitted)
        except KeyboardInterrupt as interruption:
            raise Interrupted(fitted, self.panel.groups) from interruption

    def refit(self, chosen: Fitted) -> Fitted:
        settings = self.settings
        split = self.split.with_history(self.panel, chosen.history)
        training = training_set(self.frame, self.layout, split, split.end)
        recipe = replace(settings.recipe, epochs=chosen.epochs)
        result = self.train(
            "refit", training, None, recipe, without_callbacks(settings.trainer_kwargs)
        )
        if result.interrupted:  # fewer epochs than are best, without a falling learning rate
            raise KeyboardInterrupt
        return replace(
            chosen,
            model=result.model,
            dataset=training,
            layout=self.layout,
            scaling=self.scaling,
            lower_bound=self.lower_bound(),
            history=split.history,
        )

    def given_history(self) -> int:
        history, longest = self.settings.history or 1, self.split.longest_history
        if history > longest:
            raise InputError(
                Argument("history"),
                f" {history} is longer than the {longest} steps that the longest series has before "
                f"its training targets: choose at most {longest}",
            )
        return history

    def lower_bound(self) -> float:
        minimum = self.settings.minimum
        if minimum is None:
            return -np.inf
        return self.panel.lower_bound if minimum == "auto" else float(minimum)

    def choose_history(self) -> int:
        candidates = candidate_histories(self.panel, self.split)
        if len(candidates) == 1 or not self.split.has_validation:
            return candidates[-1]
        recipe = self.settings.recipe
        recipe = replace(recipe, epochs=min(TRIAL_EPOCHS, recipe.epochs))
        for steps in candidates:
            result = self.try_history(f"history {steps}", steps, recipe)
            self.trials[steps] = result.validation_loss
        return choose_history(self.trials)

    def try_history(self, name: str, history: int, recipe: Recipe) -> TrainingResult:
        split = self.split.with_history(self.panel, history)
        training = training_set(self.frame, self.layout, split, split.validation)
        validation = self.validation_set(training, split)
        trainer_kwargs = without_callbacks(self.settings.trainer_kwargs)
        result = self.train(name, training, validation, recipe, trainer_kwargs)
        if result.interrupted:
            raise KeyboardInterrupt
        return result

    def validation_set(self, training: Any, split: Split) -> Any:
        if not split.has_validation:
            return None
        return validation_set(training, self.frame, split.origins, split.horizon)

    def train(
        self,
        name: str,
        training: Any,
        validation: Any,
        recipe: Recipe,
        trainer_kwargs: Mapping[str, Any],
    ) -> TrainingResult:
        def report(result: EpochResult) -> None:
            if self.on_progress is not None:
                self.on_progress(name, result)

        with seeded(self.settings.seed):
            return train(
                training,
                validation,
                recipe,
                self.settings.quantiles,
                seed=self.settings.seed,
                trainer_kwargs=trainer_kwargs,
                on_epoch=report,
            )

    def fitted(
        self, result: TrainingResult, dataset: Any, split: Split, calibration: Calibration
    ) -> Fitted:
        return Fitted(
            model=result.model,
            dataset=dataset,
            layout=self.layout,
            scaling=self.scaling,
            calibration=calibration,
            lower_bound=self.lower_bound(),
            history=split.history,
            epochs=result.epoch,
            validation_loss=result.validation_loss,
            trials=self.trials,
        )


def without_callbacks(trainer_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what observes a training: it follows the one that validates."""
    return {k: v for k, v in trainer_kwargs.items() if k not in ("callbacks", "logger")}
