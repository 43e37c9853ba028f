"""Plots of forecasts and backtests, one panel per series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .chosen_series import choose_series, label_of, rows_of
from .drawing import (
    HISTORY,
    TRUTH,
    draw_forecast,
    draw_line,
    finish_figure,
    make_figure,
    name_forecast,
    plain,
    values_of,
)
from .drawn_times import DrawnTimes, drawn_times
from .errors import Argument, InputError

MELTED_TARGET, MELTED_VALUE = "target", "value"  # columns of several targets below each other

_HORIZONS_OF_HISTORY = 2
_MIN_HISTORY = 12  # steps, for short horizons
_MAX_TITLE_LENGTH = {1: 100, 2: 56, 3: 38}  # characters, by columns of panels
_MAX_TICKS = {1: 9, 2: 6, 3: 4}
_MAX_LABEL_LENGTH = 32


def plot_forecast(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    time: str,
    target: str | Sequence[str],
    group: Sequence[str] = (),
    actual: pd.DataFrame | None = None,
    series: Any = None,
    title: str | None = None,
) -> Any:
    """Draw history, forecast, bands, and the truth where it is known, one panel per series.

    Parameters
    ----------
    history : pandas.DataFrame
        One row per series and time, with the columns `group`, `time` and `target`. The last steps
        are drawn: two horizons, and 12 at least. Values at and after the first time of the forecast
        are drawn as its truth.
    forecast : pandas.DataFrame
        One row per series and time, with the columns `group`, `time`, "prediction" and quantiles
        such as "q0.1"; with several targets also "target". Each symmetric pair of quantiles is
        drawn as a band.
    time : str
        Column of the times, in the user's form. Those with a zone are drawn in it.
    target : str or sequence of str
        Column or columns that were forecast.
    group : sequence of str, default ()
        Columns that identify the series.
    actual : pandas.DataFrame, optional
        The truth of the forecast, in the form of `history`.
    series : optional
        Series to draw: one key or a list of keys, each a value of the group column or a tuple of
        values of several. Default: the first six.
    title : str, optional
        Replaces "Forecast of (target), (h) steps ahead".

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot. In a notebook it is shown as the last value of a cell.

    Raises
    ------
    InputError
        If there is no such series, or no forecast.

    Examples
    --------
    >>> history = pd.DataFrame({"month": ["2024-01", "2024-02"], "sales": [5.0, 6.0]})
    >>> forecast = pd.DataFrame({"month": ["2024-03"], "prediction": [6.5]})
    >>> figure = plot_forecast(history, forecast, time="month", target="sales")
    >>> figure.get_suptitle(), figure.axes[0].get_ylabel()
    ('Forecast of sales, 1 step ahead', 'sales')
    """
    tables = [history] if actual is None else [history, actual]
    truth, group, value = stack_targets(pd.concat(tables), time, target, group)
    keys, total = choose_series(forecast, group, series)
    longest = 1

    def draw(axes: Any, key: tuple, label: str) -> tuple[DrawnTimes, np.ndarray]:
        nonlocal longest
        known = rows_of(truth, group, key)
        ahead = rows_of(forecast, group, key)
        longest = max(longest, len(ahead))
        times = drawn_times(pd.concat([known[time], ahead[time]]), origin=len(known))
        x, x_ahead = np.split(times.numbers, [len(known)])
        order = np.argsort(x_ahead, kind="stable")
        ahead, x_ahead = ahead.iloc[order], x_ahead[order]
        x, y = _sorted_values(x, values_of(known, value))
        is_past = x < x_ahead[0]
        past = x[is_past][-_history_length(len(ahead)) :]
        begin = past[-1] if len(past) else x_ahead[0]
        if len(past):
            draw_line(axes, past, y[is_past][-len(past) :], HISTORY)
        draw_forecast(axes, x_ahead, ahead, begin, label=label)
        is_ahead = ~is_past & (x <= x_ahead[-1]) & ~np.isnan(y)
        if is_ahead.any():
            axes.plot(x[is_ahead], y[is_ahead], **TRUTH)
        return times, np.append(past, x_ahead)

    label = name_forecast(forecast)
    figure = draw_panels(
        keys, group, time, target, lambda axes, key: draw(axes, key, label), total
    )
    steps = "1 step" if longest == 1 else f"{longest} steps"
    name = f"Forecast of {name_targets(target)}, {steps} ahead" if title is None else plain(title)
    finish_figure(figure, name + count_series(len(keys), total, chosen=series is not None))
    return figure


def draw_panels(
    keys: list[tuple],
    group: Sequence[str],
    time: str,
    target: str | Sequence[str],
    draw: Callable[[Any, tuple], tuple[DrawnTimes, np.ndarray]],
    total: int,
) -> Any:
    """Draw one panel per series, with its name and axes.

    `draw` draws the series of a key, and returns the times and which of their numbers it drew.
    """
    count = len(keys)
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    figure, panels = make_figure(-(-count // columns), columns)
    for number, axes in enumerate(panels):
        if number >= count:
            axes.set_visible(False)
            continue
        key = keys[number]
        times, drawn = draw(axes, key)
        times.set_ticks(axes, drawn, _MAX_TICKS[columns])
        if group:
            name = label_of(group, key)
            axes.set_title(plain(name, _MAX_TITLE_LENGTH[columns]), loc="left", fontsize=10)
        if number % columns == 0:
            several = not isinstance(target, str) and len(target) > 1
            axes.set_ylabel(plain(MELTED_VALUE if several else name_one(target), _MAX_LABEL_LENGTH))
        if number + columns >= count:
            axis_label = times.axis_label(plain(time, _MAX_LABEL_LENGTH))
            axes.set_xlabel(axis_label, loc="left")
    return figure


def stack_targets(
    table: pd.DataFrame, time: str, target: str | Sequence[str], group: Sequence[str]
) -> tuple[pd.DataFrame, list[str], str]:
    """Put several targets below each other; return table, columns of a series, and of the values.

    A table that has the column "target" already is returned as it is.
    """
    if isinstance(target, str) or len(target) == 1:
        return table, list(group), name_one(target)
    stacked = [*group, MELTED_TARGET]
    if MELTED_TARGET in table.columns and MELTED_VALUE in table.columns:
        return table, stacked, MELTED_VALUE
    long = table.melt(
        [*group, time], list(target), var_name=MELTED_TARGET, value_name=MELTED_VALUE
    )
    return long, stacked, MELTED_VALUE


def name_one(target: str | Sequence[str]) -> str:
    """Return the only target."""
    return target if isinstance(target, str) else target[0]


def name_targets(target: str | Sequence[str]) -> str:
    """Name up to three targets for a title."""
    names = [target] if isinstance(target, str) else list(target)
    shown = [plain(name, 40) for name in names[:3]]
    if len(names) > 3:
        return ", ".join(shown) + ", ..."
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def count_series(drawn: int, total: int, *, chosen: bool) -> str:
    """Say which part of the series is drawn: ", first 6 of 120 series"; nothing for all of them."""
    if drawn == total:
        return ""
    return f", {'' if chosen else 'first '}{drawn} of {total:,} series"


def _sorted_values(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by time; of two values at one time, the known one counts."""
    order = np.lexsort((~np.isnan(y), x))
    x, y = x[order], y[order]
    last = np.append(x[1:] != x[:-1], True)[: len(x)]
    return x[last], y[last]


def _history_length(horizon: int) -> int:
    """Return how many steps of history to draw."""
    return max(_HORIZONS_OF_HISTORY * horizon, _MIN_HISTORY)
