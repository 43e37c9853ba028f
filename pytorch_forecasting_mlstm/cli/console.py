"""Behavior of a program in a terminal: warnings, threads, missing packages."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from .._messages import one_line
from ..forecaster import InputError

# By message, so that a new warning is still shown.
_EXPECTED = (
    # matplotlib rounds ticks at microseconds centuries away from 1970; the data are not rounded.
    r"Plotting microsecond time intervals for dates far from the epoch",
    # A character that the font lacks becomes a box in the plot.
    r"Glyph .* missing from",
)
_MAX_LENGTH = 1000  # characters of a note


@contextmanager
def print_notes(options: tuple[str, ...]) -> Iterator[None]:
    """Print each different UserWarning as one line, "note: ...".

    `options` are arguments to be named as options: timezone="UTC" becomes --timezone "UTC".
    """
    argument = re.compile(rf"`({'|'.join(options)})`|(?<![\w-])({'|'.join(options)})=")
    printed, show = set(), warnings.showwarning

    def print_note(message: Any, category: type[Warning], *place: Any, **others: Any) -> None:
        if not issubclass(category, UserWarning):
            show(message, category, *place, **others)
            return
        text = argument.sub(lambda m: f"--{m[1]}" if m[1] else f"--{m[2]} ", str(message))
        if text not in printed:
            printed.add(text)
            print(f"note: {one_line(text, _MAX_LENGTH)}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        for expected in _EXPECTED:
            warnings.filterwarnings("ignore", message=expected)
        warnings.showwarning = print_note
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: with small tensors, several mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def require_packages(*packages: str) -> None:
    """Raise an InputError that names the extra to install unless all `packages` are installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} not installed: pip install 'pytorch-forecasting-mlstm[demo]'"
        )
