"""Behavior in a terminal: warnings, threads, Ctrl-C, and missing packages."""

import warnings

import pytest
import torch

from helpers.command_line import SALES
from helpers.tables import daily
from pytorch_forecasting_mlstm.cli import console
from pytorch_forecasting_mlstm.cli.console import one_thread, print_notes


def test_print_notes_prints_each_warning_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Options have their names; expected warnings of matplotlib are left out."""
    with pytest.warns(FutureWarning, match="other"), print_notes(("timezone", "frequency")):
        for _ in range(2):
            warnings.warn('set timezone="UTC",\nor `frequency`', stacklevel=1)
        warnings.warn("Glyph 7 missing from font", stacklevel=1)
        warnings.warn("other", FutureWarning, stacklevel=1)
    assert capsys.readouterr().err == 'note: set --timezone "UTC", or --frequency\n'


def test_one_thread_restores_the_number() -> None:
    """Small tensors are slower on several threads."""
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_require_packages_names_the_extra(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{console.__name__}.find_spec", lambda name: None)
    install = "not installed: pip install 'pytorch-forecasting-mlstm[demo]'"
    assert f"pmdarima and matplotlib {install}" in fail()
    assert f"error: matplotlib {install}" in fail("sales.csv", *SALES, table=daily())
