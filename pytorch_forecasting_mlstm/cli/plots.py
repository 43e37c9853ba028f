"""Draw forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._messages import printable
from ..forecaster.evaluation import Evaluation
from ..forecaster.panel import Panel
from ..forecaster.quantiles import MEDIAN, QUANTILES
from ..forecaster.splits import Split

# Okabe and Ito's colors, which the color-blind can distinguish; line styles and markers help in
# gray.
_HISTORY = {"label": "history", "color": "#555555", "linewidth": 1.4}
_TRUTH = {
    "label": "actual",
    "color": "black",
    "linestyle": "none",
    "marker": "o",
    "markersize": 3.2,
    "markerfacecolor": "white",
    "markeredgewidth": 0.9,
    "zorder": 4,
}
_MEDIAN = {"label": "forecast (median)", "color": "#0072B2", "linewidth": 1.8, "zorder": 3}
_BANDS = ((0.1, 0.9, "#A9D3EC", "80 % interval"), (0.25, 0.75, "#68AFDA", "50 % interval"))
_NAIVE = {
    "label": "seasonal naive",
    "color": "#D55E00",
    "linewidth": 1.3,
    "linestyle": (0, (4, 2)),
    "zorder": 2,
}

_MAX_PANELS = 6
_HORIZONS_OF_HISTORY = 2
_MIN_HISTORY = 12  # steps, for short horizons
_MAX_TITLE_LENGTH = 44  # characters, of a panel
_MAX_DRAWN_INTEGER = 2**50  # well below 2 ** 53, so that there are ticks between two steps


def plot_test_window(
    panel: Panel, split: Split, evaluation: Evaluation, window: int, title: str, path: Path
) -> None:
    """Draw history, forecast, bands, naive forecast and truth of one test window."""
    windows = evaluation.windows
    past = windows.history[window]
    first = int(panel.starts[windows.series[window]]) + len(past)
    past = past[-_history_length(split.horizon) :]
    before, ahead = _times(panel, first, len(past), split.horizon)

    figure, (axes,) = _figure(1, 1)
    _draw(axes, before, past, ahead, evaluation.quantiles[window])
    axes.plot(ahead, windows.actual[window], **_TRUTH)
    axes.plot(ahead, evaluation.naive_point[window], **_NAIVE)
    axes.set_ylabel(_plain(panel.target))
    _finish(figure, axes, _plain(title), path)


def plot_future(panel: Panel, horizon: int, quantiles: np.ndarray, name: str, path: Path) -> None:
    """Draw history and forecast of the first few series; `quantiles` are (series, h, Q)."""
    drawn = min(len(panel.values), _MAX_PANELS)
    columns = 1 if drawn == 1 else 2 if drawn <= 4 else 3
    figure, panels = _figure(-(-drawn // columns), columns)
    for axes in panels[drawn:]:
        axes.set_visible(False)
    for number, axes in enumerate(panels[:drawn]):
        past = panel.values[number]
        first = int(panel.starts[number]) + len(past)
        past = past[-_history_length(horizon) :]
        before, ahead = _times(panel, first, len(past), horizon)
        _draw(axes, before, past, ahead, quantiles[number])
        if not panel.groups.columns.empty:
            axes.set_title(_plain(panel.label(number), _MAX_TITLE_LENGTH), loc="left", fontsize=10)
        if number % columns == 0:
            axes.set_ylabel(_plain(panel.target))
    title = f"{_plain(name)}: {horizon} steps ahead"
    if drawn < len(panel.values):
        title += f", first {drawn} of {len(panel.values):,} series"
    _finish(figure, panels[0], title, path)


def _history_length(horizon: int) -> int:
    """Return how many steps of history to draw."""
    return max(_HORIZONS_OF_HISTORY * horizon, _MIN_HISTORY)


def _figure(rows: int, columns: int) -> tuple[Any, list[Any]]:
    # Not pyplot: it would look for a display and keep the figure open.
    from matplotlib.figure import Figure

    height = 4.6 if rows == 1 else 0.9 + 2.9 * rows
    figure = Figure(figsize=(10.8, height), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def _times(panel: Panel, first: int, past: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of the history before position `first`, and of the forecast from there.

    Integers that are too large for matplotlib, which draws floats, count from the forecast.
    """
    times = panel.axis.at(np.arange(first - past, first + ahead))
    if panel.axis.is_integer and max(abs(int(times[0])), abs(int(times[-1]))) > _MAX_DRAWN_INTEGER:
        times = times - times[past]
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        times = times.tz_localize(None)
    return times[:past].to_numpy(), times[past:].to_numpy()


def _draw(
    axes: Any, before: np.ndarray, past: np.ndarray, ahead: np.ndarray, quantiles: np.ndarray
) -> None:
    """Draw the history, and median and bands of the forecast, with readable axes."""
    from matplotlib import dates, ticker

    axes.plot(before, past, **_HISTORY)
    axes.plot(ahead, quantiles[:, MEDIAN], **_MEDIAN)
    for low, high, color, label in _BANDS:
        edges = (quantiles[:, QUANTILES.index(level)] for level in (low, high))
        axes.fill_between(ahead, *edges, color=color, linewidth=0, label=label, zorder=1)
    axes.axvline(ahead[0], color="#555555", linewidth=0.8, linestyle=":")
    axes.margins(x=0.01)
    if np.issubdtype(before.dtype, np.datetime64):
        locator = dates.AutoDateLocator(minticks=3, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=7))
    low, high = axes.get_ylim()
    if max(abs(low), abs(high)) >= 1000 and high - low >= 10:
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _plain(text: str, max_length: int = 80) -> str:
    """Truncate a text, and escape the dollar signs that would start a formula."""
    return printable(text, max_length).replace("$", r"\$")


def _finish(figure: Any, axes: Any, title: str, path: Path) -> None:
    """Add title and legend, and write a PNG file, whatever the suffix of `path`."""
    handles, labels = axes.get_legend_handles_labels()
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False)
    figure.savefig(path, format="png")
