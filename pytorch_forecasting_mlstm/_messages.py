"""Parts of error messages."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    "UnprefixedError",
    "and_more",
    "format_series",
    "format_times",
    "one_line",
    "prefix_errors",
    "printable",
    "truncate",
]


def format_series(groups: list[str], key: Iterable[Any]) -> str:
    """Format the name of a series.

    >>> format_series(["store", "item"], ("north", 7))
    "store='north', item=7"
    """
    return ", ".join(f"{name}={value!r}" for name, value in zip(groups, key, strict=True))


def format_times(times: Iterable[int]) -> str:
    """Format time indices.

    >>> format_times([3, 4, 5]), format_times([7]), format_times([1, 3]), format_times(range(2**62))
    ('3 to 5', '7', '1, 3', '0 to 4611686018427387903')
    """
    times = times if isinstance(times, range) else sorted(map(int, times))  # may be long
    if len(times) > 2 and times[-1] - times[0] == len(times) - 1:
        return f"{times[0]} to {times[-1]}"
    return ", ".join(map(str, times[:5])) + (", ..." if len(times) > 5 else "")


def and_more(count: int, what: str = "series") -> str:
    """Format the number of further cases.

    >>> and_more(0), and_more(2)
    ('', ' (and 2 more series)')
    """
    return f" (and {count} more {what})" if count else ""


def printable(value: object, max_length: int = 80) -> str:
    r"""Write a value on one line: truncated, control characters escaped.

    Parameters
    ----------
    value : object
        For example a name, or the content of a cell.
    max_length : int, default 80
        Characters to keep.

    Examples
    --------
    >>> printable("north\nsouth"), printable("x" * 1000, 10)
    ('north\\nsouth', 'xxxxxxx...')
    """
    escaped = (
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in str(value)[: max_length + 1]
    )
    return truncate("".join(escaped), max_length)


def one_line(message: object, max_length: int = 200) -> str:
    r"""Join the lines of a message, such as an error of another library, and truncate it.

    Examples
    --------
    >>> one_line("cannot read:\n\tno such file\x1b[2J")
    'cannot read: no such file\\x1b[2J'
    """
    return printable(" ".join(str(message).split()), max_length)


def truncate(text: str, max_length: int) -> str:
    """Return a text of at most `max_length` characters; an ellipsis ends one that was longer."""
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


class UnprefixedError(ValueError):
    """An error whose message still lacks the name of the caller."""


@contextmanager
def prefix_errors(caller: str) -> Iterator[None]:
    """Prefix the messages of unprefixed errors with the name of the caller.

    Parameters
    ----------
    caller : str
        Name of the class or function that the user called.

    Raises
    ------
    ValueError
        Instead of an unprefixed error.
    """
    try:
        yield
    except UnprefixedError as error:
        raise ValueError(f"{caller}: {error}") from error.__cause__
