"""Calendar features: cycles that occur at least twice in the past."""

import numpy as np
import pandas as pd
import pytest

from pytorch_forecasting_mlstm.forecaster.times.calendar_features import calendar_features
from pytorch_forecasting_mlstm.forecaster.times.frequency import infer_frequency
from pytorch_forecasting_mlstm.forecaster.times.time_axis import TimeAxis
from pytorch_forecasting_mlstm.forecaster.times.timestamps import read_times


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


def test_calendar_features_follow_the_local_clock() -> None:
    """The same hour of the local clock has the same features in summer and in winter."""
    hours = pd.date_range("2024-03-01", "2024-04-30", freq="h", tz="Europe/Berlin")
    times, form = read_times(pd.Series(hours))
    axis, positions = infer_frequency(times, np.zeros(len(times), dtype=int), str)
    local = calendar_features(axis, positions, 1000, form)
    noons = local[hours.hour == 12]
    assert np.ptp(noons["day_sin_1"]) < 1e-9
    assert np.allclose(noons["day_cos_1"], -1)
    mondays = local[(hours.hour == 0) & (hours.dayofweek == 0)]
    assert len(mondays) == 9 and np.ptp(mondays["week_sin_2"]) < 1e-9
    assert np.ptp(calendar_features(axis, positions, 1000)[hours.hour == 12]["day_sin_1"]) > 0.2


@pytest.mark.parametrize(
    ("freq", "past", "cycles"),
    [
        ("B", 10, {"week"}),
        ("B", 9, set()),
        ("B", 525, {"week", "year"}),
        ("W-MON", 105, {"year"}),
        ("MS", 24, {"year"}),
        ("QS", 8, {"year"}),
        ("YS", 30, set()),
    ],
)
def test_calendar_features_of_spacings(freq: str, past: int, cycles: set[str]) -> None:
    """The past holds a cycle twice, however many days of it have rows."""
    axis = TimeAxis(pd.Timestamp("2024-01-01"), pd.tseries.frequencies.to_offset(freq))
    features = calendar_features(axis, np.arange(600), past)
    assert {name.split("_")[0] for name in features} == cycles
    assert np.isfinite(features).all().all()
    if freq == "B" and past == 525:
        mondays = axis.at(np.arange(600)).dayofweek == 0
        assert np.ptp(features["week_sin_1"][mondays]) < 1e-9


def test_calendar_features_of_trading_days() -> None:
    """After a holiday, the weekday is right, which no count of rows would tell."""
    axis = TimeAxis(pd.Timestamp("2024-12-02"), pd.offsets.BusinessDay(), ("2024-12-25",))
    features = calendar_features(axis, np.arange(30), past=20)
    mondays = axis.at(np.arange(30)).dayofweek == 0
    assert np.ptp(features["week_cos_1"][mondays]) < 1e-9
