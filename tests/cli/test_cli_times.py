"""Times of any size and any distance: counted exactly, in memory for the rows alone, or refused."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.tseries.frequencies import to_offset

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.cli.plots import _times, plot_future
from pytorch_forecasting_mlstm.cli.report import _period
from pytorch_forecasting_mlstm.forecaster.datasets import model_frame
from pytorch_forecasting_mlstm.forecaster.errors import UserError
from pytorch_forecasting_mlstm.forecaster.forecast_frame import tidy_forecast, write_forecast
from pytorch_forecasting_mlstm.forecaster.frequency import TimeAxis, lay_on_axis
from pytorch_forecasting_mlstm.forecaster.panel import Table, read_table
from pytorch_forecasting_mlstm.forecaster.splits import split_table

INT = np.iinfo(np.int64)
HORIZON = 3


def write(path: Path, times: dict[str, Any]) -> Path:
    """Write a table of series with these times."""
    parts = [
        pd.DataFrame({"g": name, "t": [str(t) for t in own], "y": noisy_season(len(own))})
        for name, own in times.items()
    ]
    pd.concat(parts).to_csv(path, index=False)
    return path


def read(path: Path, horizon: int = HORIZON) -> Table:
    return read_table(path, time="t", target="y", group=("g",), known=(), horizon=horizon)


def times_ahead(table: Table) -> list[list[str]]:
    """Times of the written forecast, per series."""
    count = len(table.values)
    tidy = tidy_forecast(table, np.zeros((count, HORIZON, 7)))
    file = io.StringIO()
    write_forecast(tidy, file, quote_formulas=False)  # type: ignore[arg-type]
    file.seek(0)
    return pd.read_csv(file, dtype=str)["t"].to_numpy().reshape(count, HORIZON).tolist()


def iso(start: str, length: int, step: int, unit: str) -> list[str]:
    times = np.datetime64(start, "us") + step * np.arange(length) * np.timedelta64(1, unit)
    return [str(time) for time in times]


def comparable(time: str) -> Any:
    return int(time) if time.isdecimal() else np.datetime64(time)


def months(year: int, length: int, step: int = 1) -> list[str]:
    return [f"{year + k * step // 12:04d}-{k * step % 12 + 1:02d}-01" for k in range(length)]


def business_days(start: str, length: int) -> list[str]:
    return [str(day) for day in np.busday_offset(start, np.arange(length), roll="forward")]


# --- arithmetic, against the lists of pandas


@pytest.mark.parametrize(
    "freq",
    """D 2D 10D B W-SUN W-WED 2W-MON MS ME 2MS 3ME BMS BME 2BME QS-JAN QS-FEB QE-DEC 2QE-NOV BQS-JAN
    BQE-JAN YS-JAN YE-JUN 2YS-JAN BYS-JAN BYE-DEC WOM-2MON WOM-4FRI h 3h bh 30min 7min s 250ms 13us
    700ns 25h m1 m3""".split(),
)
@pytest.mark.parametrize(
    "start", ["2019-01-15", "2020-02-29", "2019-01-30", "2019-01-31", "2020-01-01 09:30"]
)
def test_positions_and_times_are_those_of_a_list(freq: str, start: str) -> None:
    step = pd.DateOffset(months=int(freq[1])) if freq in ("m1", "m3") else to_offset(freq)
    listed = pd.date_range(start, periods=300, freq=step)
    axis = TimeAxis(listed[0], step)
    for positions in (np.arange(300), np.array([299, 0, 7, 7]), np.array([], dtype=int)):
        pd.testing.assert_index_equal(axis.at(positions), listed[positions], exact=False)
    assert (axis.positions(pd.Series(listed)) == np.arange(300)).all()
    # Times between two, and before the first.
    beside = pd.Series(listed + (listed[1] - listed[0]) / 2).drop_duplicates()
    beside = beside[~beside.isin(listed)]
    assert (axis.positions(beside) == -1).all()
    before = pd.Series([listed[0] - pd.Timedelta(days=1), listed[0] - pd.Timedelta(days=400)])
    assert (axis.positions(before) == -1).all()


def test_whole_numbers_are_counted_exactly() -> None:
    axis = TimeAxis(INT.min, 10**10)
    times = pd.Series([INT.min, INT.min + 10**10, INT.min + 3 * 10**18, INT.min + 5, INT.max])
    assert axis.positions(times).tolist() == [0, 1, 3 * 10**8, -1, -1]
    assert axis.at(np.array([0, 10**9])).tolist() == [INT.min, INT.min + 10**19]
    with pytest.raises(OverflowError):
        TimeAxis(INT.min, 1).positions(times)


@pytest.mark.parametrize(
    ("freq", "length"), [("h", 90), ("B", 90), ("MS", 60), ("QE-DEC", 45), ("W-MON", 120)]
)
def test_frames_of_ordinary_tables(tmp_path: Path, freq: str, length: int) -> None:
    """Of series of different starts: each has the calendar of its own times, listed by pandas."""
    listed = pd.date_range("2015-01-05", periods=length + HORIZON, freq=freq)
    starts = {"a": 0, "b": 7, "c": length // 2}
    path = write(tmp_path / "t.csv", {name: listed[at:length] for name, at in starts.items()})
    table = read(path)
    assert np.asarray(table.starts).tolist() == list(starts.values())
    split = split_table(table, HORIZON)
    frame = model_frame(table, split)
    both = pd.concat([frame.rows, frame.future])
    names = [name for name in frame.known_reals if name.startswith("year")]
    for number, start in enumerate(starts.values()):
        own = both[both["series"] == str(number)].sort_values("time_idx")
        assert own["time_idx"].tolist() == list(range(start, length + HORIZON))
        year = (
            listed.dayofyear - 1 + (listed - listed.normalize()) / pd.Timedelta(days=1)
        ) / 365.25
        for name in names:
            _, wave, k = name.split("_")
            expected = getattr(np, wave)(2 * np.pi * int(k) * year)[start:]
            np.testing.assert_array_equal(own[name], expected)
    assert names or freq in ("h", "B")
    expected = listed[length:].strftime("%Y-%m-%d %H:%M:%S" if freq == "h" else "%Y-%m-%d")
    assert times_ahead(table) == [expected.tolist()] * 3


# --- series far apart


FAR = {
    "integers": (range(40), range(10**15, 10**15 + 40)),
    "a billion steps": (range(0, 280, 7), range(7 * 10**9, 7 * 10**9 + 280, 7)),
    "minutes": (iso("0001-01-01", 40, 1, "m"), iso("9900-01-01", 40, 1, "m")),
    "hours": (iso("0900-01-01", 40, 1, "h"), iso("9900-01-01", 40, 1, "h")),
    "microseconds": (iso("1700-01-01", 40, 10, "us"), iso("1900-01-02", 40, 10, "us")),
    "days": (iso("0900-01-01", 40, 1, "D"), iso("9900-01-01", 40, 1, "D")),
    "business days": (business_days("0900-01-06", 43), business_days("9900-01-04", 43)),
    "weeks": (iso("0900-01-01", 40, 7, "D"), iso("9900-01-05", 40, 7, "D")),
    "months": (months(900, 40), months(9900, 40)),
    "quarters": (months(900, 40, 3), months(9900, 40, 3)),
    "years": (months(900, 40, 12), months(9900, 40, 12)),
    "business hours": (
        pd.date_range("1700-01-04 09:00", periods=40, freq="bh"),
        pd.date_range("2200-01-06 09:00", periods=40, freq="bh"),
    ),
}


@pytest.mark.parametrize("kind", FAR)
def test_series_far_apart_take_memory_for_their_rows(tmp_path: Path, kind: str) -> None:
    """A list of the times between them would take gigabytes. Each goes on from its own end."""
    first, second = (list(map(str, own)) for own in FAR[kind])
    path = write(tmp_path / "t.csv", {"a": first[:-HORIZON], "b": second[:-HORIZON]})
    read(write(tmp_path / "u.csv", {"a": first[:-HORIZON]}))  # what is imported only once
    tracemalloc.start()
    try:
        table = read(path)
        split = split_table(table, HORIZON)
        frame = model_frame(table, split)
        assert len(_period(table, split)) < 60
        _times(table, int(table.starts[1]) + len(table.values[1]), 12, HORIZON)
        ahead = times_ahead(table)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20
    for found, own in zip(ahead, (first, second), strict=True):
        assert list(map(comparable, found)) == list(map(comparable, own[-HORIZON:]))
    alone = model_frame(read(tmp_path / "u.csv"), split).rows
    own = frame.rows[frame.rows["series"] == "0"].reset_index(drop=True)
    shared = [name for name in alone if name != "group_0"]
    pd.testing.assert_frame_equal(own[shared], alone[shared])


def test_pictures_of_series_far_apart(tmp_path: Path) -> None:
    for times in (FAR["hours"], (range(INT.max - 45, INT.max - 5), range(INT.min, INT.min + 40))):
        table = read(write(tmp_path / "t.csv", {"a": times[0]}))
        plot_future(table, HORIZON, np.ones((1, HORIZON, 7)), tmp_path / "t.png")


# --- at the ends


@pytest.mark.parametrize(
    ("times", "ahead"),
    [
        (iso("2262-03-03", 40, 1, "D"), ["2262-04-12", "2262-04-14"]),
        (iso("2262-04-11T23:17", 30, 1, "m"), ["2262-04-11 23:47:00", "2262-04-11 23:49:00"]),
        (iso("1677-09-01", 40, 1, "D"), ["1677-10-11", "1677-10-13"]),
        (iso("9999-11-19", 40, 1, "D"), ["9999-12-29", "9999-12-31"]),
        (months(9996, 45), ["9999-10-01", "9999-12-01"]),
        (iso("0001-01-01", 40, 1, "D"), ["0001-02-10T00:00:00", "0001-02-12T00:00:00"]),
        (range(INT.max - 42, INT.max - 2), [str(INT.max - 2), str(INT.max)]),
        (range(INT.min, INT.min + 40), [str(INT.min + 40), str(INT.min + 42)]),
        (range(INT.min, INT.min + 60 * 2**58, 2**58), [str(INT.min + k * 2**58) for k in (60, 62)]),
    ],
    ids=str,
)
def test_times_go_on_to_the_end(tmp_path: Path, times: Any, ahead: list[str]) -> None:
    table = read(write(tmp_path / "t.csv", {"a": times}))
    model_frame(table, split_table(table, HORIZON))
    assert times_ahead(table)[0][:: HORIZON - 1] == ahead


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ({"a": iso("9999-11-20", 40, 1, "D")}, "beyond 9999-12-31 23:59:59.999999, the last time"),
        ({"a": months(9996, 46)}, "beyond 9999-12-31"),
        ({"a": business_days("9999-11-02", 43)}, "beyond 9999-12-31"),
        ({"a": iso("9999-12-31T00:01", 1438, 1, "m")}, "beyond 9999-12-31"),
        ({"a": range(INT.max - 41, INT.max - 1)}, f"beyond {INT.max}, the last time there is"),
        ({"a": [INT.min, INT.max]}, f"beyond {INT.max}"),
        (
            {"a": range(INT.min, INT.min + 40), "b": range(INT.max - 90, INT.max - 50)},
            "the times lie further apart than can be counted",
        ),
        ({"a": range(2**63, 2**63 + 40)}, "'9223372036854775808' in row 1 does not fit into 64"),
        ({"a": range(-(2**63) - 1, 0, 2**58)}, "'-9223372036854775809' in row 1 does not fit"),
        ({"a": ["9" * 10_000] * 40}, "cannot read '999"),
        ({"a": ["1:11" * 50_000] * 40}, "cannot read '1:11"),
        ({"a": ["2024-01-01 " + "1:11:" * 50_000] * 40}, "cannot read '2024-01-01 1:11"),
        ({"a": iso("0000-01-01", 40, 1, "D")}, "row 1 is not between the years 1 and 9999"),
        ({"a": iso("9999-12-20", 40, 1, "D")}, "cannot read '10000-01-01T00:00:00.000000'"),
        (
            {"a": iso("1700-01-01", 40, 1, "m") + iso("2200-01-01", 40, 1, "m")},
            "no common step",
        ),
        ({"a": ["2024-01-01 00:00 Europe"] * 40}, "cannot read '2024-01-01 00:00 Europe'"),
        ({"a": ["2024-01-01 00:00+99:99"] * 40}, "cannot read '2024-01-01 00:00+99:99'"),
    ],
    ids=range(17),
)
def test_times_without_a_place_are_refused(tmp_path: Path, times: Any, says: str) -> None:
    path = write(tmp_path / "t.csv", times)
    with pytest.raises(UserError) as refused:
        read(path)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("horizon", [10**12, 10**40])
def test_horizons_of_any_size_are_answered(tmp_path: Path, horizon: int) -> None:
    """Without going through all those that would fit."""
    with pytest.raises(UserError, match="beyond 9999-12-31|too short for --horizon"):
        read(write(tmp_path / "t.csv", {"a": iso("2024-01-01", 40, 1, "D")}), horizon)
    table = read(write(tmp_path / "t.csv", {"a": range(40)}))
    with pytest.raises(UserError, match="choose --horizon 12 or less|choose --horizon 11 or less"):
        split_table(table, 10**15)


def test_ends_of_nanoseconds() -> None:
    """A table that needs them ends where they do; others do not."""
    fine = pd.Series(pd.DatetimeIndex(INT.max - 700 * np.arange(40)[::-1]))
    axis, _ = lay_on_axis(fine, np.zeros(40, dtype=int), str)
    assert axis.unit == "ns"
    with pytest.raises(UserError, match="beyond 2262-04-11 23:47:16.854775807"):
        axis.at(np.array([40]))
    earliest = pd.Series(pd.DatetimeIndex(INT.min + 1 + 700 * np.arange(40)))
    axis, positions = lay_on_axis(earliest, np.zeros(40, dtype=int), str)
    assert (axis.at(positions) == pd.DatetimeIndex(earliest)).all()
