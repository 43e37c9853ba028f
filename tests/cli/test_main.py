"""Exit codes, in this process and as a command."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import FAST, SALES, run, shorten_epochs
from helpers.tables import daily
from pytorch_forecasting_mlstm import Forecaster


def test_main_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, code, errors = press_ctrl_c(tmp_path, monkeypatch, signal.default_int_handler)
    assert (code, errors.splitlines()[-1]) == (130, "interrupted: nothing was written")
    assert handler is signal.default_int_handler, "a second Ctrl-C works like the first"
    assert [path.name for path in tmp_path.iterdir()] == ["sales.csv"]


def test_main_ignored_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell starts background jobs with SIGINT ignored, and they run to the end."""
    handler, code, errors = press_ctrl_c(tmp_path, monkeypatch, signal.SIG_IGN)
    assert code == 0, errors
    assert handler == signal.SIG_IGN
    assert (tmp_path / "forecast.csv").exists()


def press_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> tuple[Any, int, str]:
    """Press Ctrl-C in the fit; return the handler afterwards, exit code and errors."""
    fit = Forecaster.fit

    def press(self: Forecaster, *args: Any, **kwargs: Any) -> Forecaster:
        fitted = fit(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)
        return fitted

    monkeypatch.chdir(folder)
    shorten_epochs(monkeypatch)
    monkeypatch.setattr(Forecaster, "fit", press)
    daily().to_csv("sales.csv", index=False)
    before = signal.signal(signal.SIGINT, handler)  # pytest itself may run in the background
    try:
        code, _, errors = run("sales.csv", *SALES, *FAST)
        return signal.getsignal(signal.SIGINT), code, errors
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_main_runs_as_a_command(tmp_path: Path) -> None:
    """``python -m`` behaves like the runs in this process above."""
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, "-m", "pytorch_forecasting_mlstm", "sales.csv", *SALES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: sales.csv: no such file\n"
