"""Keep the trainer's notes to developers off the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")

# By message, so that a warning nobody has seen yet still shows.
_EXPECTED = (
    # Windows are gathered from memory: worker processes would only cost time.
    r"The '.*dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    # The last fit, on everything, has nothing left to validate on.
    r"You defined a `validation_step` but have no `val_dataloader`",
    # The command line picks the processor itself.
    r".* available but not used",
    # Lightning uses a name that new torch renames.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # matplotlib's ticks at microseconds are rounded centuries away from 1970; the table is not.
    r"Plotting microsecond time intervals for dates far from the epoch",
    # A column name in a script that the font lacks costs a box in the picture, no more.
    r"Glyph .* missing from",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the trainer tells developers; errors and unknown warnings still show."""
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
