"""A table of series: checked, sorted, and laid along one time axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types

from ..cli.read_table import read_columns
from .errors import UserError, quoted, shown
from .frequency import TimeAxis, lay_on_axis
from .timestamps import read_times

_NO_NAMES = (bytes, list, dict, np.ndarray)  # what a parquet file may hold beside names
_LARGEST = 1e300  # of a target: sums and differences of such numbers are still finite


@dataclass(frozen=True)
class Table:
    """One or several series of one quantity, evenly spaced in time.

    Attributes
    ----------
    name
        What the picture is called.
    time, target
        Names of these columns; the target's goes to the axis of the picture, with its unit.
    axis
        The times.
    groups
        The group columns as they were read: row s describes series s; no columns for one series.
    values
        The target of each series, oldest first.
    starts
        Position of each series' first value on the axis.
    known
        The columns known in advance, per series, over its values and the horizon after them.
    """

    name: str
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

    def unseen(self, horizon: int) -> list[str]:
        """Name what the columns known in advance say over the horizon for the first time."""
        if self.known is None:
            return []
        lines = []
        for name in self.known[0].columns:
            if not types.is_numeric_dtype(self.known[0][name].dtype):
                past = {value for own in self.known for value in own[name].iloc[:-horizon]}
                ahead = {value for own in self.known for value in own[name].iloc[-horizon:]}
                lines += [f"{shown(name)}={shown(value)}" for value in sorted(ahead - past)]
        return lines

    def floor(self) -> float:
        """0 for amounts, which cannot fall below it, else minus infinity.

        Amounts are never negative, and either counts or somewhere exactly 0.
        """
        values = np.concatenate(self.values)
        if values.min() < 0:
            return -np.inf
        return 0.0 if values.min() == 0 or (values == values.round()).all() else -np.inf


def _label(groups: pd.DataFrame, series: int) -> str:
    if groups.columns.empty:
        return "the series"
    return ", ".join(f"{shown(n)}={shown(value)}" for n, value in groups.iloc[series].items())


def read_table(
    path: Path,
    *,
    time: str,
    target: str,
    group: tuple[str, ...],
    known: tuple[str, ...],
    horizon: int,
) -> Table:
    """Read and check a user's table.

    Parameters
    ----------
    path : pathlib.Path
        .csv or .parquet file.
    time, target : str
        Columns of the times and of the numbers to forecast.
    group : tuple of str
        Columns that tell the series apart; empty for a single series.
    known : tuple of str
        Columns known in advance. Each series then ends with `horizon` rows without target.
    horizon : int
        Steps to forecast.

    Raises
    ------
    UserError
        Anything that stands between the table and a forecast, in one line.
    """
    raw = read_columns(path, text=[*group, time], other=[target, *known])
    raw = raw.reset_index(drop=True)
    groups, series = _series(raw, group)

    file = shown(path.name)

    def label(number: int) -> str:
        return f"{file}, {_label(groups, number)}" if group else file

    times = read_times(raw[time], _row)
    values = _numbers(raw[target], f"{file}, column {quoted(target)}")
    order = pd.DataFrame({"series": series, "time": times}).sort_values(["series", "time"]).index
    times, series = times.loc[order], series[order]
    _check_duplicates(times, series, label, bool(group))
    axis, positions = lay_on_axis(times.reset_index(drop=True), series, label)
    if not known:  # with them, the horizon is in the table
        axis.check(int(positions.max()) + horizon)

    bounds = np.flatnonzero(np.diff(series)) + 1
    rows = np.split(order.to_numpy(), bounds)  # of the file, in time order, per series
    ahead = horizon if known else 0
    for number, own in enumerate(rows):
        _check_values(values[own], own, target, ahead, label(number))
    return Table(
        name=path.stem,
        time=time,
        target=target,
        axis=axis,
        groups=groups,
        values=[values[own[: len(own) - ahead]] for own in rows],
        starts=positions[np.concatenate([[0], bounds])],
        known=_known(raw, known, rows, file) if known else None,
    )


def _row(number: int) -> str:
    return f"row {number + 1}"


def _rows(numbers: np.ndarray) -> str:
    some = ", ".join(str(number + 1) for number in sorted(numbers[:3]))
    return ("row " if len(numbers) == 1 else "rows ") + some + (", ..." if len(numbers) > 3 else "")


def _series(raw: pd.DataFrame, group: tuple[str, ...]) -> tuple[pd.DataFrame, np.ndarray]:
    """Tell the series apart, in the order in which the table names them."""
    if not group:
        return pd.DataFrame(index=[0]), np.zeros(len(raw), dtype=int)
    for name in group:
        strange = raw[name].map(lambda value: isinstance(value, _NO_NAMES)).to_numpy(bool)
        if strange.any():
            first = raw[name].iloc[int(strange.argmax())]
            raise UserError(
                f"group column {quoted(name)} holds {quoted(first)} in "
                f"{_rows(strange.nonzero()[0])}: write names as text or numbers"
            )
        empty = (raw[name].isna() | (raw[name].astype(str).str.strip() == "")).to_numpy()
        if empty.any():
            raise UserError(
                f"group column {quoted(name)} is empty in {_rows(empty.nonzero()[0])}: name the "
                "series there, or drop the rows"
            )
    columns = list(group)
    series = raw.groupby(columns, sort=False, observed=True).ngroup().to_numpy()
    groups = raw[columns].drop_duplicates().reset_index(drop=True)
    return groups, series


def _numbers(raw: pd.Series, where: str) -> np.ndarray:
    """Turn the column into float64, NaN where it is empty."""
    for is_kind, kind in (
        (types.is_datetime64_any_dtype, "dates"),
        (types.is_timedelta64_dtype, "durations"),
        (types.is_complex_dtype, "complex numbers"),
    ):
        if is_kind(raw.dtype):
            raise UserError(f"{where}: holds {kind}, a target must be a number")
    if types.is_numeric_dtype(raw.dtype):
        return raw.to_numpy(dtype=float, na_value=np.nan)
    numbers = pd.to_numeric(raw, errors="coerce")
    text = (numbers.isna() & raw.notna()).to_numpy()
    if text.any():
        if raw.loc[text].map(lambda value: str(value).count(",") == 1).all():
            numbers = pd.to_numeric(raw.astype(str).str.replace(",", "."), errors="coerce")
            if (numbers.notna() | raw.isna()).all():
                raise UserError(
                    f"{where}: {quoted(raw.loc[text].iloc[0])} may have a decimal comma or a mark "
                    "of thousands: write decimals with a point"
                )
        first = text.nonzero()[0]
        raise UserError(
            f"{where}: holds text such as {quoted(raw.iloc[first[0]])} in {_rows(first)}: a target "
            "must be a number"
        )
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def _check_duplicates(
    times: pd.Series, series: np.ndarray, label: Callable[[int], str], grouped: bool
) -> None:
    order = times.to_numpy()
    again = np.append(False, (order[1:] == order[:-1]) & (series[1:] == series[:-1]))
    if not again.any():
        return
    first = again.nonzero()[0][0]
    same = (order == order[first]) & (series == series[first])
    mend = (
        "add such rows up" if grouped else "add such rows up, or tell the series apart by --group"
    )
    others = f" and {again.sum() - 1} more" if again.sum() > 1 else ""
    raise UserError(
        f"{label(series[first])}: {_rows(times.index[same].to_numpy())} have the same time "
        f"{times.iloc[first]}{others}: {mend}"
    )


def _check_values(
    values: np.ndarray, rows: np.ndarray, target: str, ahead: int, label: str
) -> None:
    """Allow no empty or infinite target, but want `ahead` empty ones at the end."""
    past = len(values) - ahead
    if ahead and not (
        past > 0 and np.isnan(values[past:]).all() and not np.isnan(values[past - 1])
    ):
        found = len(values) - 1 - np.flatnonzero(~np.isnan(values)).max(initial=-1)
        raise UserError(
            f"{label}: ends with {found} rows without {quoted(target)}, but --known needs exactly "
            f"{ahead}, one per step of --horizon, to hold what is known in advance"
        )
    wrong = np.flatnonzero(~np.isfinite(values[:past]))
    if len(wrong):
        infinite = np.isinf(values[wrong[0]])
        raise UserError(
            f"{label}: column {quoted(target)} is {'infinite' if infinite else 'empty'} in "
            f"{_rows(rows[wrong])}: fill in a number, or drop leading and trailing rows"
        )
    wrong = np.flatnonzero(np.abs(values[:past]) > _LARGEST)
    if len(wrong):
        raise UserError(
            f"{label}: column {quoted(target)} is {values[wrong[0]]:g} in {_rows(rows[wrong])}, "
            f"too large to add up: give it in a unit in which it stays below {_LARGEST:g}"
        )


def _known(
    raw: pd.DataFrame, names: tuple[str, ...], rows: list[np.ndarray], file: str
) -> list[pd.DataFrame]:
    """Take the columns known in advance: numbers as float64, everything else as text."""
    columns = {}
    for name in names:
        column = raw[name]
        numeric = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
        values = column.to_numpy(dtype=float, na_value=np.nan) if numeric else column.astype(object)
        wrong = np.flatnonzero(~np.isfinite(values) if numeric else column.isna())
        if len(wrong):
            raise UserError(
                f"{file}: column {quoted(name)} is empty or infinite in {_rows(wrong)}: --known "
                "columns must be filled in everywhere, over the horizon too"
            )
        columns[name] = values if numeric else column.astype(str)
    frame = pd.DataFrame(columns)
    return [frame.iloc[own].reset_index(drop=True) for own in rows]
