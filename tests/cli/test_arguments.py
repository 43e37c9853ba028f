"""Options of the command line, and errors about them."""

import pytest

from helpers.command_line import SALES
from helpers.tables import daily
from pytorch_forecasting_mlstm.cli.arguments import parse_arguments
from pytorch_forecasting_mlstm.cli.main import main

ONE_VALUE = {
    "time": "date",
    "timezone": "Europe/Berlin",
    "frequency": "D",
    "holidays": "US",
    "missing": "0",
    "decimal": ".",
    "horizon": "7",
    "history": "9",
    "quantiles": "0.1",
    "minimum": "0",
    "cutoffs": "2",
    "epochs": "3",
    "seed": "4",
    "future": "plan.csv",
    "save": "m.model",
    "model": "m.model",
    "output": "out",
}
SEVERAL = ("target", "group", "known", "past", "static")


def test_parse_arguments_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in (*ONE_VALUE, *SEVERAL, "quote-formulas", "fill"):
        assert f"--{option}" in printed
    assert "sales.csv --time date --target sales" in printed


def test_parse_arguments_reads_values() -> None:
    arguments = parse_arguments(
        ["t.csv", *SALES, "--target", "visits", "--group", "store", "--fill", "0"]
        + ["--quantiles", "0.05,0.5", "0.95", "--minimum", "none"]
    )
    assert arguments.parameters == {
        "time": "date",
        "target": ["sales", "visits"],
        "group": ["store"],
        "missing": 0.0,
        "horizon": 7,
        "quantiles": [0.05, 0.5, 0.95],
        "minimum": None,
    }
    words = parse_arguments(["t.csv", *SALES, "--missing", "previous", "--minimum", "-1000"])
    assert words.parameters["missing"] == "previous"
    assert words.parameters["minimum"] == -1000


@pytest.mark.parametrize("option", ONE_VALUE)
def test_parse_arguments_rejects_an_option_given_twice(fail, option: str) -> None:
    given = [f"--{option}", ONE_VALUE[option]]
    twice = fail("sales.csv", *given, *given)
    assert f"error: --{option} is given twice, as " in twice
    assert "keep one of them" in twice


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--horizon", "7"], "--horizon needs a table: name the file first"),
        (["--group", "store", "--history", "9"], "--group, --history needs a table"),
        (["--save", "m", "--decimal", ","], "--decimal, --save needs a table"),
        (
            ["sales.csv"],
            "sales.csv needs --time and --target and --horizon, for example --time date",
        ),
        (["sales.csv", "--time", "date", "--target", "sales"], "sales.csv needs --horizon"),
        (["sales.csv", *SALES[:-1], "0"], "--horizon: must be a whole number of at least 1, not 0"),
        (["sales.csv", *SALES[:-1], "-3"], "at least 1, not -3"),
        (["sales.csv", *SALES[:-1], "2.5"], "at least 1, not 2.5"),
        (["sales.csv", *SALES, "--history", "0"], "--history: must be a whole number of at least"),
        (["sales.csv", *SALES, "--epochs", "none"], "--epochs: must be a whole number"),
        (["sales.csv", *SALES, "--seed", "-1"], "--seed: must be a whole number of at least 0"),
        (["sales.csv", *SALES, "--quantiles", "0.1", "high"], "between 0 and 1, such as 0.1 0.5"),
        (["sales.csv", *SALES, "--decimal", "x"], "--decimal: invalid choice: 'x'"),
        (["sales.csv", *SALES, "--horizn", "3"], "unrecognized arguments: --horizn 3 (try --help)"),
        (["a.csv", "b.csv", *SALES], "unrecognized arguments: b.csv"),
        (["sales.csv", *SALES], "sales.csv: no such file"),
        (["sales.xls", *SALES], "sales.xls: is none of .csv, .csv.gz, .tsv, .tsv.gz, .xlsx, .par"),
        (["t.csv", "--model", "m", "--save", "n"], "--save contradicts --model, which trains no"),
        (["t.csv", "--model", "m", "--cutoffs", "2"], "--cutoffs contradicts --model"),
        (["t.csv", "--model", "m"], "no file 'm': check the path"),
    ],
)
def test_parse_arguments_rejects(fail, argv: list[str], message: str) -> None:
    assert message in fail(*argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--group", "date"], "column 'date' is named twice"),
        (["--quantiles", "1.5"], "--quantiles must be numbers between 0 and 1"),
        (["--quantiles", "0,1"], "--quantiles must be numbers between 0 and 1"),
        (["--missing", "ffill"], "--missing must be 'mask', 'previous', 'interpolate' or a"),
        (["--minimum", "low"], '--minimum must be "auto", a finite number or None'),
        (["--timezone", "Europe/Berln"], "--timezone 'Europe/Berln' is not a time zone"),
        (["--frequency", "fortnight"], "--frequency 'fortnight' is not known"),
        (["--holidays", "days.txt"], "--holidays: days.txt: no such file: name a file with one"),
        (["--future", "plan.csv"], "--future has no effect without known columns"),
        (["--cutoffs", "100"], "--cutoffs 100, 7 steps apart, begin before there is anything"),
        (["--epochs", "1000000000000"], "--epochs: must be at most 100000, not 1000000000000"),
        (["--seed", str(2**32)], "--seed: must be at most 4294967295, not 4294967296"),
        (["--group", "z" * 100_000], "has no column 'zzz"),
        (["--" + "z" * 100_000], "unrecognized arguments: --zzz"),
    ],
    ids=range(14),
)
def test_parse_arguments_with_a_table_rejects(fail, argv: list[str], message: str) -> None:
    line = fail("sales.csv", *SALES, *argv, table=daily())
    assert message in line
    assert len(line) < 1100


@pytest.mark.parametrize("horizon", ["9" * 5000, "1000000000000"])
def test_parse_arguments_horizon_of_any_size(fail, horizon: str) -> None:
    line = fail("sales.csv", *SALES[:-1], horizon, table=daily())
    assert "at least 1, not 999" in line or "choose --horizon 58 or less" in line
    assert len(line) < 1100
