"""Messages of the forecaster of tables, in the words of sktime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..forecaster import InputError

_NAMES = {
    "future": "X",
    "group": "the index of y",
    "horizon": "fh",
    "known": "X",
    "seed": "random_state",
    "table": "X",
    "target": "y",
    "time": "the index of y",
}


@contextmanager
def renamed_arguments() -> Iterator[None]:
    """Name the arguments of `MLSTMForecaster` in the errors of `Forecaster`."""
    try:
        yield
    except InputError as error:
        message = error.message(lambda name: _NAMES.get(name, name))
        raise InputError(f"MLSTMForecaster: {message}") from error
