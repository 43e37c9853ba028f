"""Real data for the demo, carried by a package: nothing is downloaded."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..forecaster.frequency import TimeAxis
from ..forecaster.panel import Table
from .extras import require


def electricity_demand() -> Table:
    """Half-hourly electricity demand of England and Wales, 5 June to 27 August 2000, in MW.

    From pmdarima; discussed in J. W. Taylor, "Short-term electricity demand forecasting using
    double seasonal exponential smoothing", Journal of the Operational Research Society 54 (2003).

    Raises
    ------
    UserError
        pmdarima is not installed.
    """
    require("pmdarima")
    from pmdarima.datasets import load_taylor

    return Table(
        name="Electricity demand, England and Wales",
        time="time",
        target="demand (MW)",
        axis=TimeAxis(pd.Timestamp("2000-06-05 00:00"), pd.tseries.frequencies.to_offset("30min")),
        groups=pd.DataFrame(index=[0]),
        values=[np.asarray(load_taylor(), dtype=float)],
        starts=np.array([0]),
    )
