"""Every mistake in a table gives one line that names the problem, its place, and a fix."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.command_line import SALES
from helpers.tables import daily, stores

LONG = "x" * 300_000


def daily_with(row: int, column: str, value: object) -> pd.DataFrame:
    table = daily().astype(object)
    table.loc[row, column] = value
    return table


def day_first() -> pd.DataFrame:
    dates = pd.date_range("2024-01-01", periods=12).strftime("%d/%m/%Y")
    return daily(12).assign(date=dates)


def at_noon(row: int) -> pd.DataFrame:
    table = daily()
    clock = np.where(table.index == row, " 12:00", " 00:00")
    return table.assign(date=table["date"] + clock)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            daily_with(4, "date", "soon"),
            "column 'date': cannot read 'soon' in row 5 as a date or whole",
        ),
        (daily_with(0, "date", "soon"), "cannot read 'soon' in row 1 as a date"),
        (daily_with(4, "date", "2024-02-30"), "cannot read '2024-02-30' in row 5 as a date"),
        (daily_with(4, "date", ""), "cannot read '' in row 5 as a date"),
        (
            daily().assign(date=np.arange(60) + 0.5),
            "cannot read '0.5' in row 1 and 59 more as a date",
        ),
        (
            day_first(),
            "'01/01/2024' and the like can be read with the day or the month first: write",
        ),
        (
            daily_with(4, "date", "2024-01-04"),
            "rows 4, 5 have the same time 2024-01-04 00:00:00: add such",
        ),
        (daily().drop(10), "no row for 2024-01-11 00:00:00 (spacing: daily): add the missing rows"),
        (daily().drop([10, 11]), "2024-01-11 00:00:00 to 2024-01-12 00:00:00 (2 times) (spacing:"),
        (daily().drop([10, 11, 30]), "(2 times); 3 missing in all (spacing: daily)"),
        (
            at_noon(4),
            "12:00:00 does not fit the spacing of the other times (daily, from 2024-01-01",
        ),
        (
            daily(23),
            "23 rows are too short for --horizon 7, which needs 24: choose --horizon 6 or less",
        ),
        (daily(2), "2 rows are too short for --horizon 7, which needs 24: add rows"),
        (daily(1), "sales.csv: a single row is too short to forecast from: add rows"),
    ],
)
def test_run_forecast_rejects_times(fail, table: pd.DataFrame, message: str) -> None:
    assert message in fail("sales.csv", *SALES, table=table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            daily_with(4, "sales", "many"),
            "column 'sales': holds text such as 'many' in row 5: a target",
        ),
        (daily().assign(sales="12,5"), "'12,5' may have a decimal comma or a thousands separator"),
        (
            daily_with(4, "sales", ""),
            "sales.csv: column 'sales' is empty in row 5: fill in a number",
        ),
        (daily_with(4, "sales", "-inf"), "column 'sales' is infinite in row 5"),
        (daily().assign(sales=np.nan), "column 'sales' is empty in rows 1, 2, 3, ...: fill in"),
    ],
)
def test_run_forecast_rejects_targets(fail, table: pd.DataFrame, message: str) -> None:
    assert message in fail("sales.csv", *SALES, table=table)


def test_run_forecast_rejects_times_without_a_common_step(fail) -> None:
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.choice(86_400 * 365, 200, replace=False))
    seconds[1] = seconds[0] + 1
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    table = pd.DataFrame({"date": times.strftime("%Y-%m-%d %H:%M:%S"), "sales": 1.0})
    message = fail("sales.csv", *SALES, table=table)
    assert "the times have no common step" in message
    assert "aggregate them to hours, days or months first" in message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            stores({"7": 60, "8": 20}),
            "store=8: 20 rows are too short for --horizon 7, which needs 24",
        ),
        (stores({"7": 60, "8": 20}), ": choose --horizon 5 or less, or drop such series"),
        (stores({"7": 20, "8": 19}), "store=8: 19 rows are too short"),
        (stores({"7": 20, "8": 19}), "(2 of 2 series are too short): choose --horizon 5 or less\n"),
        (stores({"7": 60, "8": 60}).drop(70), "sales.csv, store=8: no row for 2024-03-12 00:00:00"),
        (
            stores({"7": 60, "8": 60}).drop([9, 70]),
            "store=7: no row for 2024-03-11 00:00:00; 2 missing",
        ),
        (stores({"7": 60, "8": 60}).drop([9, 70]), "2 missing in all, in 2 groups"),
        (
            stores({"7": 60, "": 60}),
            "group column 'store' is empty in rows 61, 62, 63, ...: name the",
        ),
        (daily().assign(store=range(60)), "from: does --group name too many columns?"),
        (pd.concat([stores({"7": 60})] * 2), "store=7: rows 1, 61 have the same time 2024-03-02"),
        (pd.concat([stores({"7": 60})] * 2), " and 59 more: add such rows up\n"),
    ],
)
def test_run_forecast_rejects_groups(fail, table: pd.DataFrame, message: str) -> None:
    assert message in fail("sales.csv", *SALES, "--group", "store", table=table)


def test_run_forecast_two_rows_per_time_need_a_group(fail) -> None:
    message = fail("sales.csv", *SALES, table=stores({"7": 60, "8": 60}))
    assert "rows 1, 61 have the same time" in message
    assert "tell the series apart by --group" in message


@pytest.mark.parametrize(
    ("promo", "sales", "message"),
    [
        (1.0, 0, "ends with 0 rows without 'sales', but --known needs exactly 7"),
        (1.0, 5, "ends with 5 rows without 'sales', but --known needs exactly 7"),
        (1.0, 60, "ends with 60 rows without 'sales'"),
        (np.nan, 7, "column 'promo' is empty or infinite in row 58"),
    ],
)
def test_run_forecast_rejects_known_columns(fail, promo: float, sales: int, message: str) -> None:
    table = daily().assign(promo=1.0)
    table.loc[len(table) - sales :, "sales"] = np.nan
    table.loc[57, "promo"] = promo
    assert message in fail("sales.csv", *SALES, "--known", "promo", table=table)


def test_run_forecast_rejects_a_history_that_is_too_long(fail) -> None:
    message = fail("sales.csv", *SALES, "--history", "50", table=daily())
    assert "--history 50 is longer than the 39 steps" in message
    assert "choose at most 39" in message


def test_run_forecast_rejects_reserved_column_names(fail) -> None:
    table = daily().rename(columns={"date": "step"})
    message = fail("sales.csv", "--time", "step", *SALES[2:], table=table)
    assert "column 'step' is also a column of the forecast: rename yours" in message


def test_run_forecast_rejects_dates_as_target(fail, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pd.DataFrame({"day": range(60), "due": pd.date_range("2024", periods=60)}).to_parquet(
        "t.parquet"
    )
    message = fail("t.parquet", "--time", "day", "--target", "due", "--horizon", "7")
    assert "t.parquet, column 'due': holds dates, a target must be a number" in message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (stores({LONG: 9, "8": 60}), "store=xxx"),
        (stores({"\x1b[31mred\x07": 9, "8": 60}), r"store=\x1b[31mred\x07: 9 rows"),
        (stores({"a\nb\u202e": 9, "8": 60}), r"store=a\nb\u202e: 9 rows"),
        (pd.concat([stores({LONG: 60})] * 2), "store=xxx"),
        (stores({LONG: 60}).drop(9), "store=xxx"),
        (stores({"7": 60}).assign(sales=LONG), "holds text such as 'xxx"),
        (stores({"7": 60}).assign(date=LONG), "cannot read 'xxx"),
        (stores({"7": 60}).rename(columns={"date": LONG}), "its columns are: xxx"),
        (stores({"7": 60}).rename(columns={"date": "da\x00te"}), r"did you mean 'da\x00te'?"),
        (stores({"7": 60}).assign(sales=1e308), "is 1e+308 in rows 1, 2, 3, ..., too large"),
    ],
    ids=range(10),
)
def test_run_forecast_error_is_one_short_line(fail, table: pd.DataFrame, message: str) -> None:
    line = fail("sales.csv", *SALES, "--group", "store", table=table)
    assert message in line
    assert len(line) < 1000
    assert line[:-1].isprintable()
