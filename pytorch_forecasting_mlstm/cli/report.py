"""The printed report: progress of the training, and a table of metrics."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from .._messages import printable
from ..forecaster.evaluation import Evaluation
from ..forecaster.panel import Panel
from ..forecaster.quantiles import INTERVAL
from ..forecaster.splits import Split
from ..forecaster.training import EpochResult


def print_epoch(result: EpochResult) -> None:
    """Print one line about an epoch."""
    line = f"epoch {result.epoch:>3}/{result.max_epochs}"
    line += f"   training loss {result.training_loss:.4f}"
    if result.validation_loss is not None:
        line += f"   validation loss {result.validation_loss:.4f}{' *' if result.is_best else '  '}"
    print(f"{line}   {result.seconds:5.1f} s", flush=True)


def format_metrics(panel: Panel, split: Split, evaluation: Evaluation) -> str:
    """Format the metrics of both forecasts, with what they were measured on."""
    model, naive = evaluation.model, evaluation.naive
    unit = _unit(printable(panel.target))
    coverage = f"coverage of {100 * (INTERVAL[1] - INTERVAL[0]):.0f} % interval"
    rows = [
        ("", "mLSTMTime", "seasonal naive", "change"),
        _row(f"MAE{unit}", model.mae, naive.mae),
        _row("MASE", model.mase, naive.mase),
        _row(f"pinball loss{unit}", model.pinball, naive.pinball),
        (coverage, f"{100 * model.coverage:.1f} %", f"{100 * naive.coverage:.1f} %", ""),
    ]
    width = max(len(row[0]) for row in rows)
    lines = [
        f"Test errors: {len(evaluation.windows.series):,} forecasts of {split.horizon} steps, "
        f"{_period(panel, split)},",
        "on values used neither to train the model nor to select its epoch",
        "",
        *(f"{row[0]:{width}}  {row[1]:>12}  {row[2]:>14}  {row[3]:>7}".rstrip() for row in rows),
        "",
        f"Seasonal naive: {_season_name(panel, evaluation.season)}, which did best on validation; "
        "its quantiles",
        "are those of its own errors there. MASE divides by its error on the training part.",
    ]
    return "\n".join(lines)


def _row(name: str, model: float, naive: float) -> tuple[str, str, str, str]:
    comparable = naive > 0 and math.isfinite(model / naive)
    percent = 100 * (model / naive - 1) if comparable else 0.0
    change = f"{percent:+.0f} %" if comparable else ""
    if percent > 999:  # the naive forecast is all but exact
        change = ">+999 %"
    return name, _number(model), _number(naive), change


def _number(value: float) -> str:
    """Format a number of any size with three digits or more."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0 or 100 <= abs(value) < 1e8:
        return f"{value:,.1f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.2e}"


def _season_name(panel: Panel, season: int) -> str:
    for name, steps in panel.axis.seasons.items():
        if steps == season:
            return f"the value {name} before"
    return "the last value"


def _unit(target: str) -> str:
    """Return the part of a column name in parentheses: " (MW)" for "demand (MW)"."""
    name, parenthesis, unit = target.rpartition(" (")
    # A long one would push the columns out of view.
    is_unit = parenthesis and name and unit.endswith(")") and len(unit) < 20
    return f" ({unit}" if is_unit else ""


def _period(panel: Panel, split: Split) -> str:
    """Format the first and the last test step of the series that ends last."""
    last = int((panel.starts + panel.lengths).max()) - 1
    first = last - (split.end - split.test) + 1
    begin, end = (_format_time(time) for time in panel.axis.at(np.array([first, last])))
    return f"{begin} to {end}"


def _format_time(time: object) -> str:
    """Format a time, without the time of day if it is midnight."""
    if isinstance(time, pd.Timestamp):
        clock = time.hour, time.minute, time.second, time.microsecond, time.nanosecond
        return time.strftime("%Y-%m-%d %H:%M" if any(clock) else "%Y-%m-%d")
    return str(time)
