"""Which column of a table plays which part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import Argument, InputError, quoted

#: Name of the column that tells several targets apart.
TARGET_COLUMN = "target"


@dataclass(frozen=True)
class Roles:
    """The columns of a table by their parts.

    Attributes
    ----------
    time : str
        Column of the times.
    targets : tuple of str
        Columns to forecast.
    group : tuple of str
        Columns that identify the series; empty for a single series.
    known : tuple of str
        Covariates that are known over the horizon.
    past : tuple of str
        Covariates that are known up to the present only.
    static : tuple of str
        Covariates that do not change with time.
    """

    time: str
    targets: tuple[str, ...]
    group: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def history_columns(self) -> list[str]:
        """All columns that a table of past rows needs."""
        return [self.time, *self.group, *self.targets, *self.known, *self.past, *self.static]

    @property
    def future_columns(self) -> list[str]:
        """All columns that a table of future rows needs."""
        return [self.time, *self.group, *self.known]

    @property
    def target(self) -> str | tuple[str, ...]:
        """The column to forecast, or all of them if there are several."""
        return self.targets if len(self.targets) > 1 else self.targets[0]

    @property
    def series_columns(self) -> list[str]:
        """Columns of a forecast that identify its series."""
        return [*self.group, *([TARGET_COLUMN] if len(self.targets) > 1 else [])]


def read_roles(
    *, time: Any, target: Any, group: Any, known: Any, past: Any, static: Any, quantiles: Any
) -> Roles:
    """Check the arguments that name columns.

    Raises
    ------
    InputError
        If a name is not text, is named twice, or is the name of a column of the forecast.
    """
    columns = {
        "time": _names("time", time),
        "target": _names("target", target),
        "group": _names("group", group),
        "known": _names("known", known),
        "past": _names("past", past),
        "static": _names("static", static),
    }
    if len(columns["time"]) != 1:
        raise InputError(Argument("time"), f" must be one column, got {time!r}: name one")
    if not columns["target"]:
        raise InputError(Argument("target"), " must be a column or several, got none: name one")
    names = [name for part in columns.values() for name in part]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"column {quoted(repeated[0])} is named twice: give each column one role")
    roles = Roles(
        columns["time"][0],
        tuple(columns["target"]),
        tuple(columns["group"]),
        tuple(columns["known"]),
        tuple(columns["past"]),
        tuple(columns["static"]),
    )
    reserved = {"prediction", "actual", "cutoff", "step", "model"}
    reserved |= {f"q{level:g}" for level in quantiles}
    reserved |= {TARGET_COLUMN} if len(roles.targets) > 1 else set()
    # The model sees the targets' names in a column of its own, beside the covariates.
    beside = (*roles.known, *roles.past, *roles.static) if len(roles.targets) > 1 else ()
    for name in (*roles.group, roles.time, *(name for name in beside if name == TARGET_COLUMN)):
        if name in reserved:
            raise InputError(
                f"column {quoted(name)} is also a column of the forecast: rename yours"
            )
    return roles


def _names(argument: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, dict):
        raise InputError(
            Argument(argument), f" must be a name of a column or a list of them, got {value!r}"
        )
    names = list(value)
    for name in names:
        if not isinstance(name, str):
            raise InputError(Argument(argument), f" must name columns by text, got {name!r}")
    return names
