"""The columns of the table for pytorch-forecasting, fixed when the model is fitted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..panel.panel import Panel
from ..times.calendar_features import calendar_features
from .scaling import Scaling

SERIES, TIME = "series", "time_idx"

_RESERVED = {SERIES, TIME, "relative_time_idx", "encoder_length", "weight"}
_MAX_NAME_LENGTH = 100  # NumPy reserves space for the longest name in every row


@dataclass(frozen=True)
class Layout:
    """Names and kinds of the columns for pytorch-forecasting.

    pytorch-forecasting allows no dots in names and reserves some. The others stay as they are.

    Attributes
    ----------
    target : str
        Column of the scaled targets.
    names : dict of str to str
        The covariates and group columns of the panel, and their names for pytorch-forecasting.
    calendar_past : int
        Observed steps that decide which calendar features there are.
    known_reals, known_classes, past_reals, past_classes, static_reals, static_classes : list of str
        Names for pytorch-forecasting, by part.
    """

    target: str
    names: dict[str, str]
    calendar_past: int
    known_reals: list[str]
    known_classes: list[str]
    past_reals: list[str]
    past_classes: list[str]
    static_reals: list[str]
    static_classes: list[str]

    @classmethod
    def fit(cls, panel: Panel, past: int) -> Layout:
        """Choose names, and the calendar features that `past` observed steps can teach."""
        roles = panel.roles
        taken = set(_RESERVED)
        calendar = list(
            calendar_features(panel.axis, panel.starts[:1], past, panel.time_format).columns
        )
        taken.update(calendar)
        target = _free_name(roles.targets[0] if len(roles.targets) == 1 else "value", taken)
        taken |= {f"{target}_center", f"{target}_scale"}
        columns = [*panel.groups.columns, *panel.covariates.columns, *panel.statics.columns]
        names = {name: _free_name(name, taken) for name in columns}

        def split(names_of_part: Any, table: pd.DataFrame) -> tuple[list[str], list[str]]:
            parts: tuple[list[str], list[str]] = ([], [])
            for name in names_of_part:
                parts[not types.is_float_dtype(table[name].dtype)].append(names[name])
            return parts

        known_reals, known_classes = split(roles.known, panel.covariates)
        past_reals, past_classes = split(roles.past, panel.covariates)
        static_reals, static_classes = split(roles.static, panel.statics)
        groups = [names[n] for n in panel.groups if panel.groups[n].astype(str).nunique() > 1]
        return cls(
            target=target,
            names=names,
            calendar_past=past,
            known_reals=[*calendar, *known_reals],
            known_classes=known_classes,
            past_reals=past_reals,
            past_classes=past_classes,
            static_reals=static_reals,
            static_classes=[*groups, *static_classes],
        )

    def frame(self, panel: Panel, scaling: Scaling, numbers: np.ndarray, end: int) -> pd.DataFrame:
        """Lay out a panel as the table of a dataset.

        Parameters
        ----------
        panel : Panel
            The series.
        scaling : Scaling
            Their scales.
        numbers : numpy.ndarray
            (S,): their numbers for the model.
        end : int
            The time index of the first step after the last observed target of every series.
        """
        series, steps = panel.series, panel.steps
        columns: dict[str, Any] = {
            SERIES: numbers.astype(str)[series],
            TIME: steps - panel.lengths[series] + end,
            self.target: scaling.scale(panel),
        }
        calendar = calendar_features(
            panel.axis, panel.starts[series] + steps, self.calendar_past, panel.time_format
        )
        columns |= {name: calendar[name].to_numpy() for name in calendar}
        for table, rows in (
            (panel.groups, series),
            (panel.covariates, slice(None)),
            (panel.statics, series),
        ):
            for name in table:
                values = table[name].to_numpy()
                if table is panel.groups or values.dtype.kind != "f":
                    values = np.array([_short(str(value)) for value in values], dtype=object)
                columns[self.names[name]] = values[rows]
        return pd.DataFrame(columns)


def _free_name(name: str, taken: set[str]) -> str:
    free = name.replace(".", "_") or "_"
    while free in taken:
        free += "_"
    taken.add(free)
    return free


def _short(name: str) -> str:
    """Shorten a long name; different names stay different."""
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{name[: _MAX_NAME_LENGTH - 20]}... {digest}"
