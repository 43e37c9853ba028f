"""Exceptions: those of pytorch-forecasting, and our own before they name the model."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UPSTREAM_ERRORS", "UnprefixedError", "prefix_errors"]

#: Exceptions that pytorch-forecasting raises on data that it cannot process. They come from deep
#: inside pandas, NumPy, scikit-learn and torch, hence the many types.
UPSTREAM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class UnprefixedError(ValueError):
    """An error whose message still lacks the name of the model."""


@contextmanager
def prefix_errors(caller: str) -> Iterator[None]:
    """Prefix the messages of unprefixed errors with the name of the model.

    Parameters
    ----------
    caller : str
        Name of the model.

    Raises
    ------
    ValueError
        Instead of an unprefixed error.
    """
    try:
        yield
    except UnprefixedError as error:
        raise ValueError(f"{caller}: {error}") from error.__cause__
