"""The error for unusable input, and the format of values in its message."""

from __future__ import annotations

from collections.abc import Callable

from sklearn.exceptions import NotFittedError

from .._messages import one_line, truncate

_MAX_VALUE_LENGTH = 80  # characters
_MAX_MESSAGE_LENGTH = 1000


class Argument(str):
    """The name of an argument in a message; the command line shows it as an option."""


class InputError(ValueError):
    """Unusable input: one line with what is wrong, where, and how to fix it.

    Parameters
    ----------
    *parts : str
        The message in parts. Each name of an argument is a separate part of class `Argument`.

    Examples
    --------
    >>> error = InputError("choose a smaller ", Argument("horizon"))
    >>> str(error), error.message(lambda name: f"--{name}")
    ('choose a smaller horizon', 'choose a smaller --horizon')
    """

    def __init__(self, *parts: str) -> None:
        super().__init__(*parts)

    def __str__(self) -> str:
        return self.message()

    def message(self, name_argument: Callable[[str], str] = str) -> str:
        """Write the message, with the arguments named by `name_argument`."""
        text = "".join(
            name_argument(part) if isinstance(part, Argument) else part for part in self.args
        )
        # One short line, whatever a file name or the message of another library contains.
        return one_line(text, _MAX_MESSAGE_LENGTH)


class NotFittedInputError(InputError, NotFittedError):
    """Use of a forecaster before `fit`, also an error of that kind for scikit-learn."""


def quoted(value: object) -> str:
    """Write a value as `printable` does, in quotes."""
    return repr(truncate(str(value), _MAX_VALUE_LENGTH))


def format_rows(numbers: list[int]) -> str:
    """Name rows of the data, counted from 0, as "row 5" or "rows 1, 2, 3, ..."."""
    first = ", ".join(str(number + 1) for number in sorted(numbers[:3]))
    return (
        ("row " if len(numbers) == 1 else "rows ") + first + (", ..." if len(numbers) > 3 else "")
    )
