"""Check that a file has the needed columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from .._messages import printable
from ..forecaster import InputError
from ..forecaster.errors import quoted

_MAX_NAMES, _MAX_NAME_LENGTH = 1000, 100  # to compare with a missing name
_MAX_PATH_LENGTH = 300


def check_names(path: Path, present: Sequence[str], needed: Sequence[str]) -> None:
    """Raise an InputError if a needed column is missing, or there are two of its name."""
    count = Counter(present)
    for name in needed:
        if count[name] > 1:  # pandas would rename the second
            raise InputError(
                f"{show_path(path)}: has two columns {quoted(name)}: rename one of them"
            )
        if not count[name]:
            # Comparing with many thousands of names would take too long.
            columns = [str(column)[:_MAX_NAME_LENGTH] for column in present[:_MAX_NAMES]]
            close = get_close_matches(name[:_MAX_NAME_LENGTH], columns, n=1)
            hint = f" (did you mean {quoted(close[0])}?)" if close else ""
            listed = ", ".join(map(printable, columns[:12])) + (
                ", ..." if len(present) > 12 else ""
            )
            raise InputError(
                f"{show_path(path)}: has no column {quoted(name)}{hint}; its columns are: {listed}"
            )


def show_path(path: Path) -> str:
    """Format a path, with more characters than other values because its end matters."""
    return printable(path, _MAX_PATH_LENGTH)
