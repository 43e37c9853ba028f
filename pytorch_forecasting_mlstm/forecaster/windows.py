"""Held-out windows: which series, where each begins, what came before, what happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .panel import Table
from .splits import Split


@dataclass(frozen=True)
class Windows:
    """Windows of all series: the same origins for each.

    Attributes
    ----------
    series : numpy.ndarray
        (W,): number of the series.
    origins : numpy.ndarray
        (W,): first forecast step, counted as in `Split`.
    actual : numpy.ndarray
        (W, h): what happened.
    history : list of numpy.ndarray
        All that came before each window.
    """

    series: np.ndarray
    origins: np.ndarray
    actual: np.ndarray
    history: list[np.ndarray]


def cut_windows(table: Table, split: Split, origins: np.ndarray) -> Windows:
    """Cut the windows that begin at `origins` out of every series."""
    series = np.repeat(np.arange(len(table.values)), len(origins))
    origins = np.tile(origins, len(table.values))
    begins = origins - (split.end - table.lengths[series])
    return Windows(
        series=series,
        origins=origins,
        actual=np.stack(
            [table.values[s][b : b + split.horizon] for s, b in zip(series, begins, strict=True)]
        ),
        history=[table.values[s][:b] for s, b in zip(series, begins, strict=True)],
    )
