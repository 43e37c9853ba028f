"""The one exception that the command line shows instead of a traceback."""

from __future__ import annotations

_LONGEST = 80  # characters of a value
_LONGEST_LINE = 1000


class UserError(Exception):
    """What is wrong with the input, where, and how to mend it, in one line."""

    def __init__(self, message: str) -> None:
        # One short line, whatever a file name or a library's own message holds.
        super().__init__(shown(" ".join(message.split()), _LONGEST_LINE))


def shown(value: object, longest: int = _LONGEST) -> str:
    r"""Write a value from a file so that it fits into a line: cut, and without control characters.

    Parameters
    ----------
    value : object
        A name or the content of a cell.
    longest : int, default 80
        Characters that are kept.

    Examples
    --------
    >>> shown("north\nsouth"), shown("x" * 1000, 10)
    ('north\\nsouth', 'xxxxxxx...')
    """
    text = str(value)
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text
    )


def quoted(value: object) -> str:
    """Write a value as `shown` does, in quotes."""
    text = str(value)
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")
