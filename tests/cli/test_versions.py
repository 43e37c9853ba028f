"""The command line tells the versions that a report of a bug needs."""

import platform

import pytest
import torch

import pytorch_forecasting_mlstm
from pytorch_forecasting_mlstm.cli import versions
from pytorch_forecasting_mlstm.cli.main import main


def test_versions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--versions"])
    assert stop.value.code == 0
    first, second, *others = capsys.readouterr().out.splitlines()
    assert first == f"pytorch-forecasting-mlstm {pytorch_forecasting_mlstm.__version__}"
    assert second.startswith(f"Python {platform.python_version()}, ")
    assert f"torch {torch.__version__}".partition("+")[0] in "\n".join(others)
    assert others[-1] == str(pytorch_forecasting_mlstm.backend())


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_PACKAGES", ("no-such-package", "pandas"))
    described = versions.describe_versions()
    assert "no-such-package" not in described
    assert "\npandas " in described
