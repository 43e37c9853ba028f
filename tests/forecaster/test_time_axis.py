"""Positions and times, against date ranges of pandas."""

import numpy as np
import pandas as pd
import pytest
from pandas.tseries.frequencies import to_offset

from helpers.times import INT
from pytorch_forecasting_mlstm.forecaster.time_axis import TimeAxis


@pytest.mark.parametrize(
    "freq",
    """D 2D 10D B W-SUN W-WED 2W-MON MS ME 2MS 3ME BMS BME 2BME QS-JAN QS-FEB QE-DEC 2QE-NOV BQS-JAN
    BQE-JAN YS-JAN YE-JUN 2YS-JAN BYS-JAN BYE-DEC WOM-2MON WOM-4FRI h 3h bh 30min 7min s 250ms 13us
    700ns 25h m1 m3""".split(),
)
@pytest.mark.parametrize(
    "start", ["2019-01-15", "2020-02-29", "2019-01-30", "2019-01-31", "2020-01-01 09:30"]
)
def test_time_axis_positions_and_times_of_a_list(freq: str, start: str) -> None:
    step = pd.DateOffset(months=int(freq[1])) if freq in ("m1", "m3") else to_offset(freq)
    dates = pd.date_range(start, periods=100, freq=step)
    axis = TimeAxis(dates[0], step)
    for positions in (np.arange(100), np.array([99, 0, 7, 7]), np.array([], dtype=int)):
        assert axis.at(positions).tolist() == dates[positions].tolist()
    assert (axis.positions(pd.Series(dates)) == np.arange(100)).all()
    # Times between two dates, and before the first.
    between = pd.Series(dates + (dates[1] - dates[0]) / 2).drop_duplicates()
    between = between[~between.isin(dates)]
    assert (axis.positions(between) == -1).all()
    before = pd.Series([dates[0] - pd.Timedelta(days=1), dates[0] - pd.Timedelta(days=400)])
    assert (axis.positions(before) == -1).all()


def test_time_axis_integers_are_exact() -> None:
    axis = TimeAxis(INT.min, 10**10)
    times = pd.Series([INT.min, INT.min + 10**10, INT.min + 3 * 10**18, INT.min + 5, INT.max])
    assert axis.positions(times).tolist() == [0, 1, 3 * 10**8, -1, -1]
    assert axis.at(np.array([0, 10**9])).tolist() == [INT.min, INT.min + 10**19]
    with pytest.raises(OverflowError):
        TimeAxis(INT.min, 1).positions(times)
