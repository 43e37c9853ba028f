"""Files of all kinds, including very large and damaged ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.command_line import SALES, Forecast
from helpers.tables import daily, stores
from pytorch_forecasting_mlstm.cli.read_table import read_holidays, read_table

LONG = "x" * 300_000


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "sales.csv: is empty"),
        ("\n\n", "sales.csv: is empty"),
        ("date,sales\n", "sales.csv: has column names but no rows"),
        (
            "date,sales\n2024-01-01,1,2\n",
            "cannot be read: Length of header or names does not match",
        ),
        ("date,sales\n2024-01-01,1\n2024-01-02,1,2\n", "cannot be read: Error tokenizing data"),
        ("dåte,sales\n".encode("latin-1"), "sales.csv: is not UTF-8 text: save it as UTF-8"),
        (
            "date,sale\n1,1\n",
            "no column 'sales' (did you mean 'sale'?); its columns are: date, sale",
        ),
        ("day,sales\n1,1\n", "sales.csv: has no column 'date'; its columns are: day, sales"),
        ("date,sales,sales\n1,1,2\n", "sales.csv: has two columns 'sales': rename one of them"),
    ],
)
def test_read_table_rejects(fail, file: str | bytes, message: str) -> None:
    assert message in fail("sales.csv", *SALES, table=file)


def test_read_table_rejects_a_damaged_parquet_file(fail) -> None:
    pytest.importorskip("pyarrow")
    Path("t.parquet").write_bytes(b"not parquet")
    assert "t.parquet: cannot be read: " in fail("t.parquet", *SALES)


def test_read_table_parquet_of_unusual_types(fail) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    dates, numbers = pd.date_range("2024-01-01", periods=40), np.arange(40.0)
    columns = {"date": pyarrow.array(dates), "sales": numbers, "store": ["7"] * 40}
    zones = {
        zone: pyarrow.array(dates, pyarrow.timestamp("us", tz=zone))
        for zone in ("Europe", "No/Where", "../etc")
    }
    far = pyarrow.array(np.arange(40) * 10**12, pyarrow.timestamp("s"))
    for column, values, message in [
        ("date", zones["Europe"], "'date' is in the unknown time zone 'Europe': write its times"),
        ("date", zones["No/Where"], "'date' is in the unknown time zone 'No/Where'"),
        ("date", zones["../etc"], "'date' is in the unknown time zone '../etc'"),
        ("date", far, "'33658-09-27 01:46:40' in row 2 is not between the years 1 and 9999"),
        ("date", pyarrow.nulls(40), "cannot read 'None' in row 1 and 39 more"),
        ("date", np.arange(40, dtype=np.uint64) + 2**63, "'9223372036854775808' in row 1 does not"),
        ("date", pyarrow.array(range(40), pyarrow.duration("s")), "cannot read '0 days 00:00:00'"),
        (
            "sales",
            pyarrow.array(range(40), pyarrow.duration("s")),
            "holds durations, a target must",
        ),
        ("sales", [[1]] * 40, "holds text such as '[1]' in rows 1, 2, 3"),
        ("sales", [b"\xff"] * 40, "holds text such as"),
        ("store", [[1]] * 40, "group column 'store' holds '[1]' in rows 1, 2, 3, ...: write names"),
        ("store", [{"a": 1}] * 40, "group column 'store' holds"),
        ("store", [b"\xff"] * 40, "group column 'store' holds"),
    ]:
        parquet.write_table(pyarrow.table({**columns, column: values}), "t.parquet")
        assert message in fail("t.parquet", *SALES, "--group", "store")
    duplicate = pyarrow.table([columns["date"], numbers, numbers], names=["date", "sales", "sales"])
    parquet.write_table(duplicate, "t.parquet")
    assert "has two columns 'sales': rename one" in fail("t.parquet", *SALES)


def test_read_table_name_that_is_too_long(fail) -> None:
    assert "cannot be read: [Errno 36] File name too long" in fail("x" * 5000 + ".csv", *SALES)


def wide(extra: str = "") -> str:
    """Return a table of 100,000 columns, with ``extra`` cells in one row."""
    header = ",".join(["date", "sales", *(f"c{k}" for k in range(99_998))])
    rows = [f"2024-01-{k + 1:02d},{k}" + ",1" * 99_998 for k in range(30)]
    rows[20] += extra
    return "\n".join([header, *rows, ""])


def test_read_table_reads_only_requested_columns(
    fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row with more cells than the header still raises."""
    read_csv, shapes = pd.read_csv, []

    def spy(*args: object, **kwargs: object) -> pd.DataFrame:
        frame = read_csv(*args, **kwargs)
        shapes.append(frame.shape)
        return frame

    monkeypatch.setattr(pd, "read_csv", spy)
    (tmp_path / "wide.csv").write_text(wide())
    frame = read_table(tmp_path / "wide.csv", ["date"], ["sales"])
    assert frame["sales"].tolist() == list(range(30))
    assert shapes == [(30, 2)]
    message = fail("sales.csv", *SALES, table=wide(",9"))
    assert "sales.csv: row 21 has 100001 cells, the header 100000: correct one of them" in message
    assert fail("sales.csv", *SALES, "--group", "c99998", table=wide()).count(",") < 20


def test_read_table_cells_of_any_size(tmp_path: Path) -> None:
    """Long names in the header, and long cells, which the check of row widths reads, too."""
    table = daily(30).assign(
        **{"note" * 100_000: LONG[:1_000_000], **{f"c{k}": 1 for k in range(30)}}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    assert read_table(tmp_path / "t.csv", ["date"], ["sales"]).shape == (30, 2)


def test_read_table_without_packages(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("t.parquet").touch()
    monkeypatch.setattr("pytorch_forecasting_mlstm.cli.read_typed.find_spec", lambda name: None)
    assert "t.parquet: needs pyarrow: pip install pyarrow, or save" in fail("t.parquet", *SALES)
    Path("t.xlsx").touch()
    install = "pip install 'pytorch-forecasting-mlstm[excel]', or save"
    assert f"t.xlsx: needs openpyxl: {install}" in fail("t.xlsx", *SALES)


def test_read_table_parquet_with_times_in_its_index(forecast: Forecast) -> None:
    pytest.importorskip("pyarrow")
    table = stores({"1": 60, "2": 60}).astype({"store": int})
    table["date"] = pd.to_datetime(table["date"])
    table["sales"] = table["sales"].round().astype("Int64")
    table.set_index("date").to_parquet("t.parquet")
    result = forecast("t.parquet", "date", "sales", 3, "--group", "store")
    assert result["store"].tolist() == ["1"] * 3 + ["2"] * 3
    assert result["date"].iloc[0] == "2024-05-01"


def test_read_table_semicolons_and_decimal_commas(
    forecast: Forecast, daily_forecast: pd.DataFrame
) -> None:
    daily().to_csv("t.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    pd.testing.assert_frame_equal(forecast("t.csv", "date", "sales", 3), daily_forecast)


KINDS = ["t.csv", "t.csv.gz", "t.TSV", "t.tsv.gz", "t.xlsx", "t.parquet"]


def write(table: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format of its name."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        table.to_parquet(path)
    elif name.endswith(".xlsx"):
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    return path


@pytest.mark.parametrize("name", KINDS)
def test_read_table_kinds_are_equal(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame(
        {
            "store": ["007", "NA", "b;c"],
            "day": ["2024-03-01", "2024-03-02", "2024-03-03"],
            "sales": [1.5, np.nan, 3.25],
            "open": [True, False, True],
            "kind": ["x", None, "y"],
            "unused": [1, 2, 3],
        }
    )
    path = write(table, tmp_path / name)
    read = read_table(path, ["day", "store"], ["sales"], ["open", "kind"])
    assert read.columns.tolist() == ["day", "store", "sales", "open", "kind"]
    assert read["store"].tolist() == ["007", "NA", "b;c"]
    assert read["day"].tolist() == table["day"].tolist()
    np.testing.assert_array_equal(read["sales"], table["sales"])
    assert read["open"].dtype == bool
    assert read["kind"].isna().tolist() == [False, True, False]


def test_read_table_excel_sheets_types_and_empty_rows(tmp_path: Path) -> None:
    """Dates and numbers keep their types; rows that were cleared at the end are no rows."""
    table = pd.DataFrame(
        {"day": pd.date_range("2024-03-01", periods=3), "store": [7, 7, 7], "sales": [1, 2.5, None]}
    )
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as file:
        table.to_excel(file, sheet_name="Sales", index=False)
        table.to_excel(file, sheet_name="Notes", index=False)
        for row in range(5, 9):
            file.sheets["Sales"].cell(row, 1).value = " "
    with pytest.warns(UserWarning, match="t.xlsx has 2 sheets, of which the first, 'Sales', is"):
        read = read_table(path, ["day", "store"], ["sales"])
    assert read["day"].tolist() == table["day"].tolist()
    assert read["store"].tolist() == [7, 7, 7]
    assert read["sales"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.xlsx"])
def test_read_table_rejects_damaged_files(fail, name: str) -> None:
    Path(name).write_bytes(b"date,sales\n2024-01-01,1\n")
    assert f"{name}: cannot be read: " in fail(name, *SALES)


def test_read_table_rejects_excel_without_the_columns(fail, tmp_path: Path) -> None:
    pd.DataFrame({"day": [1], "Sales": [2]}).to_excel("t.xlsx", index=False)
    assert "t.xlsx: has no column 'date'; its columns are: day, Sales" in fail("t.xlsx", *SALES)
    pd.DataFrame().to_excel("t.xlsx", index=False)
    assert "t.xlsx: the first sheet, 'Sheet1', is empty" in fail("t.xlsx", *SALES)
    pd.DataFrame([["date", "sales", "sales"], [1, 2, 3]]).to_excel(
        "t.xlsx", index=False, header=False
    )
    assert "t.xlsx: has two columns 'sales': rename one" in fail("t.xlsx", *SALES)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_read_table_thousands_are_refused_with_the_cure(fail, separator: str) -> None:
    """German thousands, 1.003, were read as 1.003; --decimal reads them."""
    table = daily().assign(sales=lambda t: [f"{1000 + 7 * k:,}".replace(",", ".") for k in t.index])
    message = fail("sales.csv", *SALES, table=table.to_csv(index=False, sep=separator))
    assert "sales.csv, column 'sales': '1.000' in rows 1, 2, 3, ... has a mark that may" in message
    assert "name the decimal mark, . or , with --decimal" in message
    numbers = read_table(Path("sales.csv"), ["date"], ["sales"], decimal=",")["sales"]
    assert numbers.tolist() == [1000 + 7 * k for k in range(60)]


@pytest.mark.parametrize(
    ("content", "holidays"),
    [
        ("2024-05-01\n2024-12-25\n", ["2024-05-01", "2024-12-25"]),
        ("\ufeffdate;name\n\n01.05.2024;Labor Day\n", ["01.05.2024"]),
        ('# exchange\n"2024-05-01", # closed\n', ["2024-05-01"]),
    ],
)
def test_read_holidays(tmp_path: Path, content: str, holidays: Any) -> None:
    (tmp_path / "days.txt").write_text(content, encoding="utf-8")
    assert read_holidays(str(tmp_path / "days.txt")) == holidays
    assert read_holidays("DE-BY") == "DE-BY"


def test_read_holidays_rejects_a_file_without_dates(fail) -> None:
    Path("days.txt").write_text("date\n\n")
    message = fail("sales.csv", *SALES, "--holidays", "days.txt", table=daily())
    assert "--holidays: days.txt holds no dates: write one per line" in message
    Path("days.txt").write_bytes(b"\xff\xfe\n")
    message = fail("sales.csv", *SALES, "--holidays", "days.txt", table=daily())
    assert "--holidays: days.txt is not UTF-8 text: write one date per line" in message
