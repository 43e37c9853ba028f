"""Names of the columns of a table that is made of sktime's data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ..forecaster import InputError

#: Columns of a forecast, and those that are added to it.
_RESERVED = (
    "prediction",
    "actual",
    "cutoff",
    "step",
    "model",
    "target",
    "_target",
    "_series",
    "_step",
)


@dataclass(frozen=True)
class Columns:
    """Columns of the table, and the labels of y and X that they stand for.

    The columns are named as the levels and labels are, as far as these have names that differ, so
    that messages about the table can be understood.

    Attributes
    ----------
    group : tuple of str
        One column per level of the series; empty for a single series.
    time : str
        The times.
    targets, known : tuple of str
        The columns of y and X.
    y_labels, X_labels : pandas.Index
        Their labels in y and X. No labels of X: there is no X.
    index_names : tuple
        Names of the levels of the index of y.
    """

    group: tuple[str, ...]
    time: str
    targets: tuple[str, ...]
    known: tuple[str, ...]
    y_labels: pd.Index
    X_labels: pd.Index
    index_names: tuple[Any, ...]

    @classmethod
    def of(cls, y: pd.DataFrame, X: pd.DataFrame | None, levels: Iterable[float]) -> Columns:
        """Name the columns for a fit that forecasts the quantiles `levels`."""
        taken = {*_RESERVED, *(f"q{level:g}" for level in levels)}

        def name(label: Any, default: str) -> str:
            text = default if label is None else str(label)
            while text in taken:
                text += "_"
            taken.add(text)
            return text

        *levels_of_series, time = y.index.names
        X_labels = pd.Index([]) if X is None else X.columns
        return cls(
            group=tuple(name(label, f"level_{n}") for n, label in enumerate(levels_of_series)),
            time=name(time, "time"),
            targets=tuple(name(label, "y") for label in y.columns),
            known=tuple(name(label, "X") for label in X_labels),
            y_labels=y.columns,
            X_labels=X_labels,
            index_names=tuple(y.index.names),
        )

    def read_y(self, y: pd.DataFrame) -> pd.DataFrame:
        """Return the targets as numbers, under the names of the table."""
        return _read(y, "y", self.y_labels, self.targets)

    def read_X(self, X: pd.DataFrame) -> pd.DataFrame:  # noqa: N802
        """Return the covariates as numbers or classes, under the names of the table."""
        if not len(self.X_labels):
            raise InputError(
                "MLSTMForecaster: X is given, but was not in fit: pass it to fit, too, or leave it "
                "out"
            )
        return _read(X, "X", self.X_labels, self.known)


def _read(data: pd.DataFrame, source: str, labels: pd.Index, names: tuple[str, ...]) -> Any:
    missing = labels.difference(data.columns, sort=False)
    if len(missing):
        raise InputError(
            f"MLSTMForecaster: {source} has no column {missing[0]!r}, which it had in fit; its "
            f"columns are {', '.join(map(repr, data.columns))}: pass the same columns"
        )
    columns = {name: _values(data[label]) for name, label in zip(names, labels, strict=True)}
    return pd.DataFrame(columns, index=data.index)


def _values(column: pd.Series) -> Any:
    """Return numbers and booleans as float64, and everything else as it is."""
    if is_numeric_dtype(column.dtype) or is_bool_dtype(column.dtype):
        return column.to_numpy(np.float64, na_value=np.nan)
    return column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
