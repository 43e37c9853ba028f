"""Options of the command line, and errors about them."""

import pytest

from helpers.command_line import SALES
from helpers.tables import daily
from pytorch_forecasting_mlstm.cli.main import main


def test_parse_arguments_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in "time target group known horizon history epochs seed output".split():
        assert f"--{option} " in printed
    assert "sales.csv --time date --target sales" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
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
def test_parse_arguments_rejects(fail, argv: list[str], message: str) -> None:
    assert message in fail(*argv)


@pytest.mark.parametrize(
    ("argv", "message"),
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
def test_parse_arguments_of_any_size(fail, argv: list[str], message: str) -> None:
    line = fail("sales.csv", *SALES, *argv, table=daily())
    assert message in line
    assert len(line) < 1100
