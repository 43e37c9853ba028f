"""Search settings with Optuna, on the validation part alone."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..._messages import one_line
from ..errors import Argument, InputError, quoted
from ..panel.panel import Panel
from .fitting import Settings, measure_validation_loss
from .history import candidate_histories
from .recipe import Recipe
from .splits import split_panel
from .train import EpochResult

_NAME = "forecaster"
_WARM_UP = 5  # epochs before a trial can be pruned
_DEFAULTS = {"hidden_size": 64, "num_layers": 1, "dropout": 0.1}
_HIDDEN_SIZES = (32, 64, 128)
#: Limits of the numbers, which are widened to what is given.
_RANGES: dict[str, tuple[float, float]] = {
    "num_layers": (1, 2),
    "dropout": (0.0, 0.4),
    "learning_rate": (1e-3, 2e-2),
    "weight_decay": (1e-3, 1e-1),
}


def open_study(panel: Panel, settings: Settings, storage: Path | None) -> Any:
    """Begin a search, or go on with the one in a file.

    The settings that are given are tried first, so that the result is not worse than they are on
    the validation part.

    Parameters
    ----------
    panel : Panel
        The series.
    settings : Settings
        What is given. A given history stays, also if the file has trials of others.
    storage : Path or None
        File that keeps the trials, so that a search can go on after it was stopped.

    Returns
    -------
    optuna.Study
        The search.

    Raises
    ------
    InputError
        If Optuna is not installed, the series are too short for a validation part, or the file
        cannot be used or holds the trials of another table or of other settings.
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
    try:
        with _quiet_optuna():
            study = optuna.create_study(
                study_name=_NAME,
                storage=None if storage is None else _storage(storage),
                load_if_exists=True,
            )
    except Exception as error:  # a file of another kind can raise anything
        raise InputError(
            Argument("storage"),
            f" {quoted(str(storage))} cannot be used ({one_line(error)}): choose another file",
        ) from error
    identity, first = _identity(panel, settings), _first_choice(settings.recipe)
    if not study.trials:
        # Trials that search the history go through the same candidates, whatever was given first.
        histories = candidate_histories(panel, split)
        study.set_user_attr("space", _space(settings.recipe, histories, first))
        study.set_user_attr("identity", identity)
    elif study.user_attrs.get("identity") != identity:
        raise InputError(
            Argument("storage"),
            f" {quoted(str(storage))} holds trials of another table or of other settings: choose "
            "another file",
        )
    space = study.user_attrs["space"]
    if first["hidden_size"] not in space["hidden_size"]:  # Optuna takes no further choices
        raise InputError(
            Argument("storage"),
            f" {quoted(str(storage))} holds trials of the sizes {space['hidden_size']} of the "
            f"network, without the hidden_size {first['hidden_size']} of model_kwargs: choose "
            "another file",
        )
    if not _is_tried(study, settings, first):  # one that was killed is tried again
        study.enqueue_trial({"history": space["history"][0], **first})
    # Another seed for each part of the search, which would repeat its choices.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_WARM_UP)
    return study


def search(
    study: Any,
    panel: Panel,
    settings: Settings,
    *,
    trials: int,
    minutes: float | None,
    verbose: bool = False,
) -> None:
    """Search history, size of the network, learning rate and regularization.

    Parameters
    ----------
    study : optuna.Study
        From `open_study`; the trials are added to it.
    panel, settings : Panel, Settings
        As for `open_study`.
    trials : int
        Trials in all, those in the study included. If a history is given, those of others do not
        count.
    minutes : float or None
        Start no trial after this time.
    verbose : bool, default False
        Whether to show a progress bar.

    Raises
    ------
    InputError
        If no trial has a finite loss.
    """
    import optuna

    space = _widened(study.user_attrs["space"], _first_choice(settings.recipe))

    def objective(trial: Any) -> float:
        history, recipe = choose(trial, space, settings)

        def report(stage: str, result: EpochResult) -> None:
            if result.validation_loss is not None:
                trial.report(result.validation_loss, result.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        trial_settings = replace(settings, history=history, recipe=recipe)
        return measure_validation_loss(panel, trial_settings, report)

    remaining = trials - len(_finished(study, settings))
    if remaining > 0:
        with _quiet_optuna():
            study.optimize(
                objective,
                n_trials=remaining,
                timeout=None if minutes is None else 60 * minutes,
                show_progress_bar=verbose,
            )
    if best_choice(study, settings) is None:
        raise InputError("tune: no trial has a finite loss: try a smaller ", Argument("horizon"))


def best_choice(study: Any, settings: Settings) -> dict[str, Any] | None:
    """Return the choices of the best trial, of a given history if there is one, or None."""
    trials = [trial for trial in _finished(study, settings) if trial.state.name == "COMPLETE"]
    if not trials:
        return None
    best = min(trials, key=lambda trial: trial.value)
    return {**best.params, "history": _history_of(best)}


def choose(trial: Any, space: Mapping[str, Any], settings: Settings) -> tuple[int, Recipe]:
    """Suggest the settings of a trial.

    Parameters
    ----------
    trial : optuna.Trial
        The trial.
    space : mapping
        For "history" and "hidden_size" the choices, for the others the limits.
    settings : Settings
        What is not searched, among them a given history.
    """
    recipe, history = settings.recipe, _given_history(settings)
    if history is None:
        history = trial.suggest_categorical("history", space["history"])
    else:  # Optuna takes no choice that the first trials did not have
        trial.set_user_attr("history", history)
    options = {
        "hidden_size": trial.suggest_categorical("hidden_size", space["hidden_size"]),
        "num_layers": trial.suggest_int("num_layers", *space["num_layers"]),
        "dropout": trial.suggest_float("dropout", *space["dropout"]),
    }
    decay = trial.suggest_float("weight_decay", *space["weight_decay"], log=True)
    return history, replace(
        recipe,
        learning_rate=trial.suggest_float("learning_rate", *space["learning_rate"], log=True),
        weight_decay=decay,
        # A given one would replace that of the recipe.
        model={**recipe.model, **options, "weight_decay": decay},
    )


def parameters_of(choice: dict[str, Any], model_kwargs: Any) -> dict[str, Any]:
    """Return the parameters of `Forecaster` that give the settings of a trial."""
    options = {k: choice[k] for k in ("hidden_size", "num_layers", "dropout", "weight_decay")}
    return {
        "history": choice["history"],
        "learning_rate": choice["learning_rate"],
        "model_kwargs": {**(model_kwargs or {}), **options},
    }


def _given_history(settings: Settings) -> int | None:
    given = settings.history or settings.recipe.model.get("memory_length")
    return None if given is None else int(given)


def _history_of(trial: Any) -> int:
    history: int = trial.params.get("history", trial.user_attrs.get("history"))
    return history


def _first_choice(recipe: Recipe) -> dict[str, Any]:
    given = {**_DEFAULTS, "weight_decay": recipe.weight_decay, **recipe.model}
    return {
        **{name: given[name] for name in (*_DEFAULTS, "weight_decay")},
        "learning_rate": recipe.learning_rate,
    }


def _space(recipe: Recipe, histories: list[int], first: Mapping[str, Any]) -> dict[str, Any]:
    heads = int(recipe.model.get("num_heads", 4))
    sizes = {size for size in _HIDDEN_SIZES if size % heads == 0} | {int(first["hidden_size"])}
    return _widened({"history": histories, "hidden_size": sorted(sizes), **_RANGES}, first)


def _widened(space: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Widen the limits of numbers to what is given."""
    limits = {
        name: [min(space[name][0], first[name]), max(space[name][1], first[name])]
        for name in _RANGES
    }
    return {**space, **limits}


def _is_tried(study: Any, settings: Settings, first: Mapping[str, Any]) -> bool:
    """Tell whether a trial with the settings that are given has ended, or is going to begin."""
    ended = [trial.params for trial in _finished(study, settings)]
    waiting = [
        trial.system_attrs.get("fixed_params", {})
        for trial in study.trials
        if trial.state.name == "WAITING"
    ]
    return any(first.items() <= choices.items() for choices in ended + waiting)


def _identity(panel: Panel, settings: Settings) -> str:
    """Return a text that differs if losses cannot be compared."""
    options = {k: v for k, v in settings.recipe.model.items() if k not in _RANGES}
    options.pop("hidden_size", None)
    known = [settings.horizon, list(settings.quantiles), settings.recipe.epochs, str(options)]
    digest = hashlib.sha256(json.dumps(known).encode())
    digest.update(np.ascontiguousarray(panel.target).tobytes())
    digest.update(np.ascontiguousarray(panel.begins).tobytes())
    return digest.hexdigest()


def _finished(study: Any, settings: Settings) -> list[Any]:
    """List the trials that have ended, of a given history if there is one."""
    history = _given_history(settings)
    return [
        trial
        for trial in study.trials
        if trial.state.name in ("COMPLETE", "PRUNED") and history in (None, _history_of(trial))
    ]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Suppress the log of Optuna, and its warning that a file of text is experimental."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _storage(path: Path) -> Any:
    """Keep trials in a file of text, which any number of processes may write to."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))
