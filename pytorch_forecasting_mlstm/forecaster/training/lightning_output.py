"""Suppress hints of Lightning that are meant for developers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Arguments of a Trainer that works for a function: in one process, and without a trace.
SILENT_TRAINER: dict[str, Any] = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities")

# By message, so that a new warning is still shown.
_EXPECTED = (
    # Batches are gathered from memory: worker processes would only take time.
    r"The '.*dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    # The last fit, on all rows, has nothing left to validate on.
    r"You defined a `validation_step` but have no `val_dataloader`",
    # The accelerator is a choice of the user, or of Lightning.
    r".* available but not used",
    # Every series has a scale of its own, whatever its histories hold.
    r"mLSTMTime: .* of the histories of target .* are constant",
    # Lightning uses a name that torch 2.13 deprecates.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress expected hints; errors and unexpected warnings are still shown."""
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
