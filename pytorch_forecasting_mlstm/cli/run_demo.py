"""The demo: test the forecaster on two weeks of real data, and draw one day."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd

from ..forecaster import BacktestResult, Forecaster
from .arguments import Arguments
from .console import require_packages
from .output import replace_files, writable_folder

_NAME = "Electricity demand, England and Wales"
_DAY = 48  # half-hours
_DAYS = 14
_EPOCHS = 12
#: Of each of at most four trainings: the demo ends within two minutes even on a slow machine.
_MAX_TIME = {"seconds": 30}


def electricity_demand() -> pd.DataFrame:
    """Half-hourly electricity demand of England and Wales, 5 June to 27 August 2000, in MW.

    Included in pmdarima, so nothing is downloaded. Discussed in J. W. Taylor, "Short-term
    electricity demand forecasting using double seasonal exponential smoothing", Journal of the
    Operational Research Society 54 (2003).
    """
    from pmdarima.datasets import load_taylor

    demand = np.asarray(load_taylor(), dtype=float)
    times = pd.date_range("2000-06-05", periods=len(demand), freq="30min")
    return pd.DataFrame({"time": times, "demand (MW)": demand})


def run_demo(arguments: Arguments) -> None:
    """Forecast days of half-hourly electricity demand: fit, test, print, draw.

    Raises
    ------
    InputError
        If an extra is missing, or the plot cannot be written.
    """
    require_packages("pmdarima", "matplotlib")
    folder = writable_folder(arguments.output)
    print(f"{_NAME}: half-hourly from 5 June to 27 August 2000, in MW")
    print(f"Train on the first ten weeks, forecast each of the other {_DAYS} days", flush=True)
    forecaster = Forecaster(
        horizon=_DAY,
        time="time",
        target="demand (MW)",
        history=7 * _DAY,
        members=1,
        trainer_kwargs={"max_time": _MAX_TIME},
        verbose=sys.stderr.isatty(),
        **{"epochs": _EPOCHS, **arguments.parameters},
    )
    report = forecaster.backtest(electricity_demand(), cutoffs=_DAYS)
    print(f"\n{report.summary()}\n")

    plot = folder / "demo.png"
    with replace_files(plot) as (new_plot,):
        # whatever the suffix of the temporary file
        report.plot(cutoffs=[_typical_cutoff(report)]).savefig(new_plot, format="png")
    print(f"Wrote {plot}: of the tested days, the one with the median error")


def _typical_cutoff(report: BacktestResult) -> Any:
    """Choose the cutoff with the median error of the model."""
    errors = report.errors_by_cutoff["MAE"].xs("mLSTMTime", level="model").sort_values()
    return errors.index[len(errors) // 2]
