"""Every mistake gets one line that says what, where, and how to mend it; never a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.tables import daily, stores
from pytorch_forecasting_mlstm.cli import extras
from pytorch_forecasting_mlstm.cli import read_table as columns
from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.forecaster import training

SALES = ("--time", "date", "--target", "sales", "--horizon", "7")


@pytest.fixture
def fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in an empty folder, and return the one line it complains with."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, table: pd.DataFrame | str | bytes | None = None) -> str:
        if isinstance(table, pd.DataFrame):
            table.to_csv("sales.csv", index=False)
        elif table is not None:
            Path("sales.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        before = set(tmp_path.iterdir())
        code = main(list(argv))
        printed = capsys.readouterr()
        assert code == 2
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert printed.err.endswith("\n")
        assert set(tmp_path.iterdir()) == before, "a failed run leaves no file"
        return printed.err

    return run


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--horizon", "7"], "--horizon needs a table: name the file first"),
        (["--group", "store", "--history", "9"], "--group, --history needs a table"),
        (
            ["sales.csv"],
            "sales.csv needs --time and --target and --horizon, for example --time date",
        ),
        (["sales.csv", "--time", "date", "--target", "sales"], "sales.csv needs --horizon"),
        (["sales.csv", *SALES[:-1], "0"], "--horizon: must be a whole number of at least 1, not 0"),
        (["sales.csv", *SALES[:-1], "-3"], "at least 1, not -3"),
        (["sales.csv", *SALES[:-1], "2.5"], "at least 1, not 2.5"),
        (
            ["sales.csv", *SALES, "--history", "0"],
            "--history: must be a whole number of at least 1",
        ),
        (["sales.csv", *SALES, "--epochs", "none"], "--epochs: must be a whole number"),
        (["sales.csv", *SALES, "--seed", "-1"], "--seed: must be a whole number of at least 0"),
        (["sales.csv", *SALES, "--horizn", "3"], "unrecognized arguments: --horizn 3 (try --help)"),
        (["sales.csv", *SALES, "--group", "date"], "column 'date' is named twice"),
        (["sales.csv", *SALES], "sales.csv: no such file"),
        (["sales.xlsx", *SALES], "sales.xlsx: is neither .csv nor .parquet"),
    ],
)
def test_options(fail, argv: list[str], says: str) -> None:
    assert says in fail(*argv)


def edited(row: int, column: str, value: object) -> pd.DataFrame:
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
    ("file", "says"),
    [
        ("", "sales.csv: is empty"),
        ("\n\n", "sales.csv: is empty"),
        ("date,sales\n", "sales.csv: has column names but no rows"),
        (
            "date,sales\n2024-01-01,1,2\n",
            "cannot be read: Length of header or names does not match",
        ),
        ("date,sales\n2024-01-01,1\n2024-01-02,1,2\n", "cannot be read: Error tokenizing data"),
        ("dåte,sales\n".encode("latin-1"), "sales.csv: is not UTF-8 text: save it as CSV in UTF-8"),
        (
            "date,sale\n1,1\n",
            "no column 'sales' (did you mean 'sale'?); its columns are: date, sale",
        ),
        ("day,sales\n1,1\n", "sales.csv: has no column 'date'; its columns are: day, sales"),
        ("date,sales,sales\n1,1,2\n", "sales.csv: has two columns 'sales': rename one of them"),
    ],
)
def test_files(fail, file: str | bytes, says: str) -> None:
    assert says in fail("sales.csv", *SALES, table=file)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            edited(4, "date", "soon"),
            "column 'date': cannot read 'soon' in row 5 as a date or whole",
        ),
        (edited(0, "date", "soon"), "cannot read 'soon' in row 1 as a date"),
        (edited(4, "date", "2024-02-30"), "cannot read '2024-02-30' in row 5 as a date"),
        (edited(4, "date", ""), "cannot read '' in row 5 as a date"),
        (
            daily().assign(date=np.arange(60) + 0.5),
            "cannot read '0.5' in row 1 and 59 more as a date",
        ),
        (
            day_first(),
            "'01/01/2024' and the like can be read with the day or the month first: write",
        ),
        (
            edited(4, "date", "2024-01-04"),
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
def test_times(fail, table: pd.DataFrame, says: str) -> None:
    assert says in fail("sales.csv", *SALES, table=table)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            edited(4, "sales", "many"),
            "column 'sales': holds text such as 'many' in row 5: a target",
        ),
        (daily().assign(sales="12,5"), "'12,5' may have a decimal comma or a mark of thousands"),
        (edited(4, "sales", ""), "sales.csv: column 'sales' is empty in row 5: fill in a number"),
        (edited(4, "sales", "-inf"), "column 'sales' is infinite in row 5"),
        (daily().assign(sales=np.nan), "column 'sales' is empty in rows 1, 2, 3, ...: fill in"),
    ],
)
def test_targets(fail, table: pd.DataFrame, says: str) -> None:
    assert says in fail("sales.csv", *SALES, table=table)


def test_times_without_a_common_step(fail) -> None:
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.choice(86_400 * 365, 200, replace=False))
    seconds[1] = seconds[0] + 1
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    table = pd.DataFrame({"date": times.strftime("%Y-%m-%d %H:%M:%S"), "sales": 1.0})
    says = fail("sales.csv", *SALES, table=table)
    assert "the times have no common step" in says
    assert "add them up to hours, days or months first" in says


@pytest.mark.parametrize(
    ("table", "says"),
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
def test_groups(fail, table: pd.DataFrame, says: str) -> None:
    assert says in fail("sales.csv", *SALES, "--group", "store", table=table)


def test_two_rows_per_time_ask_for_a_group(fail) -> None:
    says = fail("sales.csv", *SALES, table=stores({"7": 60, "8": 60}))
    assert "rows 1, 61 have the same time" in says
    assert "tell the series apart by --group" in says


@pytest.mark.parametrize(
    ("promo", "sales", "says"),
    [
        (1.0, 0, "ends with 0 rows without 'sales', but --known needs exactly 7"),
        (1.0, 5, "ends with 5 rows without 'sales', but --known needs exactly 7"),
        (1.0, 60, "ends with 60 rows without 'sales'"),
        (np.nan, 7, "column 'promo' is empty or infinite in row 58"),
    ],
)
def test_known(fail, promo: float, sales: int, says: str) -> None:
    table = daily().assign(promo=1.0)
    table.loc[len(table) - sales :, "sales"] = np.nan
    table.loc[57, "promo"] = promo
    assert says in fail("sales.csv", *SALES, "--known", "promo", table=table)


def test_history_too_long(fail) -> None:
    says = fail("sales.csv", *SALES, "--history", "50", table=daily())
    assert "--history 50 is longer than the 39 steps" in says
    assert "choose at most 39" in says


def test_column_names_of_the_forecast(fail) -> None:
    table = daily().rename(columns={"date": "step"})
    says = fail("sales.csv", "--time", "step", *SALES[2:], table=table)
    assert "column 'step' is also one of the forecast's own: rename yours" in says


def test_dates_as_target(fail, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pd.DataFrame({"day": range(60), "due": pd.date_range("2024", periods=60)}).to_parquet(
        "t.parquet"
    )
    says = fail("t.parquet", "--time", "day", "--target", "due", "--horizon", "7")
    assert "t.parquet, column 'due': holds dates, a target must be a number" in says


def test_damaged_parquet(fail) -> None:
    pytest.importorskip("pyarrow")
    Path("t.parquet").write_bytes(b"not parquet")
    assert "t.parquet: cannot be read: " in fail("t.parquet", *SALES)


def test_parquet_of_other_kinds(fail) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    dates, numbers = pd.date_range("2024-01-01", periods=40), np.arange(40.0)
    good = {"date": pyarrow.array(dates), "sales": numbers, "store": ["7"] * 40}
    zones = {
        zone: pyarrow.array(dates, pyarrow.timestamp("us", tz=zone))
        for zone in ("Europe", "No/Where", "../etc")
    }
    far = pyarrow.array(np.arange(40) * 10**12, pyarrow.timestamp("s"))
    for column, values, says in [
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
        parquet.write_table(pyarrow.table({**good, column: values}), "t.parquet")
        assert says in fail("t.parquet", *SALES, "--group", "store")
    twice = pyarrow.table([good["date"], numbers, numbers], names=["date", "sales", "sales"])
    parquet.write_table(twice, "t.parquet")
    assert "has two columns 'sales': rename one" in fail("t.parquet", *SALES)


LONG = "x" * 300_000


@pytest.mark.parametrize(
    ("table", "says"),
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
def test_whatever_a_table_says_fits_into_the_line(fail, table: pd.DataFrame, says: str) -> None:
    line = fail("sales.csv", *SALES, "--group", "store", table=table)
    assert says in line
    assert len(line) < 1000
    assert line[:-1].isprintable()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--horizon", "9" * 5000], "--horizon: must be a whole number of at least 1, not 999"),
        (["--epochs", "1000000000000"], "--epochs: must be at most 100000, not 1000000000000"),
        (["--seed", str(2**32)], "--seed: must be at most 4294967295, not 4294967296"),
        (["--group", "z" * 100_000], "has no column 'zzz"),
        (["--" + "z" * 100_000], "unrecognized arguments: --zzz"),
        (["--horizon", "1000000000000"], "choose a smaller --horizon"),
    ],
    ids=range(6),
)
def test_options_of_any_size(fail, argv: list[str], says: str) -> None:
    line = fail("sales.csv", *SALES, *argv, table=daily())
    assert says in line
    assert len(line) < 1100


def test_name_of_a_file_that_is_too_long(fail) -> None:
    assert "cannot be read: [Errno 36] File name too long" in fail("x" * 5000 + ".csv", *SALES)


def wide(extra: str = "") -> str:
    """40 rows of 100,000 columns, of which one row may have more."""
    header = ",".join(["date", "sales", *(f"c{k}" for k in range(99_998))])
    rows = [f"2024-01-{k + 1:02d},{k}" + ",1" * 99_998 for k in range(30)]
    rows[20] += extra
    return "\n".join([header, *rows, ""])


def test_only_the_columns_named_are_read(
    fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And still no row with more cells than the header is cut off."""
    read, seen = pd.read_csv, []

    def spy(*args: object, **kwargs: object) -> pd.DataFrame:
        frame = read(*args, **kwargs)
        seen.append(frame.shape)
        return frame

    monkeypatch.setattr(pd, "read_csv", spy)
    (tmp_path / "wide.csv").write_text(wide())
    frame = columns.read_columns(tmp_path / "wide.csv", ["date"], ["sales"])
    assert frame["sales"].tolist() == list(range(30))
    assert seen == [(30, 2)]
    says = fail("sales.csv", *SALES, table=wide(",9"))
    assert "sales.csv: row 21 has 100001 cells, the header 100000: correct one of them" in says
    assert fail("sales.csv", *SALES, "--group", "c99998", table=wide()).count(",") < 20


def test_cells_of_any_size_are_read(tmp_path: Path) -> None:
    """Also in the header, and where the width of rows is checked."""
    table = daily(30).assign(
        **{"note" * 100_000: LONG[:1_000_000], **{f"c{k}": 1 for k in range(30)}}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    assert columns.read_columns(tmp_path / "t.csv", ["date"], ["sales"]).shape == (30, 2)


def test_folder_that_is_a_file(fail) -> None:
    Path("taken").touch()
    says = fail("sales.csv", *SALES, "--output", "taken", table=daily())
    assert (
        "cannot write to the folder 'taken' (File exists): name another one with --output" in says
    )
    assert "'taken/deeper'" in fail("sales.csv", *SALES, "--output", "taken/deeper", table=daily())


def test_folder_without_permission(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    assert "cannot write to the folder '.' (Permission denied)" in fail(
        "sales.csv", *SALES, table=daily()
    )


def test_missing_extras(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    install = "not installed: pip install 'pytorch-forecasting-mlstm[demo]'"
    assert f"pmdarima and matplotlib {install}" in fail()
    assert f"error: matplotlib {install}" in fail("sales.csv", *SALES, table=daily())


def test_missing_pyarrow(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("t.parquet").touch()
    monkeypatch.setattr(columns, "find_spec", lambda name: None)
    assert "t.parquet: needs pyarrow: pip install pyarrow, or save" in fail("t.parquet", *SALES)


def test_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 1)
    monkeypatch.setattr(training._Progress, "on_train_epoch_end", press)
    handler = signal.getsignal(signal.SIGINT)
    daily().to_csv("sales.csv", index=False)
    assert main(["sales.csv", *SALES]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"
    assert signal.getsignal(signal.SIGINT) is handler, "a second Ctrl-C works as the first"
    assert [path.name for path in tmp_path.iterdir()] == ["sales.csv"]


def test_as_a_command(tmp_path: Path) -> None:
    """What the tests above do in this process holds for ``python -m`` too."""
    run = subprocess.run(
        [sys.executable, "-m", "pytorch_forecasting_mlstm", "sales.csv", *SALES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: sales.csv: no such file\n"
