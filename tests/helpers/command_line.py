"""Run the command line in this process, with the checks that apply to every run."""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.forecaster import arguments

SALES = ("--time", "date", "--target", "sales", "--horizon", "7")
QUANTILES = ["q0.1", "q0.5", "q0.9"]
#: One training of one epoch to choose, and one on all rows.
FAST = ("--epochs", "1", "--history", "9")

Forecast = Callable[..., pd.DataFrame]


def shorten_epochs(patch: pytest.MonkeyPatch, members: int = 1) -> None:
    """Train on one batch per epoch, and one model instead of three."""
    settings = arguments.Settings
    patch.setattr(arguments, "Recipe", partial(arguments.Recipe, batches_per_epoch=1))
    patch.setattr(arguments, "Settings", lambda **given: settings(**{**given, "members": members}))


def run(*argv: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(argv))
    return code, out.getvalue(), err.getvalue()


def run_forecast(path: Path, time: str, target: str, horizon: int, *options: str) -> pd.DataFrame:
    """Forecast a file, into its folder, and return the forecast."""
    folder = path.parent
    before = {file.name for file in folder.iterdir()}
    argv = [str(path), "--time", time, "--target", target, "--horizon", str(horizon), *options]
    fast = FAST[:2] if "--history" in options else FAST
    code, printed, errors = run(*argv, *fast, "--output", str(folder))
    assert code == 0, errors
    assert all(line.startswith("note: ") for line in errors.splitlines()), errors
    groups = [options[k + 1] for k, option in enumerate(options) if option == "--group"]
    text = dict.fromkeys([*groups, time], str)
    result = pd.read_csv(folder / "forecast.csv", dtype=text, keep_default_na=False)
    assert [*result.columns[: len(groups) + 1]] == [*groups, time]
    assert len(result) % horizon == 0
    assert np.isfinite(result["prediction"]).all()
    if "q0.1" in result:
        assert (np.diff(result[QUANTILES]) >= 0).all(), "quantiles cross"
        assert "coverage of 80 % interval" in printed or "too few to keep some" in errors
    assert imread(folder / "forecast.png").shape[1] == 1620
    added = {"forecast.csv", "forecast.png"}
    added |= {options[k + 1] for k, option in enumerate(options) if option == "--save"}
    assert {file.name for file in folder.iterdir()} == before | added
    return result
