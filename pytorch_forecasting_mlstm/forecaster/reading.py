"""Read tables with the parameters of a forecaster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .arguments import check_arguments, read_quantiles
from .panel.panel import Panel, clean_targets, find_faults, make_panel
from .panel.suspicion_text import summarize
from .panel.suspicious import Suspicion
from .panel.windows import check_future
from .tables.labels import label_series
from .tables.records import Records, read_records
from .tables.roles import Roles, read_roles
from .tables.table_kind import TableKind
from .tables.to_pandas import to_pandas
from .times.frequency import infer_frequency
from .times.time_axis import TimeAxis


class ReadTable(NamedTuple):
    """A table to learn from.

    Attributes
    ----------
    roles : Roles
        Its columns.
    levels : tuple of float
        The quantiles to forecast.
    kind : TableKind
        Its library.
    records : Records
        Its rows.
    axis : TimeAxis
        Their times.
    given, panel : Panel
        The series as the table has them, and without faults and gaps.
    faults : str or None
        Words about rows that look like faults.
    """

    roles: Roles
    levels: tuple[float, ...]
    kind: TableKind
    records: Records
    axis: TimeAxis
    given: Panel
    panel: Panel
    faults: str | None


class TableReader:
    """Read tables.

    Parameters
    ----------
    parameters : mapping
        Those of a `Forecaster`.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters

    def read(self, table: Any) -> ReadTable:
        """Check the parameters, and read a table to learn from."""
        parameters = self.parameters
        check_arguments(parameters)
        levels = read_quantiles(parameters["quantiles"])
        roles = read_roles(
            **{name: parameters[name] for name in _ROLES},
            quantiles=levels,
        )
        frame, kind = to_pandas(table)
        records = read_records(frame, roles, timezone=parameters["timezone"])
        axis, _ = infer_frequency(
            records.times,
            records.series,
            lambda number: label_series(records.groups, number),
            frequency=parameters["frequency"],
            holidays=parameters["holidays"],
        )
        given = make_panel(records, roles, axis, axis.place(records.times))
        faults = find_faults(given, int(parameters["horizon"]))
        words = None
        if faults:
            masked = parameters["outliers"] == "mask"
            words = summarize(faults, given.label, given.times_of, masked=masked)
        panel = self._clean(given, faults)
        return ReadTable(roles, levels, kind, records, axis, given, panel, words)

    def read_like(self, table: Any, records: Records, roles: Roles) -> tuple[Records, TableKind]:
        """Read a later table, whose columns are of the kinds of earlier records."""
        frame, kind = to_pandas(table)
        timezone = self.parameters["timezone"]
        return read_records(frame, roles, timezone=timezone, like=records), kind

    def panel_ahead(
        self, records: Records, roles: Roles, axis: TimeAxis, future: Any, steps: int
    ) -> Panel:
        """Return the series, with all that must be known of their next steps."""
        if future is not None:
            frame, _ = to_pandas(future, "future")
            plan = read_records(
                frame,
                roles,
                timezone=self.parameters["timezone"],
                like=records,
                source="future",
                future=True,
            )
            records = records.with_plan(plan, roles.targets, "future")
        panel = self.panel(records, roles, axis)
        check_future(panel, steps, "table" if future is None else "future")
        return panel

    def panel(self, records: Records, roles: Roles, axis: TimeAxis) -> Panel:
        """Place records on an axis, without faults and gaps."""
        return self.clean(make_panel(records, roles, axis, axis.place(records.times)))

    def clean(self, panel: Panel) -> Panel:
        """Mask faults, and fill gaps."""
        return self._clean(panel, find_faults(panel, int(self.parameters["horizon"])))

    def _clean(self, panel: Panel, faults: list[Suspicion]) -> Panel:
        return clean_targets(
            panel,
            faults,
            missing=self.parameters["missing"],
            outliers=self.parameters["outliers"],
        )


_ROLES = ("time", "target", "group", "known", "past", "static")
