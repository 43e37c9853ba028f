"""The spacing of times, with gaps, as given, and with holidays."""

import sys
from datetime import date, timedelta
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.times import INT
from pytorch_forecasting_mlstm.forecaster.errors import Argument, InputError
from pytorch_forecasting_mlstm.forecaster.times.frequency import infer_frequency
from pytorch_forecasting_mlstm.forecaster.times.time_axis import TimeAxis


def infer(*parts: Any, **kwargs: Any) -> tuple[TimeAxis, np.ndarray]:
    """Infer the spacing of several series."""
    times = pd.concat([pd.Series(part) for part in parts], ignore_index=True)
    series = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return infer_frequency(times.rename("when"), series, lambda k: f"store={k}", **kwargs)


def keep(times: pd.DatetimeIndex, share: float, seed: int = 0) -> pd.DatetimeIndex:
    """Leave out rows at random, but neither the first nor the last."""
    kept = np.random.default_rng(seed).random(len(times)) < share
    kept[[0, -1]] = True
    return times[kept]


def test_infer_frequency_at_the_limits_of_nanoseconds() -> None:
    """A table that needs nanoseconds is limited to their range."""
    latest = pd.Series(pd.DatetimeIndex(INT.max - 700 * np.arange(40)[::-1]))
    axis, _ = infer_frequency(latest, np.zeros(40, dtype=int), str)
    assert axis.unit == "ns"
    with pytest.raises(InputError, match="beyond 2262-04-11 23:47:16.854775807"):
        axis.at(np.array([40]))
    earliest = pd.Series(pd.DatetimeIndex(INT.min + 1 + 700 * np.arange(40)))
    axis, positions = infer_frequency(earliest, np.zeros(40, dtype=int), str)
    assert (axis.at(positions) == pd.DatetimeIndex(earliest)).all()


@pytest.mark.parametrize("share", [1.0, 0.9, 0.6, 0.35])
@pytest.mark.parametrize(
    ("freq", "name"),
    [
        ("D", "daily"),
        ("B", "business days"),
        ("7D", "weekly"),
        ("W-SUN", "weekly"),
        ("MS", "monthly"),
        ("ME", "monthly"),
        (pd.DateOffset(months=1, days=0), "monthly"),
        ("BMS", "monthly"),
        ("BME", "monthly"),
        ("QS", "quarterly"),
        ("QE", "quarterly"),
        ("YS", "yearly"),
        ("YE", "yearly"),
        ("h", "hourly"),
        ("15min", "15 minutes"),
        ("6h", "6 hours"),
        ("10s", "10 seconds"),
        ("min", "1 minute"),
        ("250ms", "0.25 seconds"),
    ],
)
def test_infer_frequency_over_gaps(freq: Any, name: str, share: float) -> None:
    """Each series has gaps of its own, and all are placed as on the list without gaps."""
    times = pd.date_range("1900-01-15", periods=200, freq=freq)
    parts = [keep(times, share, seed) for seed in range(3)]
    if share < 1 and freq in ("BMS", "BME"):
        parts.append(times)  # too few rows without gaps for a rule
    axis, positions = infer(*parts)
    assert axis.name == name
    expected = [times.get_indexer(part) for part in parts]
    assert positions.tolist() == np.concatenate(expected).tolist()
    assert (
        axis.at(np.arange(300)).tolist() == pd.date_range(times[0], periods=300, freq=freq).tolist()
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_infer_frequency_positions_return_the_times(data: st.DataObject) -> None:
    start = data.draw(st.datetimes(pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")))
    step = data.draw(st.sampled_from([timedelta(days=1), timedelta(hours=1), timedelta(days=7)]))
    steps = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=60))
    places = np.cumsum(steps)
    times = pd.DatetimeIndex([start + int(k) * step for k in places])
    try:
        axis, positions = infer(times.as_unit("us"))
    except InputError:  # a few rows are errors if all others fit a longer distance
        shares = [np.bincount(places % distance).max() / len(places) for distance in (2, 3, 4)]
        assert any(0.9 <= share < 1 for share in shares)
        return
    assert axis.at(positions).tolist() == times.tolist()
    restored = TimeAxis.from_dict(axis.to_dict())
    assert restored == axis
    assert restored.place(pd.Series(times.as_unit("us"))).tolist() == positions.tolist()


@pytest.mark.parametrize("rows", [slice(None), slice(0, 9)], ids=["month", "short"])
def test_infer_frequency_only_days_with_sales(rows: slice) -> None:
    """The most common distance is two days, but the days are those of a daily table."""
    start = pd.Timestamp("2024-01-01")
    days = start + pd.to_timedelta([0, 2, 4, 5, 7, 9, 14, 16, 17, 20, 22, 24, 29, 30], unit="D")
    axis, positions = infer(days[rows])
    assert axis.name == "daily"
    assert axis.at(positions).tolist() == days[rows].tolist()


def test_infer_frequency_missing_nights_and_weekends() -> None:
    hours = pd.date_range("2024-01-01", periods=1000, freq="h")
    day = hours[(hours.hour >= 7) & (hours.hour < 20)]
    axis, positions = infer(day)
    assert axis.name == "hourly"
    assert positions.tolist() == (hours.get_indexer(day) - 7).tolist()
    axis, _ = infer(day[day.dayofweek < 5])
    assert axis.name == "hourly"
    quarters = pd.date_range("2024-01-01", periods=3000, freq="15min")
    axis, _ = infer(quarters[(quarters.hour >= 9) & (quarters.hour < 12)])
    assert axis.name == "15 minutes"


@pytest.mark.parametrize(
    ("days", "name"), [(5, "daily"), (12, "business days"), (19, "business days")]
)
def test_infer_frequency_business_days_need_two_weeks(days: int, name: str) -> None:
    times = pd.date_range("2024-01-01", periods=days, freq="D")
    times = times[times.dayofweek < 5].delete(2)
    assert infer(times)[0].name == (name if days > 14 or days == 5 else "daily")


def test_infer_frequency_one_saturday_makes_days_daily() -> None:
    days = pd.bdate_range("2024-01-01", periods=30).union(pd.DatetimeIndex(["2024-01-13"]))
    assert infer(days)[0].name == "daily"


def test_infer_frequency_integers() -> None:
    for times, step in (([0, 10, 20, 50], 10), ([1990, 1991, 1995], 1), ([0, 4, 6, 10, 16], 2)):
        axis, positions = infer(pd.Series(times))
        assert axis.step == step
        assert axis.at(positions).tolist() == times


def test_infer_frequency_names_the_rows_off_the_grid() -> None:
    days = pd.date_range("2024-01-01", periods=60, freq="D").to_series(index=range(60))
    for row in (0, 30, 59):
        times = days.copy()
        times[row] += pd.Timedelta(hours=12)
        with pytest.raises(InputError) as error:
            infer(times)
        text = str(error.value)
        assert f"store=0: {times[row]} does not fit the spacing of the other times (daily" in text
        assert "; 1 such rows" in text
    with pytest.raises(InputError, match=r"store=1: 2024-01-02 .* \(weekly, from 2024-01-01"):
        infer(days[::7], days[1::7])
    months = pd.date_range("2024-01-01", periods=30, freq="MS").to_series(index=range(30))
    months[7] += pd.Timedelta(days=1)
    with pytest.raises(InputError, match=r"2024-08-02 00:00:00 does not fit .* \(monthly"):
        infer(months)


def test_infer_frequency_refuses_what_has_no_common_step() -> None:
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.choice(86_400 * 365, 200, replace=False))
    with pytest.raises(InputError, match="no common step"):
        infer(pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"))
    with pytest.raises(InputError, match="no common step"):
        infer(pd.Series([0, 1, 2, 3, 10**9]))


def test_infer_frequency_warns_of_many_missing_rows() -> None:
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta([0, 1, 20, 41, 62, 99, 101], unit="D")
    with pytest.warns(UserWarning, match="a spacing of daily only, with rows for 7 of 101 steps"):
        infer(days)
    assert infer(days, frequency="D")[0].name == "daily"


@pytest.mark.parametrize(
    ("frequency", "start", "name"),
    [
        ("D", "2024-01-01", "daily"),
        ("B", "2024-01-01", "business days"),
        ("h", "2024-01-01 00:00", "hourly"),
        ("15min", "2024-01-01 00:00", "15 minutes"),
        ("MS", "2024-01-01", "monthly"),
        ("ME", "2024-01-31", "monthly"),
        ("W-SUN", "2024-01-07", "weekly"),
        ("QS", "2024-01-01", "quarterly"),
        ("QE-JAN", "2024-01-31", "quarterly"),
        ("YS", "2024-01-01", "yearly"),
        ("WOM-2MON", "2024-01-08", "monthly"),
        ("2D", "2024-01-01", "2 days"),
        (timedelta(hours=6), "2024-01-01", "6 hours"),
        (np.timedelta64(7, "D"), "2024-01-01", "weekly"),
        (pd.Timedelta(days=1), "2024-01-01", "daily"),
        (pd.offsets.MonthEnd(), "2024-01-31", "monthly"),
        (pd.DateOffset(months=3), "2024-01-15", "quarterly"),
        (pd.DateOffset(days=2), "2024-01-15", "2 days"),
        (pd.DateOffset(years=1), "2024-01-15", "yearly"),
        (pd.offsets.Week(), "2024-01-15", "weekly"),
    ],
    ids=str,
)
def test_frequency_is_taken_as_given(frequency: Any, start: str, name: str) -> None:
    """Even if there is one time in two, in which the spacing would be inferred as twice that."""
    step = pd.Timedelta(frequency) if isinstance(frequency, np.timedelta64) else frequency
    times = pd.date_range(start, periods=41, freq=step)
    axis, positions = infer(times[::2], frequency=frequency)
    assert axis.name == name
    assert positions.tolist() == list(range(0, 41, 2))
    assert axis.at(np.arange(41)).tolist() == times.tolist()
    assert TimeAxis.from_dict(axis.to_dict()) == axis


def test_frequency_of_integers() -> None:
    for frequency in (7, "7", np.int64(7)):
        axis, positions = infer(pd.Series([0, 14, 21]), frequency=frequency)
        assert positions.tolist() == [0, 2, 3]
        assert axis.step == 7


@pytest.mark.parametrize(
    ("frequency", "message"),
    [
        ("W-SUN", "store=0: 2024-01-01 00:00:00 does not fit frequency 'W-SUN' (weekly, from"),
        ("MS", "store=0: 2024-01-02 00:00:00 does not fit frequency 'MS' (monthly, from 2024-01"),
        (pd.offsets.BDay(), "store=0: 2024-01-06 00:00:00 does not fit frequency 'B' (business"),
        ("s", "frequency 's' makes 5,097,600 steps of 60 rows, most often 1 days 00:00:00 apart"),
        ("X", "frequency 'X' is not known to this version of pandas: use for example D, B, W-SUN"),
        ("SMS", "frequency 'SMS' is not supported: use for example D, B"),
        (7, "frequency must be for dates: use for example D"),
        (True, "frequency 'True' is not known"),
        ("-1D", "frequency must be positive; it is '-1D'"),
        (pd.offsets.BusinessHour(start="07:00"), "is not supported"),
        (pd.DateOffset(months=1, days=1), "is not supported"),
        (None, None),
    ],
    ids=str,
)
def test_frequency_that_does_not_fit(frequency: Any, message: str | None) -> None:
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    if message is None:
        assert infer(days, frequency=frequency)[0].name == "daily"
        return
    with pytest.raises(InputError) as error:
        infer(days, frequency=frequency)
    assert message in str(error.value)
    assert Argument("frequency") in error.value.args


def test_frequency_of_integers_must_be_a_number() -> None:
    for frequency in ("D", timedelta(days=1), 1.5):
        with pytest.raises(InputError, match="frequency must be a whole number, as the times are"):
            infer(pd.Series([1, 2, 3]), frequency=frequency)
    with pytest.raises(InputError, match="must be positive"):
        infer(pd.Series([1, 2, 3]), frequency=0)


HOLIDAYS = ["2024-12-25", "2024-12-26", "2025-01-01", "2025-04-18", "2024-12-28"]


@pytest.mark.parametrize(
    "holidays",
    [
        HOLIDAYS,
        [date.fromisoformat(day) for day in HOLIDAYS],
        pd.DatetimeIndex(HOLIDAYS),
        np.array(HOLIDAYS, dtype="datetime64[D]"),
        ["25.12.2024", "26.12.2024", "01.01.2025", "18.04.2025", "28.12.2024"],
    ],
    ids=["text", "date", "DatetimeIndex", "NumPy", "dots"],
)
def test_holidays_make_trading_days(holidays: Any) -> None:
    trading = pd.offsets.CustomBusinessDay(holidays=HOLIDAYS)
    whole = pd.date_range("2024-11-01", periods=150, freq=trading)
    axis, positions = infer(whole[:30].delete([7, 8]), holidays=holidays)
    assert axis.name == "business days without holidays"
    assert axis.at(np.arange(150)).tolist() == whole.tolist()
    assert axis.place(pd.Series(whole)).tolist() == list(range(150))
    # As an offset of pandas, too.
    same, _ = infer(whole[:30], frequency=trading)
    assert same.at(np.arange(150)).tolist() == whole.tolist()


def test_holidays_of_daily_and_hourly_times() -> None:
    days = pd.date_range("2024-12-01", periods=60, freq="D")
    open_days = days[~days.isin(pd.DatetimeIndex(HOLIDAYS))]
    axis, _ = infer(open_days[:20], holidays=HOLIDAYS)
    assert axis.name == "daily without holidays"
    assert axis.at(np.arange(len(open_days))).tolist() == open_days.tolist()
    hours = pd.date_range("2024-12-01", periods=60 * 24, freq="h")
    hours = hours[~hours.normalize().isin(pd.DatetimeIndex(HOLIDAYS))]
    axis, positions = infer(hours[:500], holidays=HOLIDAYS)
    assert axis.at(np.arange(len(hours))).tolist() == hours.tolist()


def test_holidays_with_rows_are_refused() -> None:
    days = pd.bdate_range("2024-12-20", periods=20)
    with pytest.raises(InputError) as error:
        infer(days, holidays=HOLIDAYS)
    assert "store=0: 2024-12-25 00:00:00 is on one of the holidays" in str(error.value)
    assert "; 3 such rows: remove such rows" in str(error.value)
    assert Argument("holidays") in error.value.args


@pytest.mark.parametrize(
    ("times", "holidays", "message"),
    [
        (pd.date_range("2024-01-01", periods=9, freq="MS"), HOLIDAYS, "the spacing is monthly"),
        (pd.Series(range(9)), HOLIDAYS, "the spacing is 1 step: leave out holidays"),
        (pd.date_range("2024-01-01", periods=9), [1, 2], "holidays must be dates; it has '1'"),
        (pd.date_range("2024-01-01", periods=9), 7, "must be dates or the code of a country"),
        (pd.date_range("2024-01-01", periods=9), ["Easter"], "cannot read 'Easter'"),
    ],
)
def test_holidays_that_do_not_fit(times: Any, holidays: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        infer(times, holidays=holidays)
    assert message in str(error.value)


def test_holidays_of_a_country(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("holidays")
    asked = []

    def country_holidays(code: str, subdiv: str | None, years: range) -> dict:
        if subdiv == "XX":
            raise NotImplementedError
        asked.append((code, subdiv, years))
        return {date(year, 12, 25): "Christmas" for year in years}

    def financial_holidays(code: str, years: range) -> dict:
        if code != "NYSE":
            raise NotImplementedError
        return {date(year, 7, 4): "Independence Day" for year in years}

    package.country_holidays = country_holidays
    package.financial_holidays = financial_holidays
    package.list_supported_countries = lambda: {"DE": ["BY"]}
    monkeypatch.setitem(sys.modules, "holidays", package)
    days = pd.bdate_range("2024-11-01", periods=30)
    axis, positions = infer(days, holidays="DE-BY")
    assert asked == [("DE", "BY", range(2024, 2045))]
    ahead = axis.at(positions[-1] + np.arange(8, 10)).strftime("%m-%d").tolist()
    assert ahead == ["12-24", "12-26"]
    assert infer(days, holidays="NYSE")[0].holidays[0] == "2024-07-04"
    for code in ("XX", "DE-XX"):
        with pytest.raises(InputError, match=f"holidays '{code}' is not a country"):
            infer(days, holidays=code)
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(InputError, match=r'pip install "pytorch-forecasting-mlstm\[holidays\]"'):
        infer(days, holidays="DE")


def test_holidays_of_the_package() -> None:
    pytest.importorskip("holidays")
    days = pd.bdate_range("2024-11-01", periods=30)
    axis, _ = infer(days.drop(["2024-11-11", "2024-11-28"]), holidays="US")
    assert {"2024-12-25", "2043-12-25"} < set(axis.holidays)
    with pytest.raises(InputError, match="2024-11-28 00:00:00 is on one of the holidays"):
        infer(days, holidays="NYSE")
