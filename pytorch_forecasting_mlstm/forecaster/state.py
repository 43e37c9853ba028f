"""Everything that a fitted forecaster knows."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .tables.records import Records
from .tables.roles import Roles
from .tables.table_kind import TableKind
from .times.time_axis import TimeAxis
from .training.fitted import Fitted


@dataclass(frozen=True)
class State:
    """A fitted model and the rows that it knows.

    Attributes
    ----------
    roles : Roles
        Columns of the tables.
    records : Records
        The rows of the fitted table.
    axis : TimeAxis
        Their times.
    groups : pandas.DataFrame
        One row per series of the model, with their numbers as index.
    kind : TableKind
        The library of the fitted table.
    fitted : Fitted
        The model.
    levels : tuple of float
        Its quantiles.
    """

    roles: Roles
    records: Records
    axis: TimeAxis
    groups: pd.DataFrame
    kind: TableKind
    fitted: Fitted
    levels: tuple[float, ...]
