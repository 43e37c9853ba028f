"""Runs of the command line that several modules use."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.command_line import run, run_forecast, shorten_epochs
from helpers.tables import daily, stores

Fail = Callable[..., str]
Forecast = Callable[..., pd.DataFrame]


@pytest.fixture
def fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Return a function that runs the command line and returns its one-line error."""
    monkeypatch.chdir(tmp_path)

    def run_and_fail(*argv: str, table: pd.DataFrame | str | bytes | None = None) -> str:
        if isinstance(table, pd.DataFrame):
            table.to_csv("sales.csv", index=False)
        elif table is not None:
            Path("sales.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        before = set(tmp_path.iterdir())
        code, _, error = run(*argv)
        notes = [line for line in error.splitlines(keepends=True) if line.startswith("note: ")]
        error = error.removeprefix("".join(notes))
        assert code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert set(tmp_path.iterdir()) == before, "a failed run leaves no file"
        return error

    return run_and_fail


@pytest.fixture
def forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forecast:
    """Return a function that forecasts a table or a file in one epoch of one batch."""
    monkeypatch.chdir(tmp_path)
    shorten_epochs(monkeypatch)

    def forecast_table(
        table: pd.DataFrame | str, time: str, target: str, horizon: int, *options: str
    ) -> pd.DataFrame:
        if isinstance(table, pd.DataFrame):
            table.to_csv("t.csv", index=False)
            table = "t.csv"
        return run_forecast(tmp_path / table, time, target, horizon, *options)

    return forecast_table


@pytest.fixture(scope="session")
def daily_forecast(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return the forecast of `daily()` for three days, with the default seed."""
    path = tmp_path_factory.mktemp("daily") / "t.csv"
    daily().to_csv(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        shorten_epochs(patch)
        return run_forecast(path, "date", "sales", 3)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table, t.csv, its forecast, forecast.csv, and its model, m.model.

    Two stores, 010 and NA, that end with three days of known prices.
    """
    folder = tmp_path_factory.mktemp("saved")
    table = stores({"010": 60, "NA": 50}).assign(price=1.0)
    table.loc[::5, "price"] = 0.5
    table.loc[table["date"] > "2024-04-27", "sales"] = np.nan
    table.to_csv(folder / "t.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        shorten_epochs(patch)
        patch.chdir(folder)
        options = ("--group", "store", "--known", "price", "--save", "m.model")
        run_forecast(folder / "t.csv", "date", "sales", 3, *options)
    return folder
