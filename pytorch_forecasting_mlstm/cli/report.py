"""The table of errors, as text."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..forecaster.errors import shown
from ..forecaster.evaluation import Evaluation
from ..forecaster.panel import Table
from ..forecaster.splits import Split
from ..forecaster.training import INTERVAL


def error_table(table: Table, split: Split, evaluation: Evaluation) -> str:
    """Set out the errors of both forecasts, what they were measured on, and how to read them."""
    model, naive = evaluation.model, evaluation.naive
    unit = _unit(shown(table.target))
    covered = f"coverage of {100 * (INTERVAL[1] - INTERVAL[0]):.0f} % interval"
    rows = [
        ("", "mLSTMTime", "seasonal naive", "change"),
        _row(f"MAE{unit}", model.mae, naive.mae),
        _row("MASE", model.mase, naive.mase),
        _row(f"pinball loss{unit}", model.pinball, naive.pinball),
        (covered, f"{100 * model.coverage:.1f} %", f"{100 * naive.coverage:.1f} %", ""),
    ]
    width = max(len(row[0]) for row in rows)
    lines = [
        f"Test errors: {len(evaluation.windows.series):,} forecasts of {split.horizon} steps, "
        f"{_period(table, split)},",
        "on values that neither trained the model nor chose its epoch",
        "",
        *(f"{row[0]:{width}}  {row[1]:>12}  {row[2]:>14}  {row[3]:>7}".rstrip() for row in rows),
        "",
        f"Seasonal naive: {_season_name(table, evaluation.season)}, which did best on validation; "
        "its quantiles",
        "are those of its own errors there. MASE divides by its error on the training part.",
    ]
    return "\n".join(lines)


def show_time(time: object) -> str:
    """Write a time without the clock where that says midnight."""
    if isinstance(time, pd.Timestamp):
        clock = time.hour, time.minute, time.second, time.microsecond, time.nanosecond
        return time.strftime("%Y-%m-%d %H:%M" if any(clock) else "%Y-%m-%d")
    return str(time)


def _row(name: str, ours: float, theirs: float) -> tuple[str, str, str, str]:
    comparable = theirs > 0 and math.isfinite(ours / theirs)
    percent = 100 * (ours / theirs - 1) if comparable else 0.0
    change = f"{percent:+.0f} %" if comparable else ""
    if percent > 999:  # where the naive forecast is all but exact
        change = ">+999 %"
    return name, _number(ours), _number(theirs), change


def _number(value: float) -> str:
    """Write a number with three figures or more; an error can be of any size."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0 or 100 <= abs(value) < 1e8:
        return f"{value:,.1f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.2e}"


def _season_name(table: Table, season: int) -> str:
    for name, steps in table.axis.seasons.items():
        if steps == season:
            return f"the value {name} before"
    return "the last value"


def _unit(target: str) -> str:
    """Take the part of a column's name in brackets: 'demand (MW)' has the unit MW."""
    before, bracket, unit = target.rpartition(" (")
    # A long one would push the columns out of sight.
    return f" ({unit}" if bracket and before and unit.endswith(")") and len(unit) < 20 else ""


def _period(table: Table, split: Split) -> str:
    """Name the first and the last test step, of the series that ends last."""
    last = int((table.starts + table.lengths).max()) - 1
    first = last - (split.end - split.test) + 1
    begin, end = (show_time(time) for time in table.axis.at(np.array([first, last])))
    return f"{begin} to {end}"
