"""Times of users as numbers on an axis, and ticks that can be read."""

import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from matplotlib import dates
from matplotlib.figure import Figure

from helpers.products import spread
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.plots.drawn_times import drawn_times

MONTHS = pd.date_range("2023-11-01", periods=4, freq="MS")
QUARTERS = pd.date_range("2023-07-01", periods=4, freq="QS")
MONDAYS = pd.date_range("2023-12-18", periods=4, freq="7D")
BERLIN = pd.date_range("2024-03-31 00:00", periods=4, freq="h", tz="Europe/Berlin")


def days(times: pd.DatetimeIndex) -> np.ndarray:
    return dates.date2num(times.tz_convert("UTC").tz_localize(None) if times.tz else times)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (MONTHS, MONTHS),
        (MONTHS.to_period("M"), MONTHS),
        (list(MONTHS.to_period("M")), MONTHS),
        (["2023-11", "2023-12", "2024-01", "2024-02"], MONTHS),
        ([202311, 202312, 202401, 202402], MONTHS),
        (list(MONTHS.date), MONTHS),
        (list(MONTHS.to_pydatetime()), MONTHS),
        (["20231101", "20231201", "20240101", "20240201"], MONTHS),
        (["2023Q3", "2023Q4", "2024Q1", "2024Q2"], QUARTERS),
        (["2023-q3", "2023-q4", "2024-q1", "2024-q2"], QUARTERS),
        (QUARTERS.to_period("Q"), QUARTERS),
        (["2023-W51", "2023-W52", "2024-W01", "2024-W02"], MONDAYS),
        (BERLIN, BERLIN),
        (list(BERLIN.to_pydatetime()), BERLIN),
        (
            ["2024-03-31 00:00+01:00", "2024-03-31 01:00+01:00", "2024-03-31 03:00+02:00"],
            BERLIN[:3],
        ),
        (pd.Series(MONTHS).astype("string"), MONTHS),
        (pd.Categorical(["2023-11", "2023-12", "2024-01", "2024-02"]), MONTHS),
    ],
)
def test_times_are_days(times: Any, expected: pd.DatetimeIndex) -> None:
    drawn = drawn_times(pd.Series(times))
    assert drawn.is_date
    assert drawn.numbers == pytest.approx(days(expected), abs=1e-9)


@pytest.mark.parametrize(
    "times",
    [
        [0, 1, 2, 3],
        [-3, -2, -1, 0],
        ["7", "8", "9"],
        [202399, 202400, 202401],
        pd.array([4, 5], dtype="Int64"),
        [5.0, 6.0],
    ],
)
def test_integers_stay_integers(times: Any) -> None:
    drawn = drawn_times(pd.Series(times))
    assert not drawn.is_date and drawn.origin == 0
    assert drawn.numbers.tolist() == [float(time) for time in times]


def test_long_integers_count_from_the_forecast() -> None:
    largest = np.iinfo(np.int64).max
    drawn = drawn_times(pd.Series([largest - 3, largest - 2, largest - 1, largest]), origin=2)
    assert drawn.numbers.tolist() == [-2, -1, 0, 1]
    assert drawn.axis_label("id") == f"id, counted from {largest - 1}"


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("UTC", "UTC"),
        (datetime.timezone.utc, "UTC"),
        (datetime.timezone(datetime.timedelta(hours=5, minutes=30)), "UTC+05:30"),
        (ZoneInfo("Asia/Tokyo"), "Asia/Tokyo"),
    ],
)
def test_axis_label_names_the_zone(zone: Any, name: str) -> None:
    times = pd.Series(pd.date_range("2024-01-01", periods=3, freq="h", tz=zone))
    assert drawn_times(times).axis_label("time") == f"time ({name})"
    assert drawn_times(times.astype(object)).axis_label("time") == f"time ({name})"
    assert drawn_times(times.dt.tz_localize(None)).axis_label("time") == "time"


def test_unreadable_times_are_named() -> None:
    with pytest.raises(InputError, match="'soon'"):
        drawn_times(pd.Series(["2024-01-01", "soon"], name="date"))


def ticks_of(times: Any, max_ticks: int) -> list[str]:
    axes = Figure().subplots()
    drawn = drawn_times(pd.Series(times))
    drawn.set_ticks(axes, drawn.numbers, max_ticks)
    first, last = axes.get_xlim()
    ticks = axes.get_xticks()
    labels = axes.xaxis.get_major_formatter().format_ticks(ticks)
    return [
        label for tick, label in zip(ticks, labels, strict=True) if first <= tick <= last and label
    ]


def test_ticks_of_hours_are_in_the_zone() -> None:
    times = pd.date_range("2024-03-30", periods=72, freq="h", tz="America/New_York")
    labels = ticks_of(times, 9)
    assert labels[:3] == ["Mar-30", "12:00", "Mar-31"]


def test_ticks_of_few_days_have_no_hours() -> None:
    for count in range(2, 30):
        labels = ticks_of(pd.date_range("2024-01-30", periods=count, freq="D"), 9)
        assert not any(":" in label for label in labels), labels


def test_ticks_of_quarters_and_weeks_are_the_text_of_the_user() -> None:
    quarters = [f"{year}-Q{quarter}" for year in range(2015, 2024) for quarter in (1, 2, 3, 4)]
    assert ticks_of(quarters[2:], 6) == ["2016-Q1", "2019-Q1", "2022-Q1"]
    weeks = [f"2024-W{week:02d}" for week in range(1, 5)]
    assert ticks_of(weeks, 6) == weeks


@spread(
    "freq, max_ticks",
    ["10s", "15min", "h", "3h", "D", "B", "7D", "MS", "QE", "YE"],
    [9, 6, 4],
)
def test_ticks_are_few_and_whole_for_any_span(freq: str, max_ticks: int) -> None:
    """matplotlib would warn if it found no interval between the ticks."""
    for count in (2, 5, 13, 20, 37, 72, 150, 500):
        if freq == "YE" and count > 200:
            continue
        labels = ticks_of(pd.date_range("1990-01-31", periods=count, freq=freq), max_ticks)
        assert 2 <= len(labels) <= max(max_ticks, 5) + 2, (count, labels)


@spread("count, start", [2, 3, 7, 13, 40, 1000], [0, -5, 99_999_000])
def test_ticks_of_integers_are_integers(start: int, count: int) -> None:
    for max_ticks in (9, 6, 4):
        labels = ticks_of(range(start, start + count), max_ticks)
        numbers = [int(label.replace("\N{MINUS SIGN}", "-")) for label in labels]
        assert len(set(numbers)) == len(numbers) <= max_ticks + 1


def test_ticks_at_the_ends_of_the_calendar() -> None:
    for start in ("0001-01-01", "9999-11-22"):
        times = np.datetime64(start, "us") + np.arange(40) * np.timedelta64(1, "D")
        assert len(ticks_of(times, 9)) >= 2
