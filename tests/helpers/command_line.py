"""Run the command line in this process, with the checks that apply to every run."""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imread

from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.forecaster.quantiles import QUANTILE_NAMES

SALES = ("--time", "date", "--target", "sales", "--horizon", "7")
QUANTILES = list(QUANTILE_NAMES)


Forecast = Callable[..., pd.DataFrame]


def run(*argv: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(argv))
    return code, out.getvalue(), err.getvalue()


def run_forecast(path: Path, time: str, target: str, horizon: int, *options: str) -> pd.DataFrame:
    """Forecast a file for one epoch, into its folder, and return the forecast."""
    folder = path.parent
    before = {file.name for file in folder.iterdir()}
    argv = [str(path), "--time", time, "--target", target, "--horizon", str(horizon), *options]
    code, printed, errors = run(*argv, "--epochs", "1", "--output", str(folder))
    assert code == 0, errors
    assert errors == ""
    assert "coverage of 80 % interval" in printed
    groups = [options[k + 1] for k, option in enumerate(options) if option == "--group"]
    text = dict.fromkeys([*groups, time], str)
    result = pd.read_csv(folder / "forecast.csv", dtype=text, keep_default_na=False)
    assert list(result.columns) == [*groups, time, "step", "prediction", *QUANTILES]
    steps = result["step"].to_numpy().reshape(-1, horizon)
    assert (steps == np.arange(1, horizon + 1)).all()
    assert np.isfinite(result[QUANTILES]).all(axis=None)
    assert (np.diff(result[QUANTILES]) >= 0).all(), "quantiles cross"
    assert result["prediction"].equals(result["q0.5"])
    assert imread(folder / "forecast.png").shape[1] == 1620
    assert {file.name for file in folder.iterdir()} == before | {"forecast.csv", "forecast.png"}
    return result
