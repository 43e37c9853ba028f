"""Every mistake in a table gives one line that names the problem, its place, and a fix."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.command_line import SALES
from helpers.tables import daily, stores
from pytorch_forecasting_mlstm import Forecaster

LONG = "x" * 140_000  # longer than the csv module reads by default


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistakes are found before the training."""

    def fit(*args: object, **kwargs: object) -> None:
        raise AssertionError("a training began")

    monkeypatch.setattr(Forecaster, "fit", fit)


def daily_with(row: int, column: str, value: object) -> pd.DataFrame:
    table = daily().astype(object)
    table.loc[row, column] = value
    return table


def day_first() -> pd.DataFrame:
    dates = pd.date_range("2024-01-01", periods=12).strftime("%d/%m/%Y")
    return daily(12).assign(date=dates)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (daily_with(4, "date", "soon"), "column 'date': cannot read 'soon' in row 5 as a date or"),
        (daily_with(4, "date", "2024-02-30"), "cannot read '2024-02-30' in row 5 as a date"),
        (daily_with(4, "date", ""), "cannot read '' in row 5 as a date"),
        (day_first(), "can be read with the day or the month first: write"),
        (daily_with(4, "date", "2024-01-04"), "rows 4, 5 have the same time 2024-01-04"),
        (daily(8), "8 rows are too short for --horizon 7, which needs 9"),
        (daily(1), "a single row is too short to forecast from: add rows"),
        (daily_with(4, "sales", "many"), "column 'sales': holds text such as 'many' in row 5"),
        (daily_with(4, "sales", "-inf"), "column 'sales' is infinite in row 5"),
        (daily().assign(sales="12,5"), "'12,5' in rows 1, 2, 3, ... has a mark that may be the"),
        (daily().assign(sales=np.nan), "has no value of 'sales'"),
        (daily().assign(sales=1e308), "1e+308, too large to add up"),
    ],
)
def test_run_forecast_rejects_times_and_targets(fail, table: pd.DataFrame, message: str) -> None:
    assert message in fail("sales.csv", *SALES, table=table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (stores({"7": 60, "": 60}), "group column 'store' is empty in rows 61, 62, 63, ...: name"),
        (daily().assign(store=range(60)), "does --group name too many columns?"),
        (pd.concat([stores({"7": 60})] * 2), "store=7: rows 1, 61 have the same time 2024-03-02"),
    ],
)
def test_run_forecast_rejects_groups(fail, table: pd.DataFrame, message: str) -> None:
    assert message in fail("sales.csv", *SALES, "--group", "store", table=table)


def test_run_forecast_two_rows_per_time_need_a_group(fail) -> None:
    message = fail("sales.csv", *SALES, table=stores({"7": 60, "8": 60}))
    assert "rows 1, 61 have the same time" in message
    assert "tell the series apart by --group" in message


def test_run_forecast_rejects_known_columns_without_a_future(fail) -> None:
    table = daily().assign(promo=1.0)
    message = fail("sales.csv", *SALES, "--known", "promo", table=table)
    assert "pass rows for all 7 steps to forecast" in message
    assert "as --future" in message
    table.loc[53:, "sales"] = np.nan
    table.loc[57, "promo"] = np.nan
    message = fail("sales.csv", *SALES, "--known", "promo", table=table)
    assert "table lacks 'promo' for 2024-02-27" in message


def test_run_forecast_rejects_reserved_column_names(fail) -> None:
    table = daily().rename(columns={"date": "step"})
    message = fail("sales.csv", "--time", "step", *SALES[2:], table=table)
    assert "column 'step' is also a column of the forecast: rename yours" in message


def test_run_forecast_rejects_dates_as_target(fail) -> None:
    table = pd.DataFrame({"day": range(60), "due": pd.date_range("2024", periods=60)})
    table.to_parquet("t.parquet")
    message = fail("t.parquet", "--time", "day", "--target", "due", "--horizon", "7")
    assert "column 'due': holds dates, a target must be a number" in message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.concat([stores({LONG: 60})] * 2), "store=xxx"),
        (pd.concat([stores({"\x1b[31mred\x07": 60})] * 2), r"store=\x1b[31mred\x07: rows"),
        (pd.concat([stores({"a\nb\u202e": 60})] * 2), r"store=a\nb\u202e: rows"),
        (stores({"7": 60}).assign(sales=LONG), "holds text such as 'xxx"),
        (stores({"7": 60}).assign(date=LONG), "cannot read 'xxx"),
        (stores({"7": 60}).rename(columns={"date": LONG}), "its columns are: xxx"),
    ],
    ids=range(6),
)
def test_run_forecast_error_is_one_short_line(fail, table: pd.DataFrame, message: str) -> None:
    line = fail("sales.csv", *SALES, "--group", "store", table=table)
    assert message in line
    assert len(line) < 1000
    assert line[:-1].isprintable()


def test_run_forecast_shows_a_name_with_nul(fail) -> None:
    table = b"da\x00te,sales\n" + b"".join(b"2024-01-%02d,1\n" % day for day in range(1, 29))
    readable = sys.version_info >= (3, 11)  # where Python's csv module reads it
    message = r"did you mean 'da\x00te'?" if readable else "cannot be read: line contains NUL"
    assert message in fail("sales.csv", *SALES, table=table)


def test_run_forecast_replaces_no_folder_and_no_input(fail, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert "models is a folder: name another place with --save" in fail(
        "sales.csv", *SALES, "--save", "models", table=daily()
    )
    for save in ("sales.csv", "forecast.png"):
        message = f"{save} would be replaced: name another place with --save"
        assert message in fail("sales.csv", *SALES, "--save", save)
    (tmp_path / "forecast.csv").write_bytes((tmp_path / "sales.csv").read_bytes())
    message = "forecast.csv would be replaced: name another place with --output"
    assert message in fail("forecast.csv", *SALES)
