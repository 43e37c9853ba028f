"""Search settings with Optuna, on the validation part alone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import InputError
from .fitting import Settings, measure_validation_loss
from .history import candidate_histories
from .panel import Panel
from .recipe import Recipe
from .splits import split_panel
from .training import EpochResult

_NAME = "forecaster"
_WARM_UP = 5  # epochs before a trial can be pruned


def tune_panel(
    panel: Panel,
    settings: Settings,
    *,
    trials: int,
    minutes: float | None,
    storage: Path | None,
    verbose: bool = False,
) -> Any:
    """Search history, size of the network, learning rate and regularization.

    The first trial is the default, so that the result is not worse than it on the validation part.

    Parameters
    ----------
    panel : Panel
        The series.
    settings : Settings
        What is given; a given history stays.
    trials : int
        Trials in all, those in `storage` included.
    minutes : float or None
        Start no trial after this time.
    storage : Path or None
        File that keeps the trials, so that a search can go on after it was stopped.
    verbose : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    optuna.Study
        The search.

    Raises
    ------
    InputError
        If Optuna is not installed, or the series are too short for a validation part.
    """
    if find_spec("optuna") is None:
        raise InputError(
            "tune needs optuna, which is not installed: pip install "
            "'pytorch-forecasting-mlstm[tune]'"
        )
    import optuna

    split = split_panel(panel, settings.horizon)
    if not split.has_validation:
        raise InputError("tune needs rows to validate on, but the series are too short: add rows")
    histories = candidate_histories(panel, split)
    if settings.history is not None:
        histories = [settings.history]
    sampler = optuna.samplers.TPESampler(seed=settings.seed)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_WARM_UP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=_NAME,
            storage=None if storage is None else _storage(storage),
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner,
        )
    if not study.trials:
        study.enqueue_trial(_default_choice(settings.recipe, histories), skip_if_exists=True)

    def objective(trial: Any) -> float:
        history, recipe = choose(trial, histories, settings.recipe)

        def report(stage: str, result: EpochResult) -> None:
            trial.report(result.validation_loss, result.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        trial_settings = replace(settings, history=history, recipe=recipe)
        return measure_validation_loss(panel, trial_settings, report)

    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    remaining = trials - len([trial for trial in study.trials if trial.state in finished])
    if remaining > 0:
        study.optimize(
            objective,
            n_trials=remaining,
            timeout=None if minutes is None else 60 * minutes,
            show_progress_bar=verbose,
        )
    return study


def choose(trial: Any, histories: list[int], recipe: Recipe) -> tuple[int, Recipe]:
    """Suggest the settings of a trial: the space of the search."""
    history = trial.suggest_categorical("history", histories)
    options = {
        "hidden_size": trial.suggest_categorical("hidden_size", [32, 64, 128]),
        "num_layers": trial.suggest_int("num_layers", 1, 2),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
    }
    return history, replace(
        recipe,
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 2e-2, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-3, 1e-1, log=True),
        model={**recipe.model, **options},
    )


def parameters_of(choice: dict[str, Any], model_kwargs: Any) -> dict[str, Any]:
    """Return the parameters of `Forecaster` that give the settings of a trial."""
    options = {k: choice[k] for k in ("hidden_size", "num_layers", "dropout", "weight_decay")}
    return {
        "history": choice["history"],
        "learning_rate": choice["learning_rate"],
        "model_kwargs": {**(model_kwargs or {}), **options},
    }


def _default_choice(recipe: Recipe, histories: list[int]) -> dict[str, Any]:
    options = {"hidden_size": 64, "num_layers": 1, "dropout": 0.1, **recipe.model}
    return {
        "history": histories[0],
        **{name: options[name] for name in ("hidden_size", "num_layers", "dropout")},
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
    }


def _storage(path: Path) -> Any:
    """Keep trials in a file of text, which any number of processes may write to."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))
