"""The demo: test the forecaster on two weeks of real data, and draw one day."""

from __future__ import annotations

import sys

import pandas as pd

from ..forecaster import BacktestResult, Forecaster
from .arguments import Arguments
from .console import require_packages
from .electricity_demand import electricity_demand
from .output import replace_files, writable_folder

_NAME = "Electricity demand, England and Wales"
_DAY = 48  # half-hours
_DAYS = 14
_MAX_TIME = "00:00:00:45"  # of each of two trainings: two minutes in all, even on a slow machine


def run_demo(arguments: Arguments) -> None:
    """Forecast days of half-hourly electricity demand: fit, test, print, draw.

    Raises
    ------
    InputError
        If an extra is missing, or the plot cannot be written.
    """
    require_packages("pmdarima", "matplotlib")
    folder = writable_folder(arguments.output)
    table = electricity_demand()
    print(f"{_NAME}: half-hourly, 5 June to 27 August 2000, in MW")
    print(f"Train on ten weeks, then forecast each of the next {_DAYS} days", flush=True)
    forecaster = Forecaster(
        horizon=_DAY,
        time="time",
        target="demand (MW)",
        history=7 * _DAY,
        quantiles=(0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98),
        trainer_kwargs={"max_time": _MAX_TIME},
        verbose=sys.stderr.isatty(),
        **arguments.parameters,
    )
    report = forecaster.backtest(table, cutoffs=_DAYS)
    print(f"\n{report.summary()}")

    plot = folder / "demo.png"
    figure = report.plot(cutoffs=[_typical_cutoff(report)])
    with replace_files(plot) as (new_plot,):
        figure.savefig(new_plot, format="png")
    print(f"\nWrote {plot}: of the tested days, the one with the median error")


def _typical_cutoff(report: BacktestResult) -> pd.Timestamp:
    """Choose the cutoff with the median error."""
    errors = report.errors_by_cutoff["MAE"].xs("mLSTMTime", level="model").sort_values()
    return errors.index[len(errors) // 2]
