"""Runs of the command line that several modules use."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from helpers.command_line import run, run_forecast
from helpers.tables import daily
from pytorch_forecasting_mlstm.forecaster import training

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
        assert code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert set(tmp_path.iterdir()) == before, "a failed run leaves no file"
        return error

    return run_and_fail


@pytest.fixture
def forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forecast:
    """Return a function that forecasts a table or a file in one epoch of two batches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 2)

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
        patch.setattr(training, "_BATCHES_PER_EPOCH", 2)
        return run_forecast(path, "date", "sales", 3)
