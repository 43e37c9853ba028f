"""Behavior in a terminal: warnings, threads, Ctrl-C, and missing packages."""

import logging
import signal
import warnings

import pytest
import torch

from helpers.command_line import SALES
from helpers.tables import daily
from pytorch_forecasting_mlstm.cli import console
from pytorch_forecasting_mlstm.cli.console import keep_ctrl_c, one_thread, suppress_lightning_output


def test_suppress_lightning_output_keeps_new_warnings() -> None:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with pytest.warns(UserWarning, match="new"), suppress_lightning_output():
        warnings.warn("The 'train_dataloader' does not have many workers", stacklevel=1)
        warnings.warn("something new", stacklevel=1)
        assert logger.level == logging.ERROR
    assert logger.level == level


def test_one_thread_restores_the_number() -> None:
    """Small tensors are slower on several threads."""
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_keep_ctrl_c_restores_the_handler(handler: signal.Handlers) -> None:
    """Lightning exits at the first SIGINT and ignores later ones; an ignored one stays ignored."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt), keep_ctrl_c():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(1)
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_require_packages_names_the_extra(fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{console.__name__}.find_spec", lambda name: None)
    install = "not installed: pip install 'pytorch-forecasting-mlstm[demo]'"
    assert f"pmdarima and matplotlib {install}" in fail()
    assert f"error: matplotlib {install}" in fail("sales.csv", *SALES, table=daily())
