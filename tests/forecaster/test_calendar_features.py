"""Calendar features: cycles that occur at least twice in the past."""

import numpy as np
import pandas as pd

from pytorch_forecasting_mlstm.forecaster.calendar_features import calendar_features
from pytorch_forecasting_mlstm.forecaster.time_axis import TimeAxis


def test_calendar_features_cover_cycles_that_occur_twice() -> None:
    """Every feature repeats exactly, and none is constant."""
    hourly = TimeAxis(pd.Timestamp("2024-01-01"), pd.tseries.frequencies.to_offset("h"))
    month = calendar_features(hourly, np.arange(24 * 35), past=24 * 28)
    assert {name.split("_")[0] for name in month} == {"day", "week"}
    for name in month:
        period = 24 if name.startswith("day") else 168
        assert np.allclose(month[name][period:], month[name][:-period], atol=1e-9)
        assert month[name].std() > 0.5
    assert set(calendar_features(hourly, np.arange(100), past=72)) == {
        "day_sin_1",
        "day_cos_1",
        "day_sin_2",
        "day_cos_2",
    }
    monthly = TimeAxis(pd.Timestamp("2020-01-31"), pd.offsets.MonthEnd())
    assert set(calendar_features(monthly, np.arange(40), past=36)) == {
        "year_sin_1",
        "year_cos_1",
        "year_sin_2",
        "year_cos_2",
    }
    assert calendar_features(monthly, np.arange(40), past=23).empty
    assert calendar_features(TimeAxis(0, 1), np.arange(40), past=30).shape == (40, 0)
