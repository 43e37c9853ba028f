"""Check that a file has the needed columns."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from .._messages import printable
from ..forecaster import InputError
from ..forecaster.errors import quoted

_MAX_NAMES, _MAX_NAME_LENGTH = 1000, 100  # to compare with a missing name
_MAX_PATH_LENGTH = 300  # more than that of other values, because the end of a path matters


def check_names(path: Path, present: Sequence[str], needed: Sequence[str]) -> None:
    """Raise an InputError if a needed column is missing, or there are two of its name."""
    for name in needed:
        count = present.count(name)
        if count > 1:  # pandas would rename the second
            raise InputError(
                f"{show_path(path)}: has two columns {quoted(name)}: rename one of them"
            )
        if not count:
            # Comparing with many thousands of names would take too long.
            columns = [str(column)[:_MAX_NAME_LENGTH] for column in present[:_MAX_NAMES]]
            close = get_close_matches(name[:_MAX_NAME_LENGTH], columns, n=1)
            hint = f" (did you mean {quoted(close[0])}?)" if close else ""
            listed = ", ".join(map(printable, columns[:12]))
            listed += ", ..." if len(present) > 12 else ""
            raise InputError(
                f"{show_path(path)}: has no column {quoted(name)}{hint}; its columns are: {listed}"
            )


def show_path(path: Path) -> str:
    """Format a path for a message."""
    return printable(path, _MAX_PATH_LENGTH)
