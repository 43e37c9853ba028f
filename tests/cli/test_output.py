"""The folder and the files of a forecast."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.command_line import FAST, SALES, run, shorten_epochs
from helpers.tables import daily, stores
from pytorch_forecasting_mlstm import InputError
from pytorch_forecasting_mlstm.cli import run_forecast
from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.cli.output import write_forecast

FORMULAS = ["=1+1", "+1", "-1", "@x", "\t=2", "'=1+1", "＝1"]


def test_writable_folder_that_is_a_file(fail) -> None:
    Path("a_file").touch()
    message = fail("sales.csv", *SALES, "--output", "a_file", table=daily())
    assert (
        "cannot write to the folder 'a_file' (File exists): name another one with --output"
        in message
    )
    assert "'a_file/deeper'" in fail(
        "sales.csv", *SALES, "--output", "a_file/deeper", table=daily()
    )


def test_writable_folder_without_permission(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert "cannot write to the folder '.' (Permission denied)" in fail(
        "sales.csv", *SALES, table=daily()
    )


def test_write_forecast_quotes_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shorten_epochs(monkeypatch)

    def write_both(forecast: pd.DataFrame, path: Path, *, quote_formulas: bool) -> None:
        write_forecast(forecast, Path("plain.csv"), quote_formulas=False)
        write_forecast(forecast, path, quote_formulas=quote_formulas)

    monkeypatch.setattr(run_forecast, "write_forecast", write_both)
    table = stores({name: 40 for name in [*FORMULAS, "plain=1"]})
    table["sales"] -= 200
    table.rename(columns={"store": "=store"}).to_csv("t.csv", index=False)
    argv = ["t.csv", "--time", "date", "--target", "sales", "--horizon", "3", *FAST]
    assert run(*argv, "--group", "=store", "--quote-formulas")[0] == 0
    plain, quoted = pd.read_csv("plain.csv"), pd.read_csv("forecast.csv")
    assert plain["=store"].drop_duplicates().tolist() == [*FORMULAS, "plain=1"]
    names = ["'" + name for name in FORMULAS] + ["plain=1"]
    assert quoted["'=store"].drop_duplicates().tolist() == names
    assert (quoted["prediction"] < 0).all(), "a formula quote in numbers"
    pd.testing.assert_frame_equal(quoted.drop(columns="'=store"), plain.drop(columns="=store"))


def test_write_forecast_with_nul_in_a_name(tmp_path: Path) -> None:
    path, forecast = tmp_path / "forecast.csv", pd.DataFrame({"store": ["a\x00b"], "sales": [1.0]})
    if sys.version_info >= (3, 11):
        write_forecast(forecast, path, quote_formulas=False)
        assert path.read_bytes() == b"store,sales\na\x00b,1.0\n"
    else:
        with pytest.raises(InputError, match="^cannot write the forecast: .* has the .*NUL"):
            write_forecast(forecast, path, quote_formulas=False)


def test_output_folder_is_created_and_old_files_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten_epochs(monkeypatch, members=3)  # the default
    table, folder = tmp_path / "t.csv", tmp_path / "a" / "b"
    daily().to_csv(table, index=False)
    folder.mkdir(parents=True)
    (folder / "forecast.csv").write_text("old")
    argv = [str(table), "--time", "date", "--target", "sales", "--horizon", "3", *FAST]
    assert main([*argv, "--output", str(folder), "--save", str(tmp_path / "c" / "m.model")]) == 0
    assert "Wrote " in capsys.readouterr().out
    assert len(pd.read_csv(folder / "forecast.csv")) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["forecast.csv", "forecast.png"]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["m.model"]
