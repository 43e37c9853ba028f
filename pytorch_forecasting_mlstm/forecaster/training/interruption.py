"""Ctrl-C while Lightning trains or predicts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def raise_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C.

    Lightning exits the process instead, and ignores every later Ctrl-C; other exits pass.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if handler is not None:  # None: it was not installed from Python
            with suppress(ValueError):  # only the main thread can set handlers
                signal.signal(signal.SIGINT, handler)
