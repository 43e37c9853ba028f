"""The data of the demo, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd


def electricity_demand() -> pd.DataFrame:
    """Half-hourly electricity demand of England and Wales, 5 June to 27 August 2000, in MW.

    Included in pmdarima, so nothing is downloaded. Discussed in J. W. Taylor, "Short-term
    electricity demand forecasting using double seasonal exponential smoothing", Journal of the
    Operational Research Society 54 (2003).

    Returns
    -------
    pandas.DataFrame
        4,032 rows with the columns "time" and "demand (MW)".
    """
    from pmdarima.datasets import load_taylor

    demand = np.asarray(load_taylor(), dtype=float)
    times = pd.date_range("2000-06-05", periods=len(demand), freq="30min")
    return pd.DataFrame({"time": times, "demand (MW)": demand})
