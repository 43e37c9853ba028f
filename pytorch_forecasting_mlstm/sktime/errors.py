"""Messages of the forecaster of tables, in the words of sktime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..forecaster import InputError
from ..forecaster.errors import Argument

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
def renamed_arguments(hint: str = "") -> Iterator[None]:
    """Name the arguments of `MLSTMForecaster` in the errors of `Forecaster`.

    Parameters
    ----------
    hint : str, default ""
        Words to add where covariates of the horizon are missing.
    """
    try:
        yield
    except InputError as error:
        message = error.message(lambda name: _NAMES.get(name, name))
        is_about_future = any(isinstance(p, Argument) and p == "future" for p in error.args)
        more = hint if is_about_future else ""
        raise InputError(f"MLSTMForecaster: {message}{more}") from error
