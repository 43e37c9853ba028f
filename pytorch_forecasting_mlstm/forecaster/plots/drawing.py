"""Parts of plots of forecasts: figure, colors, lines, bands, and the format of their numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ..._messages import printable
from ..tables.quantile_columns import quantile_columns, symmetric_intervals

# Okabe and Ito's colors, which the color-blind can distinguish; line styles and markers help in
# gray.
BLUE = "#0072B2"
CUTOFF_COLORS = (BLUE, "#009E73", "#CC79A7", "#56B4E9")
HISTORY = {"label": "history", "color": "#555555", "linewidth": 1.4}
TRUTH_LINE = {"label": "actual", "color": "black", "linewidth": 0.9, "zorder": 3.5}
TRUTH = {
    "label": "actual",
    "color": "black",
    "linestyle": "none",
    "marker": "o",
    "markersize": 3.2,
    "markerfacecolor": "white",
    "markeredgewidth": 0.9,
    "zorder": 4,
}
FORECAST = {"color": BLUE, "linewidth": 1.8, "zorder": 3}
BASELINES = (
    {"color": "#D55E00", "linewidth": 1.3, "linestyle": (0, (4, 2)), "zorder": 2},
    {"color": "#E69F00", "linewidth": 1.3, "linestyle": (0, (4, 1.5, 1, 1.5)), "zorder": 2},
)
BANDS = ("#D3E9F6", "#A9D3EC", "#68AFDA")  # widest to narrowest
_BEGIN = {"color": "#555555", "linewidth": 0.8, "linestyle": ":"}
_SINGLE_STEP = 0.3  # half the width of the band of a single step, in steps
_LEGEND_WIDTH, _LEGEND_HANDLE = 124, 8  # characters


def make_figure(rows: int, columns: int) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, row by row."""
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


def finish_figure(figure: Any, title: str) -> None:
    """Add the title, and one legend for all panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        if axes.get_visible():
            format_values(axes)
            handles, labels = axes.get_legend_handles_labels()
            for label, handle in zip(labels, handles, strict=True):
                entries.setdefault(label, handle)
    first = [name for name in (HISTORY["label"], TRUTH["label"]) if name in entries]
    labels = [*first, *(name for name in entries if name not in first)]
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.legend(
        [entries[name] for name in labels],
        labels,
        loc="outside lower left",
        ncols=_legend_columns(labels),
        frameon=False,
    )


def _legend_columns(labels: list[str]) -> int:
    """Return how many columns of labels fit side by side, for rows of about equal length."""
    lengths = np.array([len(label) for label in labels])
    for columns in range(len(labels), 1, -1):
        columns = -(-len(labels) // -(-len(labels) // columns))
        # matplotlib fills the legend by column, the first ones with one label more
        widths = [part.max() + _LEGEND_HANDLE for part in np.array_split(lengths, columns)]
        if sum(widths) <= _LEGEND_WIDTH:
            return columns
    return 1


def draw_line(axes: Any, x: np.ndarray, y: np.ndarray, style: dict[str, Any]) -> None:
    """Draw a line, with a dot for each value that has no neighbor to be connected with."""
    known = np.append(np.append(False, np.isfinite(y)), False)
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    dots = {
        "color": style["color"],
        "zorder": style.get("zorder", 2),
        "linestyle": "none",
        "marker": "o",
        "markersize": 4,
    }
    if alone.any() and alone.sum() == known.sum():  # nothing but dots
        axes.plot(x[alone], y[alone], **dots, label=style.get("label"))
        return
    axes.plot(x, y, **style)
    if alone.any():
        axes.plot(x[alone], y[alone], **dots)


def draw_forecast(
    axes: Any,
    x: np.ndarray,
    forecast: pd.DataFrame,
    begin: float,
    *,
    label: str,
    color: str = BLUE,
    transparent: bool = False,
) -> None:
    """Draw prediction, bands and other quantiles of one series from one origin.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The panel.
    x : numpy.ndarray
        (h,): times as numbers.
    forecast : pandas.DataFrame
        (h rows): "prediction" and quantiles.
    begin : float
        Last time that the model knew, where a line separates history and forecast.
    label : str
        Name of the prediction in the legend.
    color : str
        Color of the prediction.
    transparent : bool, default False
        Draw the widest band only, in the color of the prediction, over bands of other origins.
    """
    intervals, quantiles = symmetric_intervals(forecast), quantile_columns(forecast)
    if transparent:
        bands = {intervals[0]: {"color": color, "alpha": 0.16}} if intervals else {}
    else:
        bands = {
            interval: {"color": _band_color(k, len(intervals))}
            for k, interval in enumerate(intervals)
        }
    for k, ((low, high, coverage), style) in enumerate(bands.items()):
        edges = np.array([x, values_of(forecast, low), values_of(forecast, high)])
        if len(x) == 1:  # an area needs two times
            width = _SINGLE_STEP * (abs(x[0] - begin) or 1.0)
            edges = np.hstack([edges - [[width], [0], [0]], edges + [[width], [0], [0]]])
        name = f"{100 * coverage:.4g} % interval"
        axes.fill_between(*edges, linewidth=0, label=name, zorder=1 + k / 100, **style)
    paired = {name for interval in intervals for name in interval[:2]}
    for name, level in quantiles.items():
        if name not in paired and level != 0.5:
            style = {"color": color, "linewidth": 1.0, "linestyle": ":", "zorder": 2}
            label_of_quantile = f"{100 * level:.4g} % quantile"
            draw_line(axes, x, values_of(forecast, name), {**style, "label": label_of_quantile})
    style = {**FORECAST, "color": color, "label": label}
    draw_line(axes, x, values_of(forecast, "prediction"), style)
    axes.axvline(begin, **{**_BEGIN, "color": color if transparent else _BEGIN["color"]})


def name_forecast(forecast: pd.DataFrame) -> str:
    """Return "forecast (median)" if the prediction is the median, else "forecast"."""
    if "q0.5" not in forecast.columns:
        return "forecast"
    point, median = values_of(forecast, "prediction"), values_of(forecast, "q0.5")
    is_median = np.allclose(point, median, rtol=1e-6, atol=0, equal_nan=True)
    return "forecast (median)" if is_median else "forecast"


def values_of(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as float64, with NaN for missing values."""
    return table[column].to_numpy("float64", na_value=np.nan)


def plain(text: object, max_length: int = 80) -> str:
    """Truncate a text, and escape the dollar signs that would start a formula."""
    return printable(text, max_length).replace("$", r"\$")


def format_values(axes: Any) -> None:
    """Write the numbers of the vertical axis in as many digits as tell its ticks apart."""
    from matplotlib import ticker

    def format_tick(value: float, _: int | None = None) -> str:
        ticks = axes.yaxis.get_majorticklocs()
        step = float(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
        largest = float(np.abs(ticks).max()) if len(ticks) else abs(value)
        return format_number(value, step, largest or 1.0).replace("-", "\N{MINUS SIGN}")

    axes.yaxis.set_major_formatter(ticker.FuncFormatter(format_tick))


def format_number(value: float, step: float, largest: float) -> str:
    """Format a tick so that it differs from those `step` away, up to `largest`.

    Examples
    --------
    >>> format_number(2500, 500, 3000), format_number(2.5e9, 5e8, 3e9), format_number(0.5, 0.25, 1)
    ('2,500', '2.5e9', '0.50')
    >>> format_number(1000000002, 1, 1000000005), format_number(-2e-7, 1e-7, 5e-7)
    ('1,000,000,002', '-2e-7')
    """
    if abs(value) < step / 1e6:
        return "0"
    exponent = math.floor(math.log10(largest))
    digits = exponent - math.floor(math.log10(step))
    if (exponent >= 6 and digits < 4) or exponent < -3:
        unit = 10.0**exponent
        return f"{_format_decimals(value / unit, step / unit)}e{exponent}"
    return _format_decimals(value, step)


def _format_decimals(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals % 1 - 0.5) < 1e-6:  # such as 2.5 or 0.25
        decimals += 1
    return f"{value:,.{decimals}f}"


def _band_color(number: int, count: int) -> str:
    """Return the color of a band: the narrower, the darker."""
    if count <= len(BANDS):
        return BANDS[len(BANDS) - count :][number]
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    return to_hex(LinearSegmentedColormap.from_list("bands", BANDS)(number / (count - 1)))
