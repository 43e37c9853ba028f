"""The panels of a plot, one per series, with their names, axes and title."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .chosen_series import label_of
from .drawing import make_figure, plain
from .drawn_times import DrawnTimes

MELTED_TARGET, MELTED_VALUE = "target", "value"  # columns of several targets below each other

_HORIZONS_OF_HISTORY = 2
_MIN_HISTORY = 12  # steps, for short horizons
_MAX_TITLE_LENGTH = {1: 100, 2: 56, 3: 38}  # characters, by columns of panels
_MAX_TICKS = {1: 9, 2: 6, 3: 4}
_MAX_LABEL_LENGTH = 32


def draw_panels(
    keys: list[tuple],
    group: Sequence[str],
    time: str,
    target: str | Sequence[str],
    draw: Callable[[Any, tuple], tuple[DrawnTimes, np.ndarray]],
) -> Any:
    """Draw one panel per series, with its name and axes.

    `draw` draws the series of a key, and returns the times and which of their numbers it drew.
    """
    count = len(keys)
    columns = panel_columns(count)
    figure, panels = make_figure(-(-count // columns), columns)
    for number, axes in enumerate(panels):
        if number >= count:
            axes.set_visible(False)
            continue
        key = keys[number]
        times, drawn = draw(axes, key)
        times.set_ticks(axes, drawn, _MAX_TICKS[columns])
        if group:
            name = label_of(group, key, _MAX_TITLE_LENGTH[columns])
            axes.set_title(plain(name, 100), loc="left", fontsize=10)
        if number % columns == 0:
            several = not isinstance(target, str) and len(target) > 1
            axes.set_ylabel(plain(MELTED_VALUE if several else name_one(target), _MAX_LABEL_LENGTH))
        if number + columns >= count:
            axis_label = times.axis_label(plain(time, _MAX_LABEL_LENGTH))
            axes.set_xlabel(axis_label, loc="left")
    return figure


def panel_columns(count: int) -> int:
    """Return how many panels stand side by side."""
    return 1 if count == 1 else 2 if count <= 4 else 3


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
    long = table.melt([*group, time], list(target), var_name=MELTED_TARGET, value_name=MELTED_VALUE)
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


def sort_values(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by time; of two values at one time, the known one counts."""
    order = np.lexsort((~np.isnan(y), x))
    x, y = x[order], y[order]
    last = np.append(x[1:] != x[:-1], True)[: len(x)]
    return x[last], y[last]


def history_length(horizon: int) -> int:
    """Return how many steps of history to draw."""
    return max(_HORIZONS_OF_HISTORY * horizon, _MIN_HISTORY)
