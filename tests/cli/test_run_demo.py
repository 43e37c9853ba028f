"""The electricity demand demo."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from helpers.command_line import run, shorten_epochs
from pytorch_forecasting_mlstm.cli.run_demo import electricity_demand


def test_run_demo_reports_errors_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_epochs(monkeypatch)
    code, printed, errors = run("--epochs", "1", "--output", str(tmp_path))
    assert code == 0, errors
    assert "Backtest of demand (MW): 14 cutoffs, 48 steps ahead" in printed
    assert "coverage of 80 % interval" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]
    assert imread(tmp_path / "demo.png").shape[1] == 1620

    # The seasonal naive forecast of the last two weeks, computed from the data.
    demand = electricity_demand()["demand (MW)"].to_numpy()
    errors_of_days = [
        np.abs(demand[t : t + 48] - demand[t - 336 : t - 288]).mean() for t in range(3360, 4032, 48)
    ]
    row = re.search(r"^SeasonalNaive +([\d.,]+)", printed, re.MULTILINE)
    assert row is not None
    assert float(row[1].replace(",", "")) == pytest.approx(np.mean(errors_of_days), rel=1e-3)


def test_electricity_demand_is_half_hourly() -> None:
    table = electricity_demand()
    assert len(table) == 84 * 48
    assert str(table["time"].iloc[-1]) == "2000-08-27 23:30:00"
