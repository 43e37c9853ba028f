"""What the calendar says about a time: known in advance, so known over the horizon too."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .frequency import TimeAxis
from .steps import PER_DAY


def calendar_features(axis: TimeAxis, positions: np.ndarray, past: int) -> pd.DataFrame:
    """Sines and cosines of the cycles of day, week and year that the spacing resolves.

    A cycle that the past has not shown twice is left out: nothing could be learned about it.

    Parameters
    ----------
    axis : TimeAxis
        The table's times.
    positions : numpy.ndarray
        Which of the axis' times, one per row of the result.
    past : int
        Steps that have been observed.

    Returns
    -------
    pandas.DataFrame
        One row per position; without columns where the times are whole numbers.
    """
    if axis.counts:
        return pd.DataFrame(index=range(len(positions)))
    unique, place = np.unique(positions, return_inverse=True)  # series share most of their times
    times = pd.DatetimeIndex(axis.at(unique))
    spacing, whole_day = axis.spacing, PER_DAY[axis.unit]
    seen = past * spacing
    day = times.asi8 % whole_day / whole_day
    phases = {
        "day": (whole_day, day, 2),
        "week": (7 * whole_day, (times.dayofweek + day) / 7, 3),
        "year": (365.25 * whole_day, (times.dayofyear - 1 + day) / 365.25, 2),
    }
    columns = {}
    for cycle, (period, phase, harmonics) in phases.items():
        if 2 * spacing <= period and 2 * period <= seen:
            for k in range(1, harmonics + 1):
                if 2 * k * spacing <= period:
                    angle = 2 * np.pi * k * np.asarray(phase, dtype=float)
                    columns[f"{cycle}_sin_{k}"] = np.sin(angle)[place]
                    columns[f"{cycle}_cos_{k}"] = np.cos(angle)[place]
    return pd.DataFrame(columns, index=range(len(positions)))
