"""The demo: fit on real data, test on weeks never seen, draw one day."""

from __future__ import annotations

import numpy as np

from ..forecaster.datasets import held_out_set, model_frame, training_set
from ..forecaster.evaluation import Evaluation, evaluate
from ..forecaster.splits import split_table
from ..forecaster.training import fit, predict_quantiles
from .arguments import Arguments
from .demo_data import electricity_demand
from .extras import require
from .output import whole_files, writable_folder
from .plots import plot_test_window
from .report import error_table

_DAY = 48  # half-hours
_WEEK = 7 * _DAY
_MOST_SECONDS = 90  # of training: on a slow machine, too, the demo ends within two minutes


def run_demo(arguments: Arguments) -> None:
    """Forecast a day of half-hourly electricity demand: train, test, print, draw.

    Raises
    ------
    UserError
        An extra is missing, or the picture cannot be written.
    """
    require("pmdarima", "matplotlib")
    folder = writable_folder(arguments.output)
    table = electricity_demand()
    split = split_table(table, horizon=_DAY, history=_WEEK, held_out=2 * _WEEK)
    print(f"{table.name}: half-hourly from 5 June to 27 August 2000, {table.target}")
    print("Train on 8 weeks, choose the epoch on the next 2, test once on the last 2", flush=True)

    frame = model_frame(table, split)
    training = training_set(frame, split, end=split.validation)
    validation = held_out_set(training, frame, split.validation_origins, split.horizon)
    fitted = fit(
        training,
        validation,
        epochs=arguments.epochs,
        seed=arguments.seed,
        max_seconds=_MOST_SECONDS,
    )
    print(f"Best on validation: epoch {fitted.epoch}\n")

    test = held_out_set(training, frame, split.test_origins, split.horizon)
    evaluation = evaluate(
        table, split, *predict_quantiles(fitted.model, test, frame, table.floor())
    )
    print(error_table(table, split, evaluation))
    picture = folder / "demo.png"
    title = f"{table.name}: one day ahead"
    with whole_files(picture) as (part,):
        plot_test_window(table, split, evaluation, _typical_day(evaluation), title, part)
    print(f"\nWrote {picture}: of the test days, the one with the median error")


def _typical_day(evaluation: Evaluation) -> int:
    """Choose the window with the median error among those that begin at midnight."""
    windows = evaluation.windows
    days = np.flatnonzero(windows.origins % _DAY == 0)
    median = evaluation.quantiles[days][..., evaluation.quantiles.shape[-1] // 2]
    error = np.abs(median - windows.actual[days]).mean(axis=1)
    return int(days[np.argsort(error)[len(days) // 2]])
