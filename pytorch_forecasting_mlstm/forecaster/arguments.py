"""Checks of the arguments of `Forecaster` that name no columns."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from lightning import pytorch as pl

from .._messages import one_line
from ..models import mLSTMTime
from ..models.base.arguments import check_arguments as check_model_arguments
from .errors import Argument, InputError
from .panel.missing import check_missing
from .training.fitting import Settings
from .training.recipe import Recipe

_MAX_EPOCHS = 100_000  # each has its own learning rate, in a list
_MAX_SEED = 2**32 - 1  # for NumPy
_MAX_MEMBERS = 100  # each is a training, and a part of the file
#: What follows from the other arguments.
_OWN_TRAINER_ARGUMENTS = {
    "max_epochs": "epochs",
    "min_epochs": "epochs",
    "max_steps": "epochs",
    "enable_checkpointing": None,
    "inference_mode": None,
}
_OWN_MODEL_ARGUMENTS = {"learning_rate": "learning_rate", "loss": "quantiles"}


def check_arguments(parameters: Mapping[str, Any]) -> None:
    """Check everything but the names of columns.

    Parameters
    ----------
    parameters : mapping
        The parameters of a `Forecaster`.

    Raises
    ------
    InputError
        With the argument, its value, and what it must be.
    """
    check_integer("horizon", parameters["horizon"])
    check_integer("members", parameters["members"], largest=_MAX_MEMBERS)
    for name, largest in (("history", None), ("epochs", _MAX_EPOCHS)):
        if parameters[name] is not None:
            check_integer(name, parameters[name], largest=largest)
    check_integer("seed", parameters["seed"], least=0, largest=_MAX_SEED)
    rate = parameters["learning_rate"]
    if rate is not None and not (_is_real(rate) and 0 < rate < 1000):
        raise InputError(
            Argument("learning_rate"), f" must be a positive number, got {rate!r}: try 0.005"
        )
    minimum = parameters["minimum"]
    if not (minimum is None or isinstance(minimum, str) and minimum == "auto") and not (
        _is_real(minimum) and math.isfinite(minimum)
    ):
        raise InputError(
            Argument("minimum"),
            f' must be "auto", a finite number or None, got {minimum!r}: try "auto"',
        )
    if parameters["outliers"] not in ("mask", "keep"):
        raise InputError(
            Argument("outliers"), f' must be "mask" or "keep", got {parameters["outliers"]!r}'
        )
    for name in ("calendar_effects", "calibrate", "verbose"):
        check_flag(name, parameters[name])
    check_missing(parameters["missing"])
    read_quantiles(parameters["quantiles"])
    _check_options("model_kwargs", parameters["model_kwargs"], _OWN_MODEL_ARGUMENTS)
    memory_length = (parameters["model_kwargs"] or {}).get("memory_length")
    if memory_length is not None:
        _check_memory_length(memory_length, parameters["history"])
    try:
        check_model_arguments(mLSTMTime, parameters["model_kwargs"] or ())
    except TypeError as error:
        raise InputError(Argument("model_kwargs"), f": {one_line(error)}") from error
    _check_options("trainer_kwargs", parameters["trainer_kwargs"], _OWN_TRAINER_ARGUMENTS)
    callbacks = (parameters["trainer_kwargs"] or {}).get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
        if not isinstance(callback, pl.Callback):
            raise InputError(
                Argument("trainer_kwargs"),
                f": callbacks must be callbacks of Lightning, got {callback!r}",
            )


def check_flag(name: str, value: Any) -> bool:
    """Return a truth value, or raise an InputError."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(Argument(name), f" must be True or False, got {value!r}")
    return bool(value)


def check_minutes(value: Any) -> float | None:
    """Return a positive number or None, or raise an InputError."""
    if value is not None and not (_is_real(value) and value > 0):
        raise InputError(Argument("minutes"), f" must be a positive number or None, got {value!r}")
    return value


def read_path(name: str, value: Any) -> Path:
    """Return a path, or raise an InputError."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InputError(Argument(name), f" must be the path of a file, got {value!r}")
    return Path(value)


def check_integer(name: str, value: Any, *, least: int = 1, largest: int | None = None) -> int:
    """Return a whole number, or raise an InputError."""
    if not _is_integer(value) or value < least or (largest is not None and value > largest):
        limit = f"at least {least}" if largest is None else f"from {least} to {largest}"
        raise InputError(Argument(name), f" must be a whole number, {limit}, got {value!r}")
    return int(value)


def _check_memory_length(value: Any, history: Any) -> None:
    """Raise unless the memory can read so many steps of the history."""
    if not _is_integer(value) or value < 1 or (history is not None and value > history):
        limit = "at least 1" if history is None else f"from 1 to {history}, the history"
        raise InputError(
            Argument("model_kwargs"),
            f": memory_length must be a whole number, {limit}, got {value!r}",
        )


def read_quantiles(quantiles: Any) -> tuple[float, ...]:
    """Return the quantiles in order, with the median among them."""
    is_sequence = isinstance(quantiles, Sequence) and not isinstance(quantiles, str)
    levels = list(quantiles) if is_sequence or hasattr(quantiles, "__iter__") else [quantiles]
    if not levels or not all(_is_real(level) and 0 < level < 1 for level in levels):
        raise InputError(
            Argument("quantiles"),
            f" must be numbers between 0 and 1, got {quantiles!r}: try (0.1, 0.5, 0.9)",
        )
    sorted_levels = tuple(sorted({0.5, *map(float, levels)}))
    names = [f"{level:g}" for level in sorted_levels]
    for name in names:
        if names.count(name) > 1 or not 0 < float(name) < 1:
            raise InputError(
                Argument("quantiles"),
                f" must differ in the first six digits, which name the columns, got {quantiles!r}: "
                "round them",
            )
    return sorted_levels


def _check_options(name: str, options: Any, own: Mapping[str, str | None]) -> None:
    if options is None:
        return
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise InputError(Argument(name), f" must be a dictionary of arguments, got {options!r}")
    for key, instead in own.items():
        if key in options:
            hint = f"use {instead}" if instead else "leave it out"
            raise InputError(Argument(name), f" must not hold {key!r}: {hint}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    is_number = not isinstance(value, bool) and isinstance(value, Real)
    return is_number and float(value) == value  # NaN is not equal to itself


def settings_of(parameters: Mapping[str, Any], levels: tuple[float, ...]) -> Settings:
    """Return the settings of a fit.

    Parameters
    ----------
    parameters : mapping
        The parameters of a `Forecaster`, checked.
    levels : tuple of float
        The quantiles to forecast.
    """
    recipe: dict[str, Any] = {"model": dict(parameters["model_kwargs"] or {})}
    if parameters["epochs"] is not None:
        recipe["epochs"] = int(parameters["epochs"])
    if parameters["learning_rate"] is not None:
        recipe["learning_rate"] = float(parameters["learning_rate"])
    history = parameters["history"]
    return Settings(
        horizon=int(parameters["horizon"]),
        quantiles=levels,
        history=None if history is None else int(history),
        minimum=parameters["minimum"],
        calibrate=parameters["calibrate"],
        recipe=Recipe(**recipe),
        seed=int(parameters["seed"]),
        trainer_kwargs=dict(parameters["trainer_kwargs"] or {}),
        members=int(parameters["members"]),
        calendar_effects=parameters["calendar_effects"],
    )
