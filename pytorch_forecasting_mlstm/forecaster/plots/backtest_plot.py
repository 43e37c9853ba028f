"""Plots of backtests: forecasts from several cutoffs beside the truth, one panel per series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..errors import Argument, InputError, quoted
from .chosen_series import choose_series, label_of, rows_of
from .drawing import (
    BASELINES,
    BLUE,
    CUTOFF_COLORS,
    HISTORY,
    TRUTH,
    TRUTH_LINE,
    draw_forecast,
    draw_line,
    finish_figure,
    name_forecast,
    plain,
    values_of,
)
from .drawn_times import DrawnTimes, drawn_times
from .plot_panels import (
    count_series,
    draw_panels,
    history_length,
    name_targets,
    panel_columns,
    sort_values,
    stack_targets,
)

_DEFAULT_CUTOFFS = 4  # the number of colors
_MAX_DOTS = 60  # of the truth, in all panels side by side; it is a line alone if it has more


@dataclass(frozen=True)
class _Origin:
    """The forecasts of one series from one cutoff: by model, times and rows in time order."""

    cutoff: str
    begin: float
    forecasts: dict[str, tuple[np.ndarray, pd.DataFrame]]

    @property
    def last(self) -> float:
        return max(float(x[-1]) for x, _ in self.forecasts.values())


def plot_backtest(
    forecasts: pd.DataFrame,
    history: pd.DataFrame,
    *,
    time: str,
    target: str | Sequence[str],
    group: Sequence[str] = (),
    series: Any = None,
    cutoffs: Any = None,
    title: str | None = None,
) -> Any:
    """Draw the forecasts from several cutoffs, the truth, and the baselines dashed.

    Forecasts that overlap have one color per cutoff, and only their widest band is drawn.

    Parameters
    ----------
    forecasts : pandas.DataFrame
        One row per series, cutoff, step and model, with the columns `group`, `time`, "cutoff",
        "model", "actual", "prediction" and quantiles; with several targets also "target". The first
        model is drawn as a line with bands, the others as baselines.
    history : pandas.DataFrame
        One row per series and time, with the columns `group`, `time` and `target`.
    time, target, group, series, title
        As in `plot_forecast`.
    cutoffs : optional
        Cutoffs to draw: their number, counted from the last one, or a list of them. Default: the
        last four.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot.

    Raises
    ------
    InputError
        If there is no such series or cutoff, or no forecast.
    """
    models = list(dict.fromkeys(forecasts["model"]))
    truth, group, value = stack_targets(history, time, target, group)
    keys, total = choose_series(forecasts, group, series)
    chosen = _choose_cutoffs(forecasts, cutoffs)
    shown = forecasts[forecasts["cutoff"].isin(chosen)] if chosen is not None else forecasts
    last = cutoffs if isinstance(cutoffs, int) else None if chosen else _DEFAULT_CUTOFFS
    name = name_forecast(forecasts[forecasts["model"] == models[0]])
    origins: dict[tuple, list[_Origin]] = {}
    panel_times: dict[tuple, tuple[DrawnTimes, np.ndarray, np.ndarray]] = {}
    for key in keys:
        known, rows = rows_of(truth, group, key), rows_of(shown, group, key)
        if rows.empty:
            raise InputError(
                f"{label_of(group, key) or 'the series'} has no forecast from these cutoffs: "
                "choose others with ",
                Argument("cutoffs"),
            )
        times = drawn_times(pd.concat([known[time], rows[time], rows["cutoff"]]), len(known))
        x, ahead, begins = np.split(times.numbers, [len(known), len(known) + len(rows)])
        origins[key] = _origins(rows, ahead, begins, models)[-last if last else None :]
        observed = np.append(values_of(known, value), values_of(rows, "actual"))
        panel_times[key] = times, *sort_values(np.append(x, ahead), observed)
    overlap = any(_overlap(origins[key]) for key in keys)
    is_common = len({tuple(one.cutoff for one in begins) for begins in origins.values()}) == 1

    def draw(axes: Any, key: tuple) -> tuple[DrawnTimes, np.ndarray]:
        times, x, y = panel_times[key]
        begins = origins[key]
        x, y = _draw_truth(axes, x, y, begins, _MAX_DOTS // panel_columns(len(keys)))
        for number, origin in enumerate(begins):
            color = CUTOFF_COLORS[number % len(CUTOFF_COLORS)] if overlap else BLUE
            text = plain(origin.cutoff if is_common else f"cutoff {number + 1}", 30)
            for model, (ahead, rows) in origin.forecasts.items():
                if model == models[0]:
                    draw_forecast(
                        axes,
                        ahead,
                        rows,
                        origin.begin,
                        label=f"forecast after {text}" if overlap else name,
                        color=color,
                        transparent=overlap,
                    )
                else:
                    style = BASELINES[(models.index(model) - 1) % len(BASELINES)]
                    point = values_of(rows, "prediction")
                    draw_line(axes, ahead, point, {**style, "label": plain(model, 30)})
        drawn = [ahead for origin in begins for ahead, _ in origin.forecasts.values()]
        return times, np.concatenate([x, *drawn])

    figure = draw_panels(keys, group, time, target, draw)
    if title is None:
        title = f"Backtest of {name_targets(target)}"
        title += _count_cutoffs(max(map(len, origins.values())), forecasts, group)
    else:
        title = plain(title, 110)
    finish_figure(figure, title + count_series(len(keys), total, chosen=series is not None))
    return figure


def _choose_cutoffs(forecasts: pd.DataFrame, cutoffs: Any) -> list[Any] | None:
    """Return the listed cutoffs; None if they are counted from the last one."""
    if cutoffs is None:
        return None
    if isinstance(cutoffs, int) and not isinstance(cutoffs, bool):
        if cutoffs < 1:
            raise InputError(Argument("cutoffs"), f" must be at least 1, got {cutoffs}")
        return None
    is_list = isinstance(cutoffs, Sequence | np.ndarray | pd.Series | pd.Index)
    chosen = list(cutoffs) if is_list and not isinstance(cutoffs, str) else [cutoffs]
    known = list(dict.fromkeys(forecasts["cutoff"]))
    unknown = [cutoff for cutoff in chosen if cutoff not in known]
    if unknown or not chosen:
        named = ", ".join(map(_format_cutoff, known[:5])) + (", ..." if len(known) > 5 else "")
        what = f"no cutoff {quoted(_format_cutoff(unknown[0]))}" if unknown else "no cutoffs given"
        raise InputError(what, ": choose ", Argument("cutoffs"), f" from {named}")
    return chosen


def _origins(
    rows: pd.DataFrame, x: np.ndarray, begins: np.ndarray, models: list[Any]
) -> list[_Origin]:
    """Split the forecasts of one series by cutoff, in time order, and by model."""
    origins = []
    for begin in np.unique(begins):
        forecasts = {}
        for model in models:
            chosen = np.flatnonzero((begins == begin) & (rows["model"] == model).to_numpy())
            if len(chosen):
                chosen = chosen[np.argsort(x[chosen], kind="stable")]
                forecasts[model] = x[chosen], rows.iloc[chosen]
        first = int((begins == begin).argmax())
        cutoff = _format_cutoff(rows["cutoff"].iloc[first])
        origins.append(_Origin(cutoff, float(begin), forecasts))
    return origins


def _overlap(origins: list[_Origin]) -> bool:
    return any(
        later.begin < earlier.last for earlier, later in zip(origins[:-1], origins[1:], strict=True)
    )


def _draw_truth(
    axes: Any, x: np.ndarray, y: np.ndarray, origins: list[_Origin], max_dots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the history up to the first cutoff, and the truth after it."""
    first, last = origins[0], max(origin.last for origin in origins)
    horizon = max(len(rows) for _, rows in first.forecasts.values())
    begin = max(0, int((x <= first.begin).sum()) - history_length(horizon))
    chosen = slice(begin, int((x <= last).sum()))
    x, y = x[chosen], y[chosen]
    is_past = x <= first.begin
    draw_line(axes, x[is_past], y[is_past], HISTORY)
    is_truth = ~is_past
    if is_past.any():  # joined with the history
        is_truth[is_past.sum() - 1] = True
    if (~np.isnan(y[~is_past])).any():
        few = (~is_past).sum() <= max_dots
        style = {**TRUTH, **TRUTH_LINE, "linestyle": "-"} if few else TRUTH_LINE
        dots = {"markevery": slice(int(is_past.any()), None)} if few else {}
        axes.plot(x[is_truth], y[is_truth], **style, **dots)
    return x, y


def _format_cutoff(cutoff: Any) -> str:
    """Write a cutoff, without the time of day if it is midnight."""
    if isinstance(cutoff, pd.Timestamp) and cutoff == cutoff.normalize():
        return f"{cutoff:%Y-%m-%d}"
    return f"{cutoff:%Y-%m-%d %H:%M}" if isinstance(cutoff, pd.Timestamp) else str(cutoff)


def _count_cutoffs(drawn: int, forecasts: pd.DataFrame, group: list[str]) -> str:
    """Say how many cutoffs are drawn: ", 4 of 12 cutoffs"."""
    cutoffs = forecasts[[*group, "cutoff"]].drop_duplicates()
    total = int(cutoffs.groupby(group, observed=True).size().max()) if group else len(cutoffs)
    share = f"{drawn}" if drawn >= total else f"{drawn} of {total}"
    return f", {share} cutoff{'' if share == '1' else 's'}"
