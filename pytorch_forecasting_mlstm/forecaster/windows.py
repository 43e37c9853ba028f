"""Held-out windows: the series and start of each, its history, and its actual values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .panel import Panel
from .splits import Split


@dataclass(frozen=True)
class Windows:
    """Windows of all series, at the same origins in each.

    Attributes
    ----------
    series : numpy.ndarray
        (W,): number of the series.
    origins : numpy.ndarray
        (W,): first forecast step, counted as in `Split`.
    actual : numpy.ndarray
        (W, h): the true values.
    history : list of numpy.ndarray
        All values before each window.
    """

    series: np.ndarray
    origins: np.ndarray
    actual: np.ndarray
    history: list[np.ndarray]


def cut_windows(panel: Panel, split: Split, origins: np.ndarray) -> Windows:
    """Cut the windows that begin at `origins` from every series."""
    series = np.repeat(np.arange(len(panel.values)), len(origins))
    origins = np.tile(origins, len(panel.values))
    begins = origins - (split.end - panel.lengths[series])
    return Windows(
        series=series,
        origins=origins,
        actual=np.stack(
            [panel.values[s][b : b + split.horizon] for s, b in zip(series, begins, strict=True)]
        ),
        history=[panel.values[s][:b] for s, b in zip(series, begins, strict=True)],
    )
