"""Forecasts continue times in many formats."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.command_line import QUANTILES
from helpers.tables import noisy_season, read_panel
from pytorch_forecasting_mlstm.forecaster.forecast_frame import forecast_frame


def series(times: pd.DatetimeIndex, form: str = "%Y-%m-%d") -> pd.DataFrame:
    return pd.DataFrame({"when": times.strftime(form), "sold": noisy_season(len(times))})


def times_ahead(path: Path, table: pd.DataFrame, horizon: int) -> list[str]:
    """Return the first and the last time of the written forecast of a single series."""
    table.to_csv(path, index=False)
    panel = read_panel(path, time="when", target="sold", group=(), known=(), horizon=horizon)
    tidy = forecast_frame(panel, np.zeros((1, horizon, len(QUANTILES))))
    tidy.to_csv(path, index=False)
    return pd.read_csv(path, dtype=str)["when"].iloc[[0, -1]].tolist()


@pytest.mark.parametrize(
    ("start", "freq", "form", "first", "last"),
    [
        ("2023-12-30", "D", "%Y-%m-%d", "2024-02-28", "2024-03-01"),
        ("2024-01-01", "2D", "%Y%m%d", "2024-04-30", "2024-05-04"),
        ("2024-01-01", "B", "%Y-%m-%d", "2024-03-25", "2024-03-27"),
        ("2024-01-03", "B", "%d.%m.%Y", "2024-03-27", "2024-03-29"),
        ("2023-01-04", "7D", "%Y-%m-%d", "2024-02-28", "2024-03-13"),
        ("2019-01-31", pd.offsets.MonthEnd(), "%Y-%m-%d", "2024-01-31", "2024-03-31"),
        ("2019-01-01", "MS", "%Y-%m", "2024-01-01", "2024-03-01"),
        ("2019-01-15", pd.DateOffset(months=1), "%Y-%m-%d", "2024-01-15", "2024-03-15"),
        ("2009-01-01", "QS", "%Y-%m-%d", "2024-01-01", "2024-07-01"),
        ("1964-01-01", pd.DateOffset(years=1), "%Y-%m-%d", "2024-01-01", "2026-01-01"),
        ("2024-02-27", "h", "%Y-%m-%dT%H:%M", "2024-02-29 12:00:00", "2024-02-29 14:00:00"),
        (
            "2024-02-28 18:00",
            "30min",
            "%m/%d/%Y %H:%M",
            "2024-03-01 00:00:00",
            "2024-03-01 01:00:00",
        ),
        (
            "2024-02-29 23:00",
            "min",
            "%Y-%m-%d %H:%M:%S",
            "2024-03-01 00:00:00",
            "2024-03-01 00:02:00",
        ),
    ],
)
def test_read_times_accepts_common_formats(
    tmp_path: Path, start: str, freq: str | pd.DateOffset, form: str, first: str, last: str
) -> None:
    table = series(pd.date_range(start, periods=60, freq=freq), form)
    assert times_ahead(tmp_path / "t.csv", table, 3) == [first, last]


def test_read_times_offsets_from_utc(tmp_path: Path) -> None:
    """The hour that daylight saving time skips is not missing."""
    times = pd.date_range("2024-03-29", periods=72, freq="h", tz="Europe/London")
    table = series(times, "%Y-%m-%d %H:%M:%S%z")
    assert table["when"].str.endswith("+0100").any()
    assert table["when"].str.endswith("+0000").any()
    assert times_ahead(tmp_path / "t.csv", table, 2)[0] == "2024-04-01 00:00:00+00:00"


@pytest.mark.parametrize(("step", "expected"), [(1, ["160", "161"]), (5, ["400", "405"])])
def test_read_times_accepts_integers(tmp_path: Path, step: int, expected: list[str]) -> None:
    table = pd.DataFrame({"when": 100 + step * np.arange(60), "sold": noisy_season(60)})
    assert times_ahead(tmp_path / "t.csv", table.sample(frac=1, random_state=0), 2) == expected
