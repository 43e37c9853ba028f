"""Calendar features: known in advance, and therefore known over the horizon too."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .steps import PER_DAY
from .time_axis import TimeAxis
from .time_format import TimeFormat


def calendar_features(
    axis: TimeAxis, positions: np.ndarray, past: int, time_format: TimeFormat | None = None
) -> pd.DataFrame:
    """Return sines and cosines of the daily, weekly and yearly cycles that the spacing resolves.

    A cycle that the past does not contain twice is omitted, because it cannot be learned.

    Parameters
    ----------
    axis : TimeAxis
        The times.
    positions : numpy.ndarray
        Positions on the axis, one per row of the result.
    past : int
        Observed steps.
    time_format : TimeFormat, optional
        From `read_times`. If it knows a zone, the cycles follow the local clock, as people do: in
        UTC, their hours would shift with summer time. Default: the times as they are.

    Returns
    -------
    pandas.DataFrame
        One row per position; no columns if the times are integers.
    """
    if axis.is_integer:
        return pd.DataFrame(index=range(len(positions)))
    unique, rows = np.unique(positions, return_inverse=True)  # series share most of their times
    times = pd.DatetimeIndex(axis.at(unique))
    if time_format is not None:
        times = time_format.local_times(times).as_unit(axis.unit)
    spacing, whole_day = axis.spacing, PER_DAY[axis.unit]
    # Business days are one day apart, but 260 of them are a year. Two years of months and quarters
    # may be shorter by some hours than those of the formula.
    observed = past * max(spacing, axis.mean_spacing) + spacing / 2
    day = times.asi8 % whole_day / whole_day
    cycles = {
        "day": (whole_day, day, 2),
        "week": (7 * whole_day, (times.dayofweek + day) / 7, 3),
        "year": (365.25 * whole_day, (times.dayofyear - 1 + day) / 365.25, 2),
    }
    columns = {}
    for name, (period, phase, harmonics) in cycles.items():
        if 2 * spacing <= period and 2 * period <= observed:
            for k in range(1, harmonics + 1):
                if 2 * k * spacing <= period:
                    angle = 2 * np.pi * k * np.asarray(phase, dtype=float)
                    columns[f"{name}_sin_{k}"] = np.sin(angle)[rows]
                    columns[f"{name}_cos_{k}"] = np.cos(angle)[rows]
    return pd.DataFrame(columns, index=range(len(positions)))
