"""The data of the demo, as a panel."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .panel import Panel
from .time_axis import TimeAxis


def electricity_demand() -> Panel:
    """Half-hourly electricity demand of England and Wales, 5 June to 27 August 2000, in MW.

    Included in pmdarima, so nothing is downloaded. Discussed in J. W. Taylor, "Short-term
    electricity demand forecasting using double seasonal exponential smoothing", Journal of the
    Operational Research Society 54 (2003).
    """
    from pmdarima.datasets import load_taylor

    return Panel(
        time="time",
        target="demand (MW)",
        axis=TimeAxis(pd.Timestamp("2000-06-05 00:00"), pd.tseries.frequencies.to_offset("30min")),
        groups=pd.DataFrame(index=[0]),
        values=[np.asarray(load_taylor(), dtype=float)],
        starts=np.array([0]),
    )
