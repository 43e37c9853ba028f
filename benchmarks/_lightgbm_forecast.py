"""LightGBM as a practitioner would use it: one model of all series, tuned by Optuna.

20 trials choose the inputs (lags, seasonal lags, rolling means), the strategy (feeding forecasts
back, or the step as an input), L1 or L2, how much of the past to learn from, and the usual settings
of the trees. Each trial learns what comes before the validation windows, the last ones before the
test windows, and is measured on these. The best is fitted to everything before the test windows.
Series are divided by the scale of their MASE, so that the error of a trial is the validation MASE.
Quantiles are the forecast plus those of the validation errors.

A trial learns from 30,000 rows, the final model from 100,000, chosen at random where there are
more, so that a table takes minutes on one thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import optuna
import pandas as pd
from _covariate_tables import Task
from _forecast_panel import Panel, to_panel, to_table
from _forecast_scores import LEVELS
from _lightgbm_features import Features, Inputs, Rows

TRIALS = 20
TRIAL_ROWS, FINAL_ROWS = 30_000, 100_000
TREES = (25, 50, 100, 200, 400)  # all are measured in each trial
_ENOUGH = 100  # errors at one step, for quantiles of their own


class Choice(NamedTuple):
    """The settings of a trial."""

    inputs: Inputs
    share: float  # of the times, the latest ones
    trees: dict[str, Any]


class Trained(NamedTuple):
    """A fitted model."""

    booster: lightgbm.Booster
    features: Features


def lightgbm_forecast(task: Task, seed: int, trials: int = TRIALS) -> pd.DataFrame:
    """Tune, fit, and forecast the test windows of a task."""
    horizon, seasons = task.spec.horizon, task.spec.seasons
    panel = to_panel(task)
    end = panel.cutoffs[0]
    scale = _scales(panel.values[:, :end], seasons[0])
    scaled = replace(panel, values=panel.values / scale[:, None])
    count = max(2, task.windows)
    validation = [end - k * horizon for k in range(count, 0, -1) if end - k * horizon > end // 2]
    truth = np.stack([scaled.values[:, cut : cut + horizon] for cut in validation])
    best: tuple[float, Choice, int, np.ndarray] | None = None

    def measure(trial: optuna.Trial) -> float:
        nonlocal best
        choice = suggest(trial, seasons[0], validation[0], bool(task.spec.known))
        trained = fit(scaled, task, choice, validation[0], TRIAL_ROWS, max(TREES), seed)
        errors = [truth - forecast(trained, scaled, validation, trees) for trees in TREES]
        losses = [float(np.nanmean(np.abs(error))) for error in errors]
        place = int(np.argmin(losses))
        if best is None or losses[place] < best[0]:
            best = losses[place], choice, TREES[place], errors[place]
        return losses[place]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for recursive in (False, True):  # a usual choice of both strategies
        study.enqueue_trial({"recursive": recursive, **_USUAL})
    study.optimize(measure, n_trials=trials)
    assert best is not None
    _, choice, trees, errors = best
    trained = fit(scaled, task, choice, end, FINAL_ROWS, trees, seed)
    point = forecast(trained, scaled, list(panel.cutoffs), trees)
    quantiles = point[..., None] + _spread(errors)
    point = np.maximum(point * scale[:, None], panel.lower_bound)
    quantiles = np.maximum(quantiles * scale[:, None, None], panel.lower_bound)
    return to_table(task, panel, point, quantiles)


_USUAL = {
    "difference": False,
    "lags": 2,
    "cycles": 2,
    "rolling": 2,
    "known_at_lags": False,
    "share": 1.0,
    "objective": "l1",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_child_samples": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "lambda_l2": 0.1,
}


def suggest(trial: optuna.Trial, season: int, end: int, has_known: bool) -> Choice:
    """Let a trial choose; lags and rolling means are about one, two or more seasons long."""
    season = max(season, 4)
    lags = [3, max(season, 6), max(2 * season, 12)]
    rolling = [(), (season,), (season, 4 * season), (3, season, 2 * season, 4 * season, 8 * season)]
    inputs = Inputs(
        recursive=trial.suggest_categorical("recursive", [False, True]),
        difference=trial.suggest_categorical("difference", [False, True]),
        lags=min(lags[trial.suggest_int("lags", 0, len(lags) - 1)], end // 3),
        cycles=trial.suggest_categorical("cycles", [1, 2, 4]),
        rolling=tuple(
            length
            for length in rolling[trial.suggest_int("rolling", 0, len(rolling) - 1)]
            if length <= end // 2
        ),
        known_at_lags=has_known and trial.suggest_categorical("known_at_lags", [False, True]),
    )
    share = trial.suggest_categorical("share", [1.0, 0.6, 0.3])
    trees = {
        "objective": trial.suggest_categorical("objective", ["l1", "l2"]),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 7, 95, log=True),
        "min_child_samples": trial.suggest_int("min_child_samples", 3, 100, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 10.0, log=True),
    }
    return Choice(inputs, share, trees)


def fit(
    panel: Panel, task: Task, choice: Choice, end: int, max_rows: int, trees: int, seed: int
) -> Trained:
    """Fit a model to the values of a scaled panel before the time `end`."""
    horizon = task.spec.horizon
    features = Features(panel, task.spec.seasons, horizon, choice.inputs)
    values = panel.values[:, :end]
    steps = 1 if choice.inputs.recursive else horizon
    first = min(max(task.spec.seasons[0], choice.inputs.lags), end // 4) + steps
    first = max(first, round(end * (1 - choice.share)))
    series, time, ahead = np.meshgrid(
        np.arange(len(values)), np.arange(first, end), np.arange(1, steps + 1), indexing="ij"
    )
    rows = Rows(series.ravel(), time.ravel(), ahead.ravel())
    if len(rows) > max_rows:
        rng = np.random.default_rng(seed)
        rows = rows.take(np.sort(rng.choice(len(rows), max_rows, replace=False)))
    target = values[rows.series, rows.time] - features.level(values, rows)
    rows, target = rows.take(~np.isnan(target)), target[~np.isnan(target)]
    settings = {
        **choice.trees,
        "bagging_freq": 1,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(
        features(values, rows), target, categorical_feature=features.classes, free_raw_data=True
    )
    return Trained(lightgbm.train(settings, data, trees), features)


def forecast(trained: Trained, panel: Panel, cutoffs: list[int], trees: int) -> np.ndarray:
    """Forecast from several cutoffs of a scaled panel; return (W, S, h)."""
    booster, features = trained
    count, horizon = len(panel.values), features.horizon
    # One copy of the series for each cutoff, which knows nothing after it.
    values = np.concatenate([panel.values] * len(cutoffs))
    starts = np.repeat(cutoffs, count)
    values[np.arange(values.shape[1]) >= starts[:, None]] = np.nan
    every = np.arange(len(values))
    steps = np.arange(horizon)
    if not features.inputs.recursive:
        rows = Rows(
            every.repeat(horizon),
            (starts[:, None] + steps).ravel(),
            np.tile(steps + 1, len(values)),
        )
        result = booster.predict(features(values, rows), num_iteration=trees)
        result = result + features.level(values, rows)
        return result.reshape(len(cutoffs), count, horizon)
    for step in steps:
        rows = Rows(every, starts + step, np.ones(len(values), dtype=int))
        result = booster.predict(features(values, rows), num_iteration=trees)
        values[every, starts + step] = result + features.level(values, rows)
    return values[every[:, None], starts[:, None] + steps].reshape(len(cutoffs), count, horizon)


def _scales(values: np.ndarray, season: int) -> np.ndarray:
    """Return the scale of each series, (S,): that of MASE, at least a tenth of the mean size."""
    changes = np.abs(values[:, season:] - values[:, :-season]).mean(axis=1)
    sizes = np.abs(values).mean(axis=1)
    return np.maximum(np.where(sizes > 0, np.maximum(changes, 0.1 * sizes), 1.0), 1e-9)


def _spread(errors: np.ndarray) -> np.ndarray:
    """Return quantiles of validation errors (W, S, h) at each step, (h, Q)."""
    by_step = errors.reshape(-1, errors.shape[-1])
    if len(by_step) < _ENOUGH:
        by_step = np.broadcast_to(by_step.reshape(-1, 1), (by_step.size, by_step.shape[1]))
    return np.nanquantile(by_step, LEVELS, axis=0).T
