"""The electricity demand demo."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.forecaster import training
from pytorch_forecasting_mlstm.forecaster.electricity_demand import electricity_demand
from pytorch_forecasting_mlstm.forecaster.splits import split_panel


def test_run_demo_reports_errors_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 2)
    assert main(["--epochs", "1", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "Test errors: 625 forecasts of 48 steps, 2000-08-14 to 2000-08-27 23:30," in printed.out
    for row in ("MAE (MW)", "MASE", "pinball loss (MW)", "coverage of 80 % interval"):
        assert re.search(rf"^{re.escape(row)} +[\d.,]+", printed.out, re.MULTILINE), row
    assert "Seasonal naive: the value 1 week before" in printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]
    assert imread(tmp_path / "demo.png").shape[1] == 1620

    # The seasonal naive forecast of the last two weeks, computed from the data.
    demand = electricity_demand().values[0]
    errors = [np.abs(demand[t : t + 48] - demand[t - 336 : t - 288]) for t in range(3360, 3985)]
    scale = np.abs(demand[336:2688] - demand[:2352]).mean()
    _, mae = re.search(r"MAE \(MW\) +([\d.,]+) +([\d.,]+)", printed.out).groups()
    _, mase = re.search(r"MASE +([\d.]+) +([\d.]+)", printed.out).groups()
    assert mae == f"{np.mean(errors):.1f}"
    assert mase == f"{np.mean(errors) / scale:.3f}"


def test_electricity_demand_is_half_hourly() -> None:
    panel = electricity_demand()
    split = split_panel(panel, horizon=48, history=336, test_size=672)
    assert (split.validation, split.test, split.end) == (2688, 3360, 4032)
    assert panel.axis.seasons == {"1 week": 336, "1 day": 48}
    assert str(panel.axis.at(np.array([4031]))[0]) == "2000-08-27 23:30:00"
