"""Behavior of a program in a terminal: warnings, Ctrl-C, threads, missing packages."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import torch

from ..forecaster.errors import InputError

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")

# By message, so that a new warning is still shown.
_EXPECTED = (
    # Batches are gathered from memory: worker processes would only take time.
    r"The '.*dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    # The last fit, on all rows, has nothing left to validate on.
    r"You defined a `validation_step` but have no `val_dataloader`",
    # The forecaster chooses the device.
    r".* available but not used",
    # Lightning uses a name that torch 2.13 deprecates.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # matplotlib rounds ticks at microseconds centuries away from 1970; the data are not rounded.
    r"Plotting microsecond time intervals for dates far from the epoch",
    # A character that the font lacks becomes a box in the plot.
    r"Glyph .* missing from",
)


@contextmanager
def suppress_lightning_output() -> Iterator[None]:
    """Suppress Lightning's hints for developers; errors and unexpected warnings are still shown."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread.

    The tensors are small: several threads mostly wait for each other, and for minutes if other
    programs keep the processor busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def keep_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, even while Lightning trains, which would exit instead.

    Lightning ignores SIGINT once it has received one; the handler is restored. Where SIGINT was
    ignored from the start, as in a background job of a shell, it stays ignored.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if handler is not None:  # None: it was not installed from Python
            with suppress(ValueError):  # only the main thread can set handlers
                signal.signal(signal.SIGINT, handler)


def require_packages(*packages: str) -> None:
    """Raise an InputError that names the extra to install unless all `packages` are installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} not installed: pip install 'pytorch-forecasting-mlstm[demo]'"
        )
