"""The error for checkpoints that are rejected."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CheckpointError", "prefix_errors"]


class CheckpointError(ValueError):
    """A checkpoint is rejected; the message still lacks the name of the model."""


@contextmanager
def prefix_errors(caller: str) -> Iterator[None]:
    """Prefix the messages of rejected checkpoints with the name of the model.

    Parameters
    ----------
    caller : str
        Name of the model.

    Raises
    ------
    ValueError
        If a checkpoint is rejected.
    """
    try:
        yield
    except CheckpointError as error:
        raise ValueError(f"{caller}: {error}") from error.__cause__
