"""The result of a backtest: forecasts beside the truth, tables of errors, and a plot."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..._messages import printable
from ..plots.chosen_series import label_of
from ..plots.plot_panels import MELTED_TARGET, name_targets
from .error_tables import error_table

_COVERAGE_TOLERANCE = 0.1  # share of the values, between an interval's coverage and its nominal one
_FEW_VALUES = 30  # whose coverage may be chance
_MAX_NAMED = 3  # series in a sentence
_TABLES = "Tables: forecasts, errors_by_series, errors_by_cutoff, errors_by_step."


@dataclass(frozen=True, repr=False, eq=False)
class BacktestResult:
    """Forecasts from past cutoffs beside what happened, for the model and its baselines.

    Attributes
    ----------
    forecasts : pandas.DataFrame
        One row per series, cutoff, step and model: the columns of the series, time, "cutoff" (the
        last time that the model saw), "step", "model", "actual", "prediction" and quantiles.
    history : pandas.DataFrame
        The rows that were forecast and those before, for `plot`.
    scales : pandas.DataFrame
        What MASE divides by, "scale", for each series and cutoff: the mean error of the seasonal
        naive forecast before the cutoff.
    time : str
        Column of the times.
    target : str or sequence of str
        Column or columns that were forecast.
    group : tuple of str
        Columns that identify the series.
    """

    forecasts: pd.DataFrame
    history: pd.DataFrame
    scales: pd.DataFrame
    time: str
    target: str | Sequence[str]
    group: tuple[str, ...] = ()

    @property
    def series(self) -> list[str]:
        """Columns that identify a series: `group`, and "target" if there are several targets."""
        several = not isinstance(self.target, str) and len(self.target) > 1
        return [*self.group, *([MELTED_TARGET] if several else [])]

    @cached_property
    def errors(self) -> pd.DataFrame:
        """Errors of each model over all forecasts, one row per model.

        The columns are "MAE", "RMSE", "MASE", "pinball", "coverage" of the widest symmetric
        interval beside its "nominal" coverage, the number of compared "values", and of values with
        "no forecast".
        """
        return self._table()

    @cached_property
    def errors_by_series(self) -> pd.DataFrame:
        """Errors of each model in each series, indexed by the columns of the series and "model"."""
        return self._table(*self.series)

    @cached_property
    def errors_by_cutoff(self) -> pd.DataFrame:
        """Errors of each model from each cutoff, indexed by "cutoff" and "model", in time order."""
        return self._table("cutoff")

    @cached_property
    def errors_by_step(self) -> pd.DataFrame:
        """Errors of each model at each step of the horizon, indexed by "step" and "model"."""
        return self._table("step")

    def plot(self, series: Any = None, cutoffs: Any = None) -> Any:
        """Draw history, truth, forecasts from several cutoffs, and the baselines dashed.

        Parameters
        ----------
        series : optional
            Series to draw: one key or a list of keys, each a value of the group column or a tuple
            of values of several. Default: the first six.
        cutoffs : optional
            Their number, counted from the last one, or a list of them. Default: the last four.

        Returns
        -------
        matplotlib.figure.Figure
            Save it with ``savefig``.
        """
        from ..plots.backtest_plot import plot_backtest

        return plot_backtest(
            self.forecasts,
            self.history,
            time=self.time,
            target=self.target,
            group=self.group,
            series=series,
            cutoffs=cutoffs,
        )

    def coverage_warning(self) -> str | None:
        """Say in words that the interval of the model holds 10 points more or less than it should.

        Returns
        -------
        str or None
            One sentence about the first model; None if its coverage is close to the nominal one.
        """
        if self.errors.empty:
            return None
        first = self.errors.iloc[0]
        difference = first["coverage"] - first["nominal"]
        if not abs(difference) >= _COVERAGE_TOLERANCE - 1e-9:  # NaN: no interval
            return None
        many = "more" if difference > 0 else "fewer"
        wide = "wide" if difference > 0 else "narrow"
        count = int(first["values"])
        cure = (
            "these are few values, of which more cutoffs would give more"
            if count < _FEW_VALUES
            else f"plan with the coverage measured here, since the intervals are too {wide}"
        )
        return (
            f"the {_percent(first['nominal'])} interval of {printable(self.errors.index[0])} holds "
            f"{_percent(first['coverage'])} of {count:,} actual values, "
            f"{abs(100 * difference):.0f} points {many} than it should: {cure}"
        )

    def missing_warning(self) -> str | None:
        """Say in words which models have no forecast for some series, and for how many values.

        Returns
        -------
        str or None
            One sentence; None if all models forecast all values.
        """
        missing = self.errors["no forecast"]
        sentences = []
        for model, count in missing[missing > 0].items():
            rows = self.forecasts[self.forecasts["model"] == model]
            rows = rows[rows["prediction"].isna() & rows["actual"].notna()]
            total = count + int(self.errors.loc[model, "values"])
            sentence = f"{printable(model)} has no forecast for {count:,} of {total:,} values"
            if self.series:
                keys = list(dict.fromkeys(rows[self.series].itertuples(index=False, name=None)))
                names = ["(" + label_of(self.series, key) + ")" for key in keys[:_MAX_NAMED]]
                more = len(keys) - len(names)
                sentence += f", in {', '.join(names)}" + (f" and {more:,} more" if more else "")
            sentences.append(sentence)
        if not sentences:
            return None
        return "; ".join(sentences) + ": errors are over the other values, so compare by series"

    def summary(self) -> str:
        """Return the table of errors, and what is to be said about it, as text.

        Returns
        -------
        str
            Several lines.
        """
        notes = self._notes()
        table = self._shown().to_string()
        return "\n".join([self._heading(), "", table, *([""] if notes else []), *notes])

    def __repr__(self) -> str:
        return f"{self.summary()}\n\n{_TABLES}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in [*self._notes(), _TABLES])
        return f"<p>{html.escape(self._heading())}</p>{self._shown().to_html()}{notes}"

    def _table(self, *by: str) -> pd.DataFrame:
        forecasts = self.forecasts
        if by in (("cutoff",), ("step",)):
            forecasts = forecasts.sort_values(by[0], kind="stable")
        return error_table(forecasts, self.scales, series=self.series, by=by)

    def _heading(self) -> str:
        cutoffs = self.forecasts["cutoff"].nunique()
        steps = int(self.forecasts["step"].max()) if len(self.forecasts) else 0
        parts = [_count(cutoffs, "cutoff"), _count(steps, "step") + " ahead"]
        if self.series:
            parts.insert(0, f"{len(self.forecasts[self.series].drop_duplicates()):,} series")
        name = name_targets(self.target).replace(r"\$", "$")
        return f"Backtest of {name}: {', '.join(parts)}"

    def _shown(self) -> pd.DataFrame:
        """Return the table of errors as text, without empty columns."""
        table = self.errors
        shown = pd.DataFrame(index=table.index)
        for name in ("MAE", "RMSE", "MASE", "pinball"):
            if table[name].notna().any():
                shown[name] = table[name].map(_number)
        if table["coverage"].notna().any():
            heading = f"coverage of {_percent(table['nominal'].iloc[0])} interval"
            shown[heading] = table["coverage"].map(_percent)
        shown["values"] = table["values"].map("{:,}".format)
        return shown

    def _notes(self) -> list[str]:
        notes = [self.coverage_warning(), self.missing_warning()]
        return [f"{note[:1].upper()}{note[1:]}." for note in notes if note]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if np.isfinite(share) else "undefined"


def _number(value: float) -> str:
    """Format a number of any size with four digits or so."""
    if not math.isfinite(value):
        return "undefined"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1000 else f"{value:.3e}"
