"""The quantile columns of a forecast."""

from __future__ import annotations

import re

import pandas as pd

_QUANTILE = re.compile(r"q(0?\.\d+(e-\d+)?|\d+e-\d+)")
_SAME_LEVEL = 1e-9  # two levels that differ by less are one: 1 - 0.9 is not exactly 0.1


def quantile_columns(forecasts: pd.DataFrame) -> dict[str, float]:
    """Return the level of each quantile column of a forecast table, lowest first.

    Examples
    --------
    >>> quantile_columns(pd.DataFrame(columns=["store", "q0.9", "q0.1", "quarter", "q2"]))
    {'q0.1': 0.1, 'q0.9': 0.9}
    """
    columns = {
        name: float(name[1:])
        for name in forecasts.columns
        if isinstance(name, str) and _QUANTILE.fullmatch(name)
    }
    return dict(sorted(columns.items(), key=lambda column: column[1]))


def symmetric_intervals(forecasts: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Return lower column, upper column and nominal coverage of each interval, widest first.

    Examples
    --------
    >>> symmetric_intervals(pd.DataFrame(columns=["q0.1", "q0.25", "q0.5", "q0.75", "q0.9"]))
    [('q0.1', 'q0.9', 0.8), ('q0.25', 'q0.75', 0.5)]
    """
    levels = quantile_columns(forecasts)
    return [
        (low, high, round(levels[high] - levels[low], 9))
        for low in levels
        for high in levels
        if levels[low] < 0.5 and abs(levels[low] + levels[high] - 1) < _SAME_LEVEL
    ]
