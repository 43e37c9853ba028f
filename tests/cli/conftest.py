"""Runs of the command line that several modules look at."""

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
    """Run the command line in an empty folder, and return its one line of error."""
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
    """Forecast a table, or a file in the test's folder, for one epoch of two batches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 2)

    def forecast_table(
        table: pd.DataFrame | str, time: str, target: str, horizon: int, *more: str
    ) -> pd.DataFrame:
        if isinstance(table, pd.DataFrame):
            table.to_csv("t.csv", index=False)
            table = "t.csv"
        return run_forecast(tmp_path / table, time, target, horizon, *more)

    return forecast_table


@pytest.fixture(scope="session")
def daily_forecast(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The forecast of `daily()` three days ahead, with the default seed."""
    path = tmp_path_factory.mktemp("daily") / "t.csv"
    daily().to_csv(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_BATCHES_PER_EPOCH", 2)
        return run_forecast(path, "date", "sales", 3)
