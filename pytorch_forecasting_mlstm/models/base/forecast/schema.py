"""What a dataset requires of a table: columns and their roles, lengths, and how gaps are filled."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types
from pytorch_forecasting.data import GroupNormalizer, MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.utils import to_list

from ...._messages import and_more, format_series, format_times
from ...._v2_objects import reject_v2
from ....data.rows import Column, Labels, Rows, to_array
from ....data.table_checks import check_duplicates
from ..losses.link import target_normalizers

__all__ = ["Schema", "Table", "is_real"]

_MAX_TIME = 2**53  # pytorch-forecasting takes differences of time indices as 64-bit floats


class Table(NamedTuple):
    """Columns of a user's table, as arrays.

    Attributes
    ----------
    rows : Rows
        The rows, sorted by series and time.
    names : list of tuple
        Values of the group columns for every series, in the order of their first appearance.
    positions : numpy.ndarray
        Position of every row in the user's table.
    """

    rows: Rows
    names: list[tuple]
    positions: np.ndarray


@dataclass(frozen=True)
class Schema:
    """Columns that a table must have, and how the dataset uses them.

    Attributes
    ----------
    caller : str
        Name to begin error messages with.
    time : str
        The time index.
    groups, targets : list of str
        Columns that identify a series, and columns to forecast.
    known : list of str
        Variables that must be known over the horizon, except those that the dataset computes.
    unknown : list of str
        Other variables that change with time, except the targets.
    reals : list of str
        Columns of numbers.
    encoders : dict of str to NaNLabelEncoder or None
        Columns of labels, and the encoder of each.
    text : list of str
        Columns of labels that pytorch-forecasting requires to be text.
    columns : list of str
        All columns that are read.
    labels : frozenset of str
        Those that are not read as numbers alone: labels, groups of series and of scalers.
    fill_values : dict
        ``constant_fill_strategy`` of the dataset.
    allow_gaps : bool
        ``allow_missing_timesteps`` of the dataset.
    min_history, max_history, horizon : int
        Numbers of steps.
    max_lag : int
        Largest lag, which is the number of rows needed before the history.
    optional : list of str
        Columns of numbers that may be missing (NaN) in the history.
    optional_ahead : list of str
        Known variables that may be missing in the horizon.
    """

    caller: str
    time: str
    groups: list[str]
    targets: list[str]
    known: list[str]
    unknown: list[str]
    reals: list[str]
    encoders: dict[str, NaNLabelEncoder | None]
    text: list[str]
    columns: list[str]
    labels: frozenset[str]
    fill_values: dict[str, Any]
    allow_gaps: bool
    min_history: int
    max_history: int
    horizon: int
    max_lag: int
    optional: list[str]
    optional_ahead: list[str]

    @classmethod
    def from_parameters(
        cls, parameters: dict[str, Any], caller: str, missing_values: Iterable[str] = ()
    ) -> "Schema":
        """Make the schema of a dataset from its ``get_parameters()``.

        Parameters
        ----------
        parameters : dict
            The parameters.
        caller : str
            Name to begin error messages with.
        missing_values : iterable of str
            Variables that were missing in the training data, too.
        """
        time, groups = parameters["time_idx"], to_list(parameters["group_ids"])
        targets = to_list(parameters["target"])
        lags = parameters["lags"] or {}
        # pytorch-forecasting may have added these to the user's variables
        computed = {f"{name}_lagged_by_{lag}" for name, steps in lags.items() for lag in steps}
        if parameters["add_relative_time_idx"]:
            computed.add("relative_time_idx")
        if parameters["add_encoder_length"]:
            computed.add("encoder_length")
        if parameters["add_target_scales"]:
            computed.update(f"{name}_{part}" for name in targets for part in ("center", "scale"))
        variable_groups = parameters["variable_groups"] or {}

        def variables(kind: str) -> list[str]:
            names = to_list(parameters[kind] or [])
            flat = (column for name in names for column in variable_groups.get(name, [name]))
            return [name for name in dict.fromkeys(flat) if name not in computed]

        static_labels, known_labels, unknown_labels = (
            variables(f"{kind}_categoricals")
            for kind in ("static", "time_varying_known", "time_varying_unknown")
        )
        static_reals, known_reals, unknown_reals = (
            variables(f"{kind}_reals")
            for kind in ("static", "time_varying_known", "time_varying_unknown")
        )
        normalizer = parameters["target_normalizer"]
        text = list(dict.fromkeys([*static_labels, *known_labels, *unknown_labels]))
        all_encoders = parameters["categorical_encoders"]
        group_of = {column: name for name, columns in variable_groups.items() for column in columns}
        encoders = {name: all_encoders.get(group_of.get(name, name)) for name in text}
        if isinstance(normalizer, GroupNormalizer | MultiNormalizer):  # it may scale by series
            encoders |= {name: all_encoders.get(name) for name in groups}
        for name, part in zip(targets, target_normalizers(normalizer), strict=True):
            if isinstance(part, NaNLabelEncoder):
                encoders[name] = part
        reals = [*targets, *static_reals, *known_reals, *unknown_reals]
        reals = [name for name in dict.fromkeys(reals) if name not in encoders and name != time]
        # a covariate may be scaled by groups that are otherwise not read
        scaler_groups = [
            name
            for scaler in parameters["scalers"].values()
            for name in getattr(scaler, "_groups", [])
        ]
        columns = [*groups, time, *targets, *text, *reals, *scaler_groups]
        return cls(
            caller=caller,
            time=time,
            groups=groups,
            targets=targets,
            known=[name for name in (*known_reals, *known_labels) if name not in (time, *groups)],
            unknown=[
                name
                for name in (*unknown_reals, *unknown_labels)
                if name not in (time, *groups, *targets)
            ],
            reals=reals,
            encoders=encoders,
            text=text,
            columns=list(dict.fromkeys(columns)),
            labels=frozenset([*groups, *text, *encoders, *scaler_groups]),
            fill_values=parameters["constant_fill_strategy"] or {},
            allow_gaps=parameters["allow_missing_timesteps"],
            min_history=parameters["min_encoder_length"],
            max_history=parameters["max_encoder_length"],
            horizon=parameters["max_prediction_length"],
            max_lag=max((lag for steps in lags.values() for lag in steps), default=0),
            optional=[name for name in reals if name not in static_reals],
            optional_ahead=[name for name in known_reals if name in missing_values],
        )

    def select(self, table: Any, argument: str, columns: Iterable[str]) -> Table:
        """Select columns of a table, sorted by series and time.

        Parameters
        ----------
        table : pandas.DataFrame
            The user's table.
        argument : str
            Its name in error messages.
        columns : iterable of str
            Columns to select, with those of the groups and the time index.

        Raises
        ------
        TypeError, ValueError
            If it is not a table; if a column is missing or duplicated; if a series has no name, or
            several rows with the same time index; or if a time index is not an integer, or a real
            variable not a number.
        """
        reject_v2(table, self.caller, argument, "a pandas DataFrame")
        if not isinstance(table, pd.DataFrame):
            hint = "the one that the dataset was made from" if argument == "data" else "or None"
            raise TypeError(
                f"{self.caller}: {argument} must be a pandas DataFrame, got "
                f"{type(table).__name__}; pass {hint}."
            )
        columns = list(columns)
        missing = [name for name in columns if name not in table.columns]
        if missing:
            indexed = [name for name in missing if name in table.index.names]
            hint = f"call {argument}.reset_index() first" if indexed else "add them"
            raise ValueError(
                f"{self.caller}: {argument} must have the columns {columns}, got none named "
                f"{missing}; {hint}."
            )
        duplicates = [
            name
            for name in (() if table.columns.is_unique else columns)
            if isinstance(table[name], pd.DataFrame)
        ]
        if duplicates:
            raise ValueError(
                f"{self.caller}: {argument} must have every column once, got {duplicates} several "
                f"times; rename or drop the others."
            )
        arrays = {
            name: self._read(table[name], name, argument) for name in columns if name != self.time
        }
        times = self._read_times(table[self.time], argument)
        series, names = self._number_series(arrays)
        rows, positions = Rows(arrays, series, times), np.arange(len(times))
        next_series, next_time = np.diff(series), np.diff(times)
        if not ((next_series > 0) | ((next_series == 0) & (next_time > 0))).all():
            positions = np.lexsort((times, series))
            rows = rows[positions]
            if ((np.diff(rows.series) == 0) & (np.diff(rows.times) == 0)).any():
                keys = table[[*self.groups, self.time]]
                check_duplicates(keys, self.groups, self.time, f"{self.caller}: {argument}")
        return Table(rows, names, positions)

    def _read(self, column: pd.Series, name: str, argument: str) -> Column:
        """Read a column: as numbers if it is a real variable, else as labels."""
        if name in self.groups and column.isna().any():
            raise ValueError(
                f"{self.caller}: {argument} must name the series of every row, got "
                f"{int(column.isna().sum())} rows without {name!r}; fill it in."
            )
        if name in self.reals and not is_real(column):
            raise TypeError(
                f"{self.caller}: column {name!r} of {argument} must hold numbers, got "
                f"{column.dtype}; convert it."
            )
        if name in self.labels:
            return Labels.from_series(column)
        if types.is_float_dtype(column) and not types.is_extension_array_dtype(column):
            return column.to_numpy()
        # an EncoderNormalizer cannot scale integers, and torch reads no nullable numbers
        return column.to_numpy(float, na_value=np.nan)

    def _read_times(self, column: pd.Series, argument: str) -> np.ndarray:
        """Read the time index as 64-bit integers."""
        if not types.is_integer_dtype(column):
            raise TypeError(
                f"{self.caller}: column {self.time!r} of {argument} must hold integers, got "
                f"{column.dtype}; number the steps."
            )
        if types.is_extension_array_dtype(column):  # a nullable dtype
            if column.isna().any():
                raise ValueError(
                    f"{self.caller}: {argument} must have a time index in every row, got "
                    f"{int(column.isna().sum())} without {self.time!r}; fill it in."
                )
            times = column.to_numpy(column.dtype.numpy_dtype)
        else:
            times = column.to_numpy()
        ends = (int(times.min()), int(times.max())) if len(times) else ()
        out_of_range = [time for time in ends if abs(time) + self.horizon > _MAX_TIME]
        if out_of_range:
            raise ValueError(
                f"{self.caller}: column {self.time!r} of {argument} must hold time indices between "
                f"-2**53 and 2**53, including the horizon, got {out_of_range[0]}; count from "
                f"another start."
            )
        return times.astype(np.int64)

    def _number_series(self, columns: dict[str, Column]) -> tuple[np.ndarray, list[tuple]]:
        """Return the number of the series of each row, in order of appearance, and all names."""
        groups = [columns[name] for name in self.groups]
        series = np.zeros(0, dtype=np.int64)
        for number, column in enumerate(groups):
            assert isinstance(column, Labels)
            series = (
                pd.factorize(series * len(column.values) + column.codes)[0]
                if number
                else column.codes
            )
        first = np.flatnonzero(~pd.Series(series).duplicated().to_numpy())
        values = (to_array(column[first]).tolist() for column in groups)
        return series, list(zip(*values, strict=True))

    def check_values(
        self, rows: Rows, argument: str, columns: Iterable[str], names: list[tuple]
    ) -> None:
        """Raise if a value is infinite, or missing where it may not be, or an unknown label.

        Parameters
        ----------
        rows : Rows
            Rows that are read.
        argument : str
            Name of the user's table in error messages.
        columns : iterable of str
            Columns to check.
        names : list of tuple
            Name of each series.
        """
        for name in columns:
            column = rows.columns[name]
            if name in self.reals:
                numbers = to_array(column).astype(float)
                optional = self.optional if argument == "data" else self.optional_ahead
                invalid = np.isinf(numbers) if name in optional else ~np.isfinite(numbers)
                expected, hint = "finite numbers", "fill them in"
                if name in self.optional and name not in optional:
                    hint += f", or make the model with missing_values=[{name!r}]"
            else:
                assert isinstance(column, Labels)
                if name in self.text and types.is_numeric_dtype(column.values.dtype):
                    raise TypeError(
                        f"{self.caller}: categorical variable {name!r} of {argument} must hold "
                        f"text, got {column.values.dtype}; convert it, for example with "
                        f".astype(str)."
                    )
                encoder = self.encoders.get(name)
                if encoder is None or encoder.add_nan:  # it accepts every label
                    continue
                unknown = [value not in encoder.classes_ for value in column.values.tolist()]
                invalid = np.array(unknown, dtype=bool)[column.codes]
                expected = (
                    f"one of the {len(encoder.classes_)} labels that the model was trained with"
                )
                hint = (
                    f"correct or drop it, or train with categorical_encoders="
                    f"{{{name!r}: NaNLabelEncoder(add_nan=True)}}"
                )
            if invalid.any():
                first = int(invalid.argmax())
                in_series = invalid & (rows.series == rows.series[first])
                (value,) = to_array(column[[first]]).tolist()
                others = len(np.unique(rows.series[invalid])) - 1
                raise ValueError(
                    f"{self.caller}: column {name!r} of {argument} must hold {expected}, got "
                    f"{value!r} for {format_series(self.groups, names[rows.series[first]])} "
                    f"at {self.time}={format_times(rows.times[in_series])}"
                    f"{and_more(others)}; {hint}."
                )


def is_real(values: pd.Series) -> bool:
    """Return whether a column holds numbers that are not complex."""
    return types.is_numeric_dtype(values) and not types.is_complex_dtype(values)
