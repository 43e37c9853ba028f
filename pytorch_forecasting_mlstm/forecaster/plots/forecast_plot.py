"""Plots of forecasts, one panel per series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .chosen_series import choose_series, rows_of
from .drawing import (
    HISTORY,
    TRUTH,
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
    sort_values,
    stack_targets,
)


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
        x, y = sort_values(x, values_of(known, value))
        is_past = x < x_ahead[0]
        past = x[is_past][-history_length(len(ahead)) :]
        begin = past[-1] if len(past) else x_ahead[0]
        if len(past):
            draw_line(axes, past, y[is_past][-len(past) :], HISTORY)
        draw_forecast(axes, x_ahead, ahead, begin, label=label)
        is_ahead = ~is_past & (x <= x_ahead[-1]) & ~np.isnan(y)
        if is_ahead.any():
            axes.plot(x[is_ahead], y[is_ahead], **TRUTH)
        return times, np.append(past, x_ahead)

    label = name_forecast(forecast)
    figure = draw_panels(keys, group, time, target, lambda axes, key: draw(axes, key, label))
    steps = "1 step" if longest == 1 else f"{longest} steps"
    name = (
        f"Forecast of {name_targets(target)}, {steps} ahead" if title is None else plain(title, 110)
    )
    finish_figure(figure, name + count_series(len(keys), total, chosen=series is not None))
    return figure
