"""Times over clock changes: by the local clock where they are even, in UTC elsewhere."""

from zoneinfo import ZoneInfo

import dateutil.tz
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.products import spread
from pytorch_forecasting_mlstm.forecaster.errors import Argument, InputError
from pytorch_forecasting_mlstm.forecaster.times.frequency import infer_frequency
from pytorch_forecasting_mlstm.forecaster.times.time_zones import read_zone, zone_name
from pytorch_forecasting_mlstm.forecaster.times.timestamps import read_times

ZONES = [
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",  # half an hour from the hour
    "Australia/Sydney",  # summer in January
    "Australia/Lord_Howe",  # changes by half an hour
    "America/Santiago",  # skips midnight
    "Asia/Kathmandu",  # three quarters of an hour, no summer time
    "UTC",
]
BERLIN = "Europe/Berlin"


def one_series(rows: int) -> np.ndarray:
    return np.zeros(rows, dtype=int)


def continue_by(column: pd.Series, steps: int, **kwargs) -> tuple[str, pd.Series]:
    """Return the spacing of a column, and the column with further times."""
    times, form = read_times(column, **kwargs)
    axis, positions = infer_frequency(times, one_series(len(times)), str)
    assert (np.diff(positions) == 1).all()
    ahead = np.arange(positions[0], positions[-1] + 1 + steps)
    return axis.name, form.write(axis.at(ahead))


@pytest.mark.parametrize("kind", ["aware", "naive", "text"])
@spread("zone, name", ZONES, ["hourly", "daily", "weekly", "monthly"])
def test_read_times_over_clock_changes(zone: str, name: str, kind: str) -> None:
    """A year and a bit, both changes included, continues as pandas does."""
    if (zone, name, kind) == ("Australia/Lord_Howe", "hourly", "naive"):
        return  # an hour there begins at half past, once a year: the order does not say which one
    freq = {"hourly": "h", "daily": "D", "weekly": "7D", "monthly": "MS"}[name]
    if name == "hourly":
        whole = pd.date_range("2023-02-01", "2024-05-01", freq="h", tz="UTC").tz_convert(zone)
    else:
        # Where midnight is skipped, the day begins at one.
        days = pd.date_range("2023-02-01", "2024-05-01", freq=freq)
        whole = days.tz_localize(zone, nonexistent="shift_forward")
        if kind == "naive":
            whole = days.tz_localize("UTC")
    column = pd.Series(whole, name="when")
    kwargs = {} if kind == "aware" else {"timezone": zone}
    if kind == "naive":
        column = column.dt.tz_localize(None)
    elif kind == "text":
        column = pd.Series([stamp.isoformat() for stamp in whole], name="when")
    rows = len(column) - {"hourly": 2000, "daily": 60, "weekly": 10, "monthly": 3}[name]
    spacing, written = continue_by(column[:rows], len(column) - rows, **kwargs)
    assert spacing == name
    pd.testing.assert_series_equal(written.rename("when"), column, check_freq=False)


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from([*ZONES, "America/Sao_Paulo", "Asia/Beirut", "+05:30"]),
    start=st.datetimes(pd.Timestamp("1972-01-01"), pd.Timestamp("2035-01-01")),
    step=st.sampled_from(["15min", "h", "6h", "1D", "12h"]),
)
def test_read_times_aware_round_trip(zone: str, start, step: str) -> None:
    stamps = pd.date_range(start, periods=300, freq=step, tz="UTC").tz_convert(zone)
    column = pd.Series(stamps, name="when")
    times, form = read_times(column)
    pd.testing.assert_series_equal(form.write(times), column, check_freq=False)
    # With the local clock alone, the order of the rows tells the two hours of autumn apart.
    naive = column.dt.tz_localize(None)
    times, form = read_times(naive, timezone=zone)
    pd.testing.assert_series_equal(form.write(times), naive, check_freq=False)
    if step in ("15min", "h"):
        assert (np.diff(times) == (stamps[1] - stamps[0]).to_timedelta64()).all()


def autumn(freq: str = "30min") -> pd.DatetimeIndex:
    return pd.date_range("2024-10-26 12:00", "2024-10-27 12:00", freq=freq, tz=BERLIN)


@pytest.mark.parametrize("order", ["in order", "by local time", "newest first"])
def test_read_times_infers_the_repeated_hour(order: str) -> None:
    """Two series follow each other, each of them with the hour twice."""
    stamps = autumn()
    table = pd.DataFrame({"utc": stamps.tz_convert("UTC"), "wall": stamps.tz_localize(None)})
    if order == "by local time":
        table = table.sort_values("wall", kind="stable")
    elif order == "newest first":
        table = table[::-1]
    table = pd.concat([table, table], ignore_index=True)
    series = np.repeat([0, 1], len(stamps))
    times, form = read_times(table["wall"], timezone=BERLIN, series=series)
    assert times.tolist() == table["utc"].dt.tz_localize(None).tolist()
    assert form.write(times).tolist() == table["wall"].tolist()


def test_read_times_places_a_single_ambiguous_hour_by_its_neighbors() -> None:
    """The second half past two, whose first is missing, follows a later time."""
    stamps = autumn().delete(30)
    assert stamps[29].hour == 2 and stamps[29].minute == 30 and stamps[30].minute == 30
    times, _ = read_times(pd.Series(stamps.tz_localize(None)), timezone=BERLIN)
    assert times.tolist() == stamps.tz_convert("UTC").tz_localize(None).tolist()


def test_read_times_refuses_a_repeated_hour_in_random_order() -> None:
    walls = pd.Series(autumn().tz_localize(None), name="when").sample(frac=1, random_state=0)
    with pytest.raises(InputError, match="the rows are not in order of time: sort them"):
        read_times(walls.reset_index(drop=True), timezone=BERLIN)


@pytest.mark.parametrize(
    ("zone", "skipped"),
    [
        (BERLIN, "2024-03-31 02:00:00"),
        ("America/New_York", "2024-03-10 02:00:00"),
        ("Australia/Sydney", "2024-10-06 02:00:00"),
        ("America/Santiago", "2024-09-08 00:00:00"),
    ],
)
def test_read_times_refuses_times_that_do_not_exist(zone: str, skipped: str) -> None:
    start = pd.Timestamp(skipped) - pd.Timedelta(hours=5)
    walls = pd.Series(pd.date_range(start, periods=10, freq="h"), name="when")
    with pytest.raises(InputError) as error:
        read_times(walls, timezone=zone)
    assert f"column 'when': {skipped} in row 6 does not exist in {zone}" in str(error.value)
    assert Argument("timezone") in error.value.args
    # As UTC, or without a time of day, it does exist.
    assert read_times(walls, timezone="UTC")[0].tolist() == walls.tolist()
    days = pd.Series(pd.date_range(start.normalize(), periods=10), name="when")
    assert read_times(days, timezone=zone)[0].tolist() == days.tolist()


@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone not in ("UTC", "Asia/Kathmandu")])
@pytest.mark.parametrize("season", ["spring", "autumn", "both"])
@pytest.mark.parametrize("minutes", [60, 15])
def test_read_times_names_summer_time(zone: str, season: str, minutes: int) -> None:
    """Local times over a change, in either direction, need a zone."""
    ahead = pd.date_range("2024-01-01", "2025-01-01", freq="h", tz="UTC").tz_convert(zone)
    offsets = (ahead.tz_localize(None) - ahead.tz_convert(None)).total_seconds()
    spring, fall = np.flatnonzero(np.diff(offsets) > 0)[0], np.flatnonzero(np.diff(offsets) < 0)[0]
    first, last = {
        "spring": (spring - 100, spring + 100),
        "autumn": (fall - 100, fall + 100),
        "both": (min(spring, fall) - 50, max(spring, fall) + 50),
    }[season]
    stamps = pd.date_range(ahead[first], ahead[last], freq=f"{minutes}min").tz_localize(None)
    if zone == "Australia/Lord_Howe" and minutes == 60:
        return  # its half hour neither repeats nor skips a time on the hour
    with pytest.raises(InputError) as error:
        read_times(pd.Series(stamps, name="when"))
    assert "column 'when': " in str(error.value)
    assert "summer time" in str(error.value)
    assert Argument("timezone") in error.value.args
    read_times(pd.Series(stamps, name="when"), timezone=zone)


def test_read_times_accepts_gaps_that_no_clock_change_explains() -> None:
    hours = pd.Series(pd.date_range("2024-03-01", periods=1000, freq="h"))
    read_times(hours)
    for missing in (
        ["2024-03-30 02:00"],
        ["2024-03-31 02:00", "2024-04-02 00:00", "2024-04-05 07:00"],
    ):
        kept = hours[~hours.isin(pd.to_datetime(missing))].reset_index(drop=True)
        assert read_times(kept)[0].tolist() == kept.tolist()
    # Repeated rows are an error of another kind.
    repeated = pd.concat([hours, hours[:5]], ignore_index=True)
    assert len(read_times(repeated)[0]) == 1005


def test_read_times_local_days_of_utc_stamps() -> None:
    """Midnights in Berlin, stored in UTC, are even days by the clock of Berlin."""
    days = pd.date_range("2024-03-25", periods=20, tz=BERLIN).tz_convert("UTC")
    column = pd.Series(days, name="when")
    times, _ = read_times(column)
    with pytest.raises(InputError, match="if summer time changes the clock, give the zone"):
        infer_frequency(times, one_series(20), str)
    name, written = continue_by(column[:10], 10, timezone=BERLIN)
    assert name == "daily"
    pd.testing.assert_series_equal(written.rename("when"), column, check_freq=False)


def test_read_times_text_with_several_offsets() -> None:
    hours = pd.date_range("2024-03-30", periods=60, freq="h", tz=BERLIN)
    text = pd.Series([stamp.isoformat() for stamp in hours], name="when")
    with pytest.warns(UserWarning, match="'when' has several offsets from UTC"):
        times, form = read_times(text)
    assert times.tolist() == hours.tz_convert("UTC").tz_localize(None).tolist()
    assert form.write(times).iloc[0] == "2024-03-29T23:00:00+00:00"
    _, written = continue_by(text, 1, timezone=BERLIN)
    assert written.tolist() == [*text, "2024-04-01T13:00:00+02:00"]
    days = pd.Series([stamp.isoformat() for stamp in hours[hours.hour == 0]], name="when")
    with pytest.raises(InputError, match="the offset from UTC changes, as with summer time"):
        read_times(days)


def test_read_times_steps_of_hours_follow_the_clock_that_they_are_even_by() -> None:
    local = pd.date_range("2024-03-28", periods=40, freq="6h").tz_localize(BERLIN)
    times, form = read_times(pd.Series(local))
    assert form.local and len(set(np.diff(times))) == 1
    utc = pd.date_range("2024-03-28", periods=40, freq="6h", tz="UTC").tz_convert(BERLIN)
    times, form = read_times(pd.Series(utc))
    assert not form.local and len(set(np.diff(times))) == 1


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "UTC", "UTC+02:00", "UTC-03:30", "dateutil/Europe/Berlin"]
)
def test_zone_names_are_read_back(name: str) -> None:
    assert zone_name(read_zone(name)) == name


def test_zone_names_of_other_libraries() -> None:
    assert zone_name(dateutil.tz.tzutc()) == "UTC"
    assert zone_name(dateutil.tz.tzoffset(None, 7200)) == "UTC+02:00"
    stamps = pd.Series(pd.date_range("2024-03-25", periods=9, tz=dateutil.tz.gettz(BERLIN)))
    times, form = read_times(stamps)
    assert form.write(times).dtype == stamps.dtype
    pytz = pytest.importorskip("pytz")
    stamps = pd.Series(pd.date_range("2024-03-25", periods=9, tz=pytz.timezone(BERLIN)))
    times, form = read_times(stamps)
    assert form.write(times).dtype == stamps.dtype


@pytest.mark.parametrize("name", ["Berlin", "../../etc/passwd", "/etc/localtime", "", "dateutil/x"])
def test_read_zone_rejects(name: str) -> None:
    with pytest.raises(InputError, match="is not a time zone: write it as Europe/Berlin"):
        read_times(pd.Series(["2024-01-01"]), timezone=name)


def test_local_times_follow_the_local_clock() -> None:
    hours = pd.Series(pd.date_range("2024-03-30", periods=60, freq="h", tz=BERLIN))
    times, form = read_times(hours)
    assert form.local_times(times).tolist() == hours.dt.tz_localize(None).tolist()
    # pandas 2 takes its zones from pytz.
    assert str(ZoneInfo(form.clock.removeprefix("pytz/"))) == BERLIN
