"""The demo: fit on real data, test on weeks not used in training, draw one day."""

from __future__ import annotations

import numpy as np
from lightning import seed_everything

from ..forecaster.electricity_demand import electricity_demand
from ..forecaster.evaluation import Evaluation
from ..forecaster.quantiles import MEDIAN
from ..forecaster.splits import split_panel
from ..forecaster.workflow import backtest
from .arguments import Arguments
from .console import require_packages
from .output import replace_files, writable_folder
from .plots import plot_test_window
from .report import format_metrics, print_epoch

_NAME = "Electricity demand, England and Wales"
_DAY = 48  # half-hours
_WEEK = 7 * _DAY
_MAX_SECONDS = 90  # of training: the demo ends within two minutes even on a slow machine


def run_demo(arguments: Arguments) -> None:
    """Forecast a day of half-hourly electricity demand: fit, evaluate, print, draw.

    Raises
    ------
    InputError
        If an extra is missing, or the plot cannot be written.
    """
    require_packages("pmdarima", "matplotlib")
    folder = writable_folder(arguments.output)
    panel = electricity_demand()
    split = split_panel(panel, horizon=_DAY, history=_WEEK, test_size=2 * _WEEK)
    print(f"{_NAME}: half-hourly from 5 June to 27 August 2000, {panel.target}")
    print("Train on 8 weeks, select the epoch on the next 2, test once on the last 2", flush=True)

    seed_everything(arguments.seed, verbose=False)
    result = backtest(
        panel,
        split,
        epochs=arguments.epochs,
        seed=arguments.seed,
        max_seconds=_MAX_SECONDS,
        on_epoch=print_epoch,
    )
    if result.fitted.out_of_time:
        print(f"Stopped after {_MAX_SECONDS} s: a faster machine may get a better model")
    print(f"Best on validation: epoch {result.fitted.epoch}\n")
    print(format_metrics(panel, split, result.evaluation))

    plot, evaluation = folder / "demo.png", result.evaluation
    title = f"{_NAME}: one day ahead"
    with replace_files(plot) as (new_plot,):
        plot_test_window(panel, split, evaluation, _typical_day(evaluation), title, new_plot)
    print(f"\nWrote {plot}: of the test days, the one with the median error")


def _typical_day(evaluation: Evaluation) -> int:
    """Choose the window with the median error among those that begin at midnight."""
    windows = evaluation.windows
    days = np.flatnonzero(windows.origins % _DAY == 0)
    median = evaluation.quantiles[days][..., MEDIAN]
    error = np.abs(median - windows.actual[days]).mean(axis=1)
    return int(days[np.argsort(error)[len(days) // 2]])
