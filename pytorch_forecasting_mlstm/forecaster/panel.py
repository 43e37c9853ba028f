"""A panel: one or several series of one quantity, checked, sorted and placed on one time axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

from .._messages import printable
from .errors import Argument, InputError, format_rows, quoted
from .frequency import infer_frequency
from .panel_columns import check_targets, read_groups, read_known, read_numbers
from .time_axis import TimeAxis
from .timestamps import read_times


@dataclass(frozen=True)
class Panel:
    """One or several series of one quantity, evenly spaced in time.

    Attributes
    ----------
    time, target
        Names of these columns.
    axis
        The times.
    groups
        The group columns: row s describes series s; no columns for a single series.
    values
        The target of each series, oldest first.
    starts
        Position of each series' first value on the axis.
    known
        The columns known in advance, per series, over its values and the horizon after them.
    """

    time: str
    target: str
    axis: TimeAxis
    groups: pd.DataFrame
    values: list[np.ndarray]
    starts: np.ndarray
    known: list[pd.DataFrame] | None = None

    def label(self, series: int) -> str:
        """Name one series."""
        return _label(self.groups, series)

    @property
    def lengths(self) -> np.ndarray:
        """Observed steps of each series."""
        return np.array([len(values) for values in self.values])

    def unseen_categories(self, horizon: int) -> list[str]:
        """List categories, as "column=value", that appear over the horizon for the first time."""
        if self.known is None:
            return []
        unseen = []
        for name in self.known[0].columns:
            if not types.is_numeric_dtype(self.known[0][name].dtype):
                past = {value for frame in self.known for value in frame[name].iloc[:-horizon]}
                ahead = {value for frame in self.known for value in frame[name].iloc[-horizon:]}
                unseen += [f"{printable(name)}={printable(v)}" for v in sorted(ahead - past)]
        return unseen

    def lower_bound(self) -> float:
        """Return 0 for quantities that cannot be negative, else minus infinity.

        A target is assumed to be such a quantity if it has no negative value, and contains an exact
        0 or consists of whole numbers.
        """
        values = np.concatenate(self.values)
        if values.min() < 0:
            return -np.inf
        return 0.0 if values.min() == 0 or (values == values.round()).all() else -np.inf


def make_panel(
    data: pd.DataFrame,
    *,
    time: str,
    target: str,
    group: Sequence[str] = (),
    known: Sequence[str] = (),
    horizon: int,
    source: str = "data",
) -> Panel:
    """Check a table and arrange it in series.

    Parameters
    ----------
    data : pandas.DataFrame
        One row per time and series, in any order.
    time, target : str
        Columns of the times and of the numbers to forecast.
    group : sequence of str
        Columns that identify the series; empty for a single series.
    known : sequence of str
        Columns known in advance. Each series then ends with `horizon` rows without a target.
    horizon : int
        Steps to forecast.
    source : str, default "data"
        Name of the table in messages.

    Raises
    ------
    InputError
        If the table cannot be forecast. The message says why, and how to fix it.
    """
    data = data.reset_index(drop=True)
    groups, series = read_groups(data, list(group))

    def label(number: int) -> str:
        return f"{source}, {_label(groups, number)}" if group else source

    times, _ = read_times(data[time], series=series)
    values = read_numbers(data[target], f"{source}, column {quoted(target)}")
    order = pd.DataFrame({"series": series, "time": times}).sort_values(["series", "time"]).index
    times, series = times.loc[order], series[order]
    _check_duplicates(times, series, label, bool(group))
    axis, positions = infer_frequency(times.reset_index(drop=True), series, label)
    _check_gaps(axis, positions, series, label)
    if not known:  # with known columns, the table itself covers the horizon
        axis.check(int(positions.max()) + horizon)

    borders = np.flatnonzero(np.diff(series)) + 1
    rows = np.split(order.to_numpy(), borders)  # of the table, in time order, per series
    ahead = horizon if known else 0
    for number, rows_of_series in enumerate(rows):
        check_targets(values[rows_of_series], rows_of_series, target, ahead, label(number))
    return Panel(
        time=time,
        target=target,
        axis=axis,
        groups=groups,
        values=[values[rows_of_series[: len(rows_of_series) - ahead]] for rows_of_series in rows],
        starts=positions[np.concatenate([[0], borders])],
        known=read_known(data, known, rows, source) if known else None,
    )


def _label(groups: pd.DataFrame, series: int) -> str:
    if groups.columns.empty:
        return "the series"
    names = groups.iloc[series].items()
    return ", ".join(f"{printable(name)}={printable(value)}" for name, value in names)


def _check_duplicates(
    times: pd.Series, series: np.ndarray, label: Callable[[int], str], grouped: bool
) -> None:
    values = times.to_numpy()
    repeated = np.append(False, (values[1:] == values[:-1]) & (series[1:] == series[:-1]))
    if not repeated.any():
        return
    first = repeated.nonzero()[0][0]
    same = (values == values[first]) & (series == series[first])
    more = f" and {repeated.sum() - 1} more" if repeated.sum() > 1 else ""
    raise InputError(
        f"{label(series[first])}: {format_rows(times.index[same].tolist())} have the same time "
        f"{times.iloc[first]}{more}: add such rows up",
        *(() if grouped else (", or tell the series apart by ", Argument("group"))),
    )


def _check_gaps(
    axis: TimeAxis, positions: np.ndarray, series: np.ndarray, label: Callable[[int], str]
) -> None:
    gaps = (series[1:] == series[:-1]) & (np.diff(positions) != 1)
    if not gaps.any():
        return
    first = gaps.nonzero()[0][0]
    missing = int(positions[first + 1] - positions[first] - 1)
    begin, end = axis.at(positions[first : first + 2] + [1, -1])
    groups = len(np.unique(series[1:][gaps]))
    total = int((np.diff(positions)[gaps] - 1).sum())
    times = f"{begin}" if missing == 1 else f"{begin} to {end} ({missing} times)"
    totals = f"; {total} missing in all" if total > missing else ""
    totals += f", in {groups} groups" if groups > 1 else ""
    raise InputError(
        f"{label(series[first])}: no row for {times}{totals} (spacing: {axis.name}): add the "
        "missing rows, for example with the value 0 or the one before"
    )
