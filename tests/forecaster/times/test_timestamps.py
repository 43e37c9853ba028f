"""Times of any form are read, and written back in that form."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.times.time_format import TimeFormat
from pytorch_forecasting_mlstm.forecaster.times.timestamps import read_times

DAYS = pd.date_range("2024-01-01", periods=60, freq="D", unit="us")
HOURS = pd.date_range("2024-02-28", periods=60, freq="h", unit="us")
MONTHS = pd.date_range("2019-11-01", periods=40, freq="MS", unit="us")
WEEKS = pd.date_range("2019-12-23", periods=60, freq="7D", unit="us")
QUARTERS = pd.date_range("2019-10-01", periods=20, freq="QS", unit="us")


def objects(values: Any) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def assert_round_trip(column: pd.Series, ahead: pd.Series | None = None, **kwargs: Any) -> None:
    """Write what was read from a table that ends before `ahead`, and `ahead` itself."""
    table = column.rename("when")
    times, form = read_times(table, **kwargs)
    assert times.dtype == np.int64 or times.dt.tz is None
    form = TimeFormat.from_dict(json.loads(json.dumps(form.to_dict())))
    pd.testing.assert_series_equal(form.write(times), table, check_freq=False)
    whole = column if ahead is None else ahead
    future, whole_form = read_times(whole.rename("when"), **kwargs)
    written = form.write(future)
    pd.testing.assert_series_equal(written, whole.rename("when"), check_freq=False)
    # A merge on the column finds all rows.
    merged = table.to_frame().merge(form.write(times).to_frame().assign(y=1.0), on="when")
    assert len(merged) == len(table)


TEXTS = {
    "%Y-%m-%d": DAYS,
    "%d.%m.%Y": DAYS,
    "%d.%m.%y": DAYS,
    "%m/%d/%Y": DAYS,
    "%d/%m/%Y": DAYS,
    "%d-%b-%Y": DAYS,
    "%b %d, %Y": DAYS,
    "%Y%m%d": DAYS,
    "%Y/%m/%d": DAYS,
    "%Y-%m-%dT%H:%M:%S": HOURS,
    "%Y-%m-%d %H:%M": HOURS,
    "%Y-%m-%dT%H:%M:%SZ": HOURS,
    "%Y-%m-%d %H:%M:%S UTC": HOURS,
    "%Y-%m-%d %H:%M:%S+00": HOURS,
    "%Y-%m-%dT%H:%M:%S+02:00": HOURS,
    "%Y-%m-%d %H:%M-0330": HOURS,
    "%Y-%m-%dT%H:%M:%S.%f": HOURS,
    "%d.%m.%Y %H:%M": HOURS,
    "%m/%d/%Y %I:%M %p": HOURS,
    "%Y%m%dT%H%M": HOURS,
    "%Y%m%d%H%M": HOURS,
    "%Y%m%d%H%M%S": HOURS,
    "%Y-%m": MONTHS,
    "%Y/%m": MONTHS,
    "%Y%m": MONTHS,
    "%m/%Y": MONTHS,
    "%b %Y": MONTHS,
    "%B %Y": MONTHS,
    "%G-W%V": WEEKS,
    "%GW%V": WEEKS,
    "%G-W%V-%u": DAYS,
}


@pytest.mark.parametrize("form", TEXTS)
def test_read_times_text(form: str) -> None:
    """A table without the last rows writes these, too."""
    text = pd.Series(TEXTS[form].strftime(form))
    assert_round_trip(text[:-7], text)
    times, _ = read_times(text)
    assert times.tolist() == TEXTS[form].tolist()


@pytest.mark.parametrize("form", ["{0}Q{1}", "{0}-Q{1}", "{0} Q{1}", "Q{1} {0}", "Q{1}/{0}"])
def test_read_times_quarters(form: str) -> None:
    text = pd.Series([form.format(day.year, day.quarter) for day in QUARTERS])
    assert_round_trip(text[:-3], text)
    assert read_times(text)[0].tolist() == QUARTERS.tolist()


def test_read_times_text_without_leading_zeros() -> None:
    assert_round_trip(pd.Series([f"{day.day}.{day.month}.{day.year}" for day in DAYS]))
    assert_round_trip(pd.Series([f"{day.month}/{day.day}/{day.year}" for day in DAYS]))


@pytest.mark.parametrize(
    "column",
    [
        *(pd.Series(DAYS.as_unit(unit)) for unit in ("s", "ms", "us", "ns")),
        pd.Series(
            pd.to_datetime(["2024-01-01 00:00:00.000000007", "2024-01-02"], format="ISO8601")
        ),
        objects(DAYS.date),
        objects(HOURS.to_pydatetime()),
        objects(HOURS.tz_localize("UTC").tz_convert("Asia/Kolkata").to_pydatetime()),
        objects(HOURS.tz_localize("UTC")),
        pd.Series(np.array(DAYS, dtype="datetime64[D]").astype(object)),
        *(
            pd.Series(pd.period_range("2024-01-01", periods=30, freq=freq))
            for freq in ("h", "D", "W", "W-WED", "M", "Q", "Q-JAN", "Y")
        ),
        pd.Series(DAYS, dtype="timestamp[us][pyarrow]"),
        pd.Series(DAYS.date, dtype="date32[day][pyarrow]"),
        pd.Series(range(9), dtype="int16[pyarrow]"),
        *(pd.Series(range(9), dtype=dtype) for dtype in ("int32", "Int64", "uint8", "float64")),
        objects([3, 5, 10]),
        pd.Series(range(1990, 2024)),
        pd.Series(["1", "2", "10"]),
        pd.Series(["001", "002", "010"]),
        pd.Series(["-5", "2", "10"]),
        pd.Series(["1.0", "2.0"]),
        pd.Series(DAYS.strftime("%Y-%m-%d"), dtype="string"),
        pd.Series(DAYS.strftime("%Y-%m-%d"), dtype="string[pyarrow]"),
        objects(DAYS.strftime("%Y-%m-%d")),
        *(pd.Series(DAYS.strftime("%Y%m%d")).astype(kind) for kind in ("int64", "Int32", "float")),
        pd.Series(MONTHS.strftime("%Y%m").astype("int32")),
        objects(map(int, DAYS.strftime("%Y%m%d"))),
    ],
    ids=lambda column: f"{column.dtype}-{column.iloc[0]}",
)
def test_read_times_types(column: pd.Series) -> None:
    assert_round_trip(column[:-1], column)


def test_read_times_categories_are_written_as_their_values() -> None:
    text = pd.Series(DAYS.strftime("%d.%m.%Y"), name="when")
    times, form = read_times(text.astype("category"))
    assert times.tolist() == DAYS.tolist()
    pd.testing.assert_series_equal(form.write(times), text)
    stamps = pd.Series(DAYS.tz_localize("Europe/Berlin"), name="when")
    times, form = read_times(stamps.astype("category"))
    pd.testing.assert_series_equal(form.write(times), stamps, check_freq=False)


@settings(max_examples=30, deadline=None)
@given(
    start=st.datetimes(pd.Timestamp("1680-01-01"), pd.Timestamp("2250-01-01")),
    step=st.sampled_from(["1D", "7D", "1h", "30min", "1s", "1ms", "1us"]),
    length=st.integers(1, 40),
    form=st.sampled_from(
        ["us", "ns", "object", "Period", "%Y-%m-%dT%H:%M:%S.%f", "%d.%m.%Y %H:%M:%S.%f", "+05:45"]
    ),
)
def test_read_times_round_trip(start: Any, step: str, length: int, form: str) -> None:
    times = pd.date_range(start, periods=length, freq=step, unit="us")
    if form in ("us", "ns"):
        column = pd.Series(times.as_unit(form))
    elif form == "object":
        column = objects(times.to_pydatetime())
    elif form == "Period":
        column = pd.Series(times.to_period("us"))
    elif form == "+05:45":
        column = pd.Series(times.tz_localize("UTC").tz_convert(form))
    else:
        column = pd.Series(times.strftime(form))
    assert_round_trip(column, series=np.arange(length))


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True), text=st.booleans()
)
def test_read_times_integers_round_trip(numbers: list[int], text: bool) -> None:
    column = pd.Series(list(map(str, numbers))) if text else pd.Series(numbers, dtype="int64")
    assert_round_trip(column)


def test_read_times_integers_widen_beyond_their_type() -> None:
    times, form = read_times(pd.Series([253, 254, 255], dtype="uint8"))
    assert form.write(times + 1).tolist() == [254, 255, 256]


@pytest.mark.parametrize(
    ("values", "is_months"),
    [
        ([202401, 202402, 202412], True),
        ([190001, 210012], True),
        ([202401, 202413], False),
        ([189912, 190001], False),
        ([202401, 20240201], False),
        (["202401", "202402"], True),
        ([2024, 2025], False),
    ],
)
def test_read_times_six_digits_are_months(values: list, is_months: bool) -> None:
    times, form = read_times(pd.Series(values))
    assert (times.dtype != np.int64) is is_months
    assert form.write(times).tolist() == values


def test_read_times_week_53() -> None:
    times, form = read_times(pd.Series(["2020-W52", "2020-W53", "2021-W01"]))
    assert times.tolist() == pd.to_datetime(["2020-12-21", "2020-12-28", "2021-01-04"]).tolist()
    assert form.write(times + pd.Timedelta(days=7 * 52)).tolist()[1:] == ["2021-W52", "2022-W01"]
    for text in ("2021-W53", "2021-W00", "2021-W54"):
        with pytest.raises(InputError, match=f"cannot read '{text}' in row 2"):
            read_times(pd.Series(["2021-W01", text], name="week"))


def test_read_times_warns_of_several_forms() -> None:
    column = pd.Series(["2024-01-01T00:00:00", "2024-01-01T00:00:00.500"], name="when")
    with pytest.warns(UserWarning, match="'when' writes times in several ways"):
        times, form = read_times(column)
    assert form.write(times).iloc[0] == column.iloc[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2024-01-01 00:00+01:00", "2024-01-01 02:00"], "in row 2 has no offset from UTC"),
        (["2024-01-01", None], "cannot read"),
        (["2024-13", "2024-01"], "cannot read '2024-13' in row 1"),
        (["2024Q5", "2024Q1"], "cannot read '2024Q5' in row 1"),
        ([0.5, 1.5], "cannot read '0.5' in row 1 and 1 more"),
        ([True, False], "cannot read 'True' in row 1"),
        ([2024.01, 2024.02], "cannot read '2024.01' in row 1"),
        (["2024-01-01", "x"], "cannot read 'x' in row 2"),
        (["x", "2024-01-01", "x", "x"], "cannot read 'x' in row 1 and 2 more"),
    ],
)
def test_read_times_rejects(values: list, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_times(pd.Series(values, name="when"))
    assert message in str(error.value)
    assert str(error.value).startswith("column 'when': ")


def test_write_beyond_nanoseconds_is_an_error() -> None:
    times, form = read_times(pd.Series(pd.to_datetime(["2262-04-01"]).as_unit("ns"), name="when"))
    with pytest.raises(InputError, match=r"column 'when': a time .* does not fit into datetime64"):
        form.write(times + np.timedelta64(40 * 86_400 * 10**6, "us"))
