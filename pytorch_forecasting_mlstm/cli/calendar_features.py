"""What the calendar says about a time: known in advance, so known over the horizon too."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .time_axis import TimeAxis

_DAY = pd.Timedelta(days=1)


def calendar_features(axis: TimeAxis, length: int, past: int) -> pd.DataFrame:
    """Sines and cosines of the cycles of day, week and year that the spacing resolves.

    A cycle that the past has not shown twice is left out: nothing could be learned about it.

    Parameters
    ----------
    axis : TimeAxis
        The table's times.
    length : int
        Rows of the result: the axis' first `length` times.
    past : int
        Steps of these that have been observed.

    Returns
    -------
    pandas.DataFrame
        One row per time; without columns where the times are whole numbers.
    """
    if axis.counts:
        return pd.DataFrame(index=range(length))
    times = pd.DatetimeIndex(axis.grid(length))
    spacing = axis.spacing()
    seen = past * spacing
    midnight = times.normalize()
    day = (times - midnight) / _DAY
    phases = {
        "day": (1 * _DAY, day, 2),
        "week": (7 * _DAY, (times.dayofweek + day) / 7, 3),
        "year": (365.25 * _DAY, (times.dayofyear - 1 + day) / 365.25, 2),
    }
    columns = {}
    for cycle, (period, phase, harmonics) in phases.items():
        if 2 * spacing <= period and 2 * period <= seen:
            for k in range(1, harmonics + 1):
                if 2 * k * spacing <= period:
                    angle = 2 * np.pi * k * np.asarray(phase, dtype=float)
                    columns[f"{cycle}_sin_{k}"] = np.sin(angle)
                    columns[f"{cycle}_cos_{k}"] = np.cos(angle)
    return pd.DataFrame(columns, index=range(length))
