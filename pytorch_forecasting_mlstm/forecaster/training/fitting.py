"""The whole fit: choose history and budget on held-out rows, calibrate, fit models to all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...models import mLSTMTime
from ..panel.panel import Panel
from .calibration import Calibration
from .competition import Competition, compete
from .datasets import training_set, validation_set
from .fitted import Fitted, Interrupted
from .history import candidate_histories, check_history, worth_a_trial
from .layout import SERIES, TIME, Layout
from .mixing import UNTESTED_SHARE, choose_share, mix
from .prediction import predict_windows
from .recipe import Recipe, budgets
from .ridge import LinearStart, RidgeRegressions
from .scaling import Scaling
from .seeds import member_seed, seeded
from .splits import Split, split_panel
from .train import EpochResult, TrainingResult, new_model, train

#: Called with the part of the fit, such as "history 48", "fit" or "refit", and one of its epochs.
OnProgress = Callable[[str, EpochResult], None]


@dataclass(frozen=True)
class Settings:
    """What the user chose; None leaves the choice to `fit_panel`.

    `members` is the number of models on all rows, and `learn_all` whether there are such: if not, a
    fit keeps the one that has not learned the held-out rows.
    """

    horizon: int
    quantiles: Sequence[float]
    history: int | None
    minimum: Any
    calibrate: bool
    recipe: Recipe
    seed: int
    trainer_kwargs: Mapping[str, Any]
    members: int = 3
    learn_all: bool = True
    calendar_effects: bool = True


def fit_panel(panel: Panel, settings: Settings, on_progress: OnProgress | None = None) -> Fitted:
    """Fit a model to a panel.

    1. Ridge regressions: the linear forecast that every training starts with.
    2. Two trainings, a short one and a longer one, for each of several lengths of the history that
       the memory reads; then longer ones with the best length, as long as these lower the loss on
       the validation part.
    3. The share of the linear forecast, and the widening of the intervals, on the validation part.
    4. Trainings on all rows, for as many epochs.

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
    memory_length = settings.recipe.model.get("memory_length", fit.given_history())
    return fit.try_length("trial", memory_length, settings.recipe).validation_loss


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
        self.scaling = Scaling.fit(
            panel,
            self.split.end - self.split.validation,
            calendar_effects=settings.calendar_effects,
        )
        self.layout = Layout.fit(panel, past=self.split.validation)
        ordinary = self.scaling.without_effects(panel)
        numbers = np.arange(len(panel))
        self.frame = self.layout.frame(ordinary, self.scaling, numbers, self.split.end)
        self.regressions: dict[int, RidgeRegressions] = {}

    def run(self) -> Fitted:
        settings = self.settings
        competition = self.choose()
        memory_length, recipe, result = competition.best
        losses = competition.losses()
        split = self.split_for(memory_length)
        training = training_set(self.frame, self.layout, split, split.validation)
        levels = np.array(settings.quantiles)
        fitted = Fitted(
            models=(result.model,),
            linear=None,
            share=1.0,
            dataset=training,
            layout=self.layout,
            scaling=self.scaling,
            calibration=Calibration.none(split.horizon, levels),
            lower_bound=self.lower_bound(),
            history=split.history,
            memory_length=min(memory_length, split.history),
            epochs=result.epoch,
            learning_rate=recipe.learning_rate,
            validation_loss=result.validation_loss,
            trials=losses if len(losses) > 1 else {},
        )
        try:
            fitted = self.mix_and_calibrate(fitted, split)
            if competition.interrupted:
                raise KeyboardInterrupt
            return self.refit(fitted) if settings.learn_all else fitted
        except KeyboardInterrupt as interruption:
            raise Interrupted(fitted, self.panel.groups) from interruption

    def mix_and_calibrate(self, fitted: Fitted, split: Split) -> Fitted:
        """Choose the share of the linear forecast, and widen the intervals of both together."""
        start = self.linear_start(split.history, split.validation, fitted.memory_length)
        linear = self.linear_model(fitted.dataset, start, fitted.memory_length)
        validation = self.validation_set(fitted.dataset, split)
        if validation is None:
            return (
                fitted if linear is None else replace(fitted, linear=linear, share=UNTESTED_SHARE)
            )
        levels = np.array(self.settings.quantiles)
        actual, quantiles = predict_windows(fitted.models[0], validation)
        if linear is not None:
            _, others = predict_windows(linear, validation)
            share = choose_share(actual, quantiles, others, levels)
            quantiles = mix(quantiles, others, share)
            fitted = replace(fitted, linear=linear if share < 1 else None, share=share)
        if self.settings.calibrate:
            fitted = replace(fitted, calibration=Calibration.fit(actual, quantiles, levels))
        return fitted

    def choose(self) -> Competition:
        """Let lengths of the history that the memory reads, and budgets, compete."""
        recipes = budgets(self.settings.recipe)
        candidates = self.memory_lengths()
        if not self.split.has_validation:  # nothing to choose by
            candidates, recipes = candidates[-1:], recipes[:1]

        def train(length: int, recipe: Recipe, leads: bool) -> TrainingResult:
            kind = "history" if self.settings.history is None else "memory"
            name = "fit" if leads else f"{kind} {length}"
            return self.try_length(name, length, recipe, observed=leads)

        return compete(candidates, recipes, train)

    def memory_lengths(self) -> list[int]:
        """Return what competes: lengths of the history that the memory reads.

        The linear maps read a given history as a whole, and otherwise as much as the memory.
        """
        given = self.settings.recipe.model.get("memory_length")
        if given is not None:
            return [given]
        candidates = candidate_histories(self.panel, self.split)
        if self.settings.history is None:
            return candidates
        history = self.given_history()
        return [*(steps for steps in candidates if worth_a_trial(steps, history)), history]

    def split_for(self, memory_length: int) -> Split:
        history = memory_length if self.settings.history is None else self.given_history()
        return self.split.with_history(self.panel, history)

    def refit(self, chosen: Fitted) -> Fitted:
        settings = self.settings
        split = self.split.with_history(self.panel, chosen.history)
        memory_length = min(chosen.memory_length, split.history)
        training = training_set(self.frame, self.layout, split, split.end)
        recipe = replace(settings.recipe, epochs=chosen.epochs, learning_rate=chosen.learning_rate)
        recipe = with_memory(recipe, memory_length, split.history)
        start = self.linear_start(split.history, split.end, memory_length)
        models = []
        for number in range(settings.members):
            result = self.train(
                member_name("refit", number, settings.members),
                training,
                None,
                recipe,
                without_callbacks(settings.trainer_kwargs),
                start=start,
                seed=member_seed(settings.seed, number),
            )
            if result.interrupted:  # too few epochs, without a falling learning rate
                raise KeyboardInterrupt
            models.append(result.model)
        linear = None
        if chosen.share < 1:
            linear = self.linear_model(training, start, memory_length)
        return replace(
            chosen,
            models=tuple(models),
            linear=linear,
            share=1.0 if linear is None else chosen.share,
            dataset=training,
            layout=self.layout,
            scaling=self.scaling,
            lower_bound=self.lower_bound(),
            history=split.history,
            memory_length=memory_length,
        )

    def given_history(self) -> int:
        history = self.settings.history or 1
        check_history(history, self.split)
        return history

    def lower_bound(self) -> float:
        minimum = self.settings.minimum
        if minimum is None:
            return -np.inf
        return self.panel.lower_bound if minimum == "auto" else float(minimum)

    def try_length(
        self, name: str, memory_length: int, recipe: Recipe, *, observed: bool = False
    ) -> TrainingResult:
        """Train with a length; callbacks, loggers and Ctrl-C concern the `observed` trainings."""
        split = self.split_for(memory_length)
        training = training_set(self.frame, self.layout, split, split.validation)
        trainer_kwargs = self.settings.trainer_kwargs
        result = self.train(
            name,
            training,
            self.validation_set(training, split),
            with_memory(recipe, memory_length, split.history),
            trainer_kwargs if observed else without_callbacks(trainer_kwargs),
            start=self.linear_start(split.history, split.validation, memory_length),
        )
        if result.interrupted and not observed:
            raise KeyboardInterrupt
        return result

    def linear_model(
        self, dataset: Any, start: LinearStart | None, memory_length: int
    ) -> mLSTMTime | None:
        """Return a model that is not trained, if there is a linear forecast to start with."""
        if start is None:
            return None
        settings = self.settings
        recipe = with_memory(settings.recipe, memory_length, dataset.max_encoder_length)
        with seeded(settings.seed):
            return new_model(dataset, recipe, settings.quantiles, start)

    def linear_start(
        self, history: int, end: int, memory_length: int | None = None
    ) -> LinearStart | None:
        """Return the linear forecast that the rows before `end` suggest.

        It begins with as many steps as the memory reads: on the rows that they learn, regressions
        on long histories leave smaller errors than elsewhere, and the network would learn these.
        """
        longest = history if memory_length is None else min(memory_length, history)
        if end not in self.regressions:
            rows = self.frame[self.frame[TIME] < end]
            series = [part.to_numpy() for _, part in rows.groupby(SERIES)[self.layout.target]]
            split = self.split
            self.regressions[end] = RidgeRegressions(series, split.horizon, self.settings.quantiles)
        candidates = candidate_histories(self.panel, self.split)
        lengths = [*(steps for steps in candidates if steps < longest), longest]
        return self.regressions[end].average(history, lengths, longest)

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
        *,
        start: LinearStart | None = None,
        seed: int | None = None,
    ) -> TrainingResult:
        def report(result: EpochResult) -> None:
            if self.on_progress is not None:
                self.on_progress(name, result)

        seed = self.settings.seed if seed is None else seed
        with seeded(seed):
            return train(
                training,
                validation,
                recipe,
                self.settings.quantiles,
                seed=seed,
                trainer_kwargs=trainer_kwargs,
                on_epoch=report,
                start=start,
            )


def with_memory(recipe: Recipe, memory_length: int, history: int) -> Recipe:
    """Let the memory read a part of the history; a length that is given stays."""
    if memory_length >= history or "memory_length" in recipe.model:
        return recipe
    return replace(recipe, model={**recipe.model, "memory_length": memory_length})


def member_name(stage: str, number: int, count: int) -> str:
    """Name the training of a member for a progress bar."""
    return stage if count == 1 else f"{stage} {number + 1}/{count}"


def without_callbacks(trainer_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what observes a training: it follows the one that validates."""
    return {k: v for k, v in trainer_kwargs.items() if k not in ("callbacks", "logger")}
