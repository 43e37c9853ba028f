"""Positions and times, against date ranges of pandas."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.tseries.frequencies import to_offset

from helpers.times import INT
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.times.time_axis import TimeAxis


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


@pytest.mark.parametrize(
    "freq",
    "D 2D B W-WED MS ME QS-FEB QE-DEC BMS BME YS-JAN WOM-2MON h bh 7min 25h 700ns m3".split(),
)
def test_time_axis_place_earlier_and_later_times(freq: str) -> None:
    """An older table continues the positions before 0, a newer one those beyond the end."""
    step = pd.DateOffset(months=3) if freq == "m3" else to_offset(freq)
    dates = pd.date_range("2019-01-15", periods=100, freq=step)
    axis = TimeAxis(dates[40], step)
    assert axis.place(pd.Series(dates)).tolist() == list(range(-40, 60))
    assert axis.at(np.arange(-40, 60)).tolist() == dates.tolist()
    restored = TimeAxis.from_dict(json.loads(json.dumps(axis.to_dict())))
    assert restored == axis
    assert restored.at(np.arange(60)).tolist() == dates[40:].tolist()


def test_time_axis_place_ends_of_months_and_leap_days() -> None:
    """Before the start, the 31st is the last day of shorter months."""
    axis = TimeAxis(pd.Timestamp("2024-03-31"), pd.offsets.MonthEnd())
    ends = pd.Series(pd.to_datetime(["2023-02-28", "2024-02-29", "2024-03-31", "2024-04-30"]))
    assert axis.place(ends).tolist() == [-13, -1, 0, 1]
    axis = TimeAxis(pd.Timestamp("2024-03-31"), pd.DateOffset(months=1))
    assert axis.place(ends[1:]).tolist() == [-1, 0, 1]
    axis = TimeAxis(pd.Timestamp("2024-02-29"), pd.offsets.MonthEnd(12))
    leap = pd.Series(pd.to_datetime(["2020-02-29", "2023-02-28", "2028-02-29"]))
    assert axis.place(leap).tolist() == [-4, -1, 4]


@pytest.mark.parametrize("week", [None, "1111001", "1010100", "1111111"])
def test_time_axis_skips_closed_days(week: str | None) -> None:
    """As custom business days of pandas do."""
    names = np.array("Mon Tue Wed Thu Fri Sat Sun".split())
    open_days = names[np.array(list(week or "1111100")) == "1"]
    holidays = ("2024-05-01", "2024-05-03", "2024-05-04", "2024-12-25")
    custom = pd.offsets.CustomBusinessDay(weekmask=" ".join(open_days), holidays=holidays)
    days = pd.date_range("2023-12-29", periods=400, freq=custom)
    axis = TimeAxis(days[100], pd.offsets.BusinessDay(), holidays, week)
    assert axis.place(pd.Series(days)).tolist() == list(range(-100, 300))
    assert axis.at(np.arange(-100, 300)).tolist() == days.tolist()
    closed = pd.date_range(days[0], days[-1]).difference(days)
    assert (axis.positions(pd.Series(closed)) == -1).all()
    assert TimeAxis.from_dict(json.loads(json.dumps(axis.to_dict()))) == axis


def test_time_axis_seasons_count_open_steps() -> None:
    start = pd.Timestamp("2024-01-01")
    assert TimeAxis(start, to_offset("B")).seasons == {"52 weeks": 260, "1 week": 5}
    assert TimeAxis(start, to_offset("B"), ("2024-01-02",)).seasons == {"1 week": 5}
    hours = TimeAxis(pd.Timestamp("2024-01-01 09:00"), to_offset("bh"))
    assert (hours.name, hours.seasons) == ("business hours", {"1 week": 40, "1 day": 8})
    six_days = TimeAxis(start, to_offset("B"), week="1111110")
    assert (six_days.name, six_days.seasons) == ("6 days a week", {"52 weeks": 312, "1 week": 6})


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            ["2024-01-03", "2024-01-03 12:00"],
            "2024-01-03 12:00:00 in row 2 does not fit the spacing",
        ),
        (
            ["2023-12-31 01:00", "2023-12-30 01:00"],
            "in row 1 does not fit the spacing of the fitted "
            "table (daily, from 2024-01-01 00:00:00); 2 such rows",
        ),
        ([5, 6], "the times are whole numbers, but were dates in the fitted table"),
    ],
)
def test_time_axis_place_names_times_off_the_axis(times: list[Any], message: str) -> None:
    axis = TimeAxis(pd.Timestamp("2024-01-01"), pd.Timedelta(days=1))
    column = pd.Series(times, name="when")
    if not isinstance(times[0], int):
        column = pd.to_datetime(column, format="ISO8601")
    with pytest.raises(InputError) as error:
        axis.place(column)
    assert "column 'when': " in str(error.value)
    assert message in str(error.value)


def test_time_axis_place_integers_of_any_size() -> None:
    axis = TimeAxis(0, 10)
    assert axis.place(pd.Series([-(10**18), -10, 0, 10**18])).tolist() == [-(10**17), -1, 0, 10**17]
    with pytest.raises(InputError, match="too far from 0"):
        TimeAxis(0, 1).place(pd.Series([INT.min]))
