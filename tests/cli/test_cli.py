"""The demo, and what the command line has around its forecasts."""

import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from pytorch_forecasting_mlstm.cli.console import quiet
from pytorch_forecasting_mlstm.cli.demo_data import electricity_demand
from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.forecaster import training
from pytorch_forecasting_mlstm.forecaster.splits import split_table


def test_demo(
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

    # The naive forecast of the last two weeks, worked out here from the data.
    demand = electricity_demand().values[0]
    wrong = [np.abs(demand[t : t + 48] - demand[t - 336 : t - 288]) for t in range(3360, 3985)]
    scale = np.abs(demand[336:2688] - demand[:2352]).mean()
    _, mae = re.search(r"MAE \(MW\) +([\d.,]+) +([\d.,]+)", printed.out).groups()
    _, mase = re.search(r"MASE +([\d.]+) +([\d.]+)", printed.out).groups()
    assert mae == f"{np.mean(wrong):.1f}"
    assert mase == f"{np.mean(wrong) / scale:.3f}"


def test_demo_data() -> None:
    table = electricity_demand()
    split = split_table(table, horizon=48, history=336, held_out=672)
    assert (split.validation, split.test, split.end) == (2688, 3360, 4032)
    assert table.axis.seasons == {"1 week": 336, "1 day": 48}
    assert str(table.axis.at(np.array([4031]))[0]) == "2000-08-27 23:30:00"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in "time target group known horizon history epochs seed output".split():
        assert f"--{option} " in printed
    assert "sales.csv --time date --target sales" in printed


def test_quiet_only_about_what_is_expected() -> None:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with pytest.warns(UserWarning, match="new"), quiet():
        warnings.warn("The 'train_dataloader' does not have many workers", stacklevel=1)
        warnings.warn("something new", stacklevel=1)
        assert logger.level == logging.ERROR
    assert logger.level == level


def test_one_thread_while_it_trains() -> None:
    """On several threads small tensors wait for one another; the caller keeps their number."""
    torch.set_num_threads(2)
    try:
        assert training._run(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
