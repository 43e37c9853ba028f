"""What a dataset asks of a table: its columns and their roles, its lengths, how gaps are filled."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from pytorch_forecasting.data import GroupNormalizer, MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.utils import to_list

from ..losses.link import target_normalizers as normalizers_of

__all__ = ["WHO", "Schema", "is_real", "more", "name_series", "name_times"]

WHO = "mLSTMTime.forecast"

MOST_TIME = 2**53  # pytorch-forecasting takes differences of time indices as 64-bit floats


@dataclass(frozen=True)
class Schema:
    """Columns that a table must have, and what the dataset does with them.

    Attributes
    ----------
    time : str
        The time index.
    groups, targets : list of str
        Columns that tell the series apart, and those to forecast.
    known : list of str
        Variables whose future must be given: what the dataset computes itself is left out.
    reals : list of str
        Columns of numbers.
    labels : dict of str to NaNLabelEncoder or None
        Columns of labels, with what encodes them.
    text : list of str
        Those of `labels` that the host wants as text.
    columns : list of str
        All columns that are read.
    fill : dict
        ``constant_fill_strategy`` of the dataset.
    allow_gaps : bool
        ``allow_missing_timesteps`` of the dataset.
    min_history, max_history, horizon : int
        Steps.
    lag : int
        Largest lag: so many rows are needed before the history.
    """

    time: str
    groups: list[str]
    targets: list[str]
    known: list[str]
    reals: list[str]
    labels: dict[str, NaNLabelEncoder | None]
    text: list[str]
    columns: list[str]
    fill: dict[str, Any]
    allow_gaps: bool
    min_history: int
    max_history: int
    horizon: int
    lag: int

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> "Schema":
        """Read the parameters of a dataset, as ``get_parameters`` gives them."""
        time, groups = parameters["time_idx"], to_list(parameters["group_ids"])
        targets = to_list(parameters["target"])
        lags = parameters["lags"] or {}
        # the host may have put these beside the user's own
        computed = {f"{name}_lagged_by_{lag}" for name, own in lags.items() for lag in own}
        if parameters["add_relative_time_idx"]:
            computed.add("relative_time_idx")
        if parameters["add_encoder_length"]:
            computed.add("encoder_length")
        if parameters["add_target_scales"]:
            computed.update(f"{name}_{part}" for name in targets for part in ("center", "scale"))
        together = parameters["variable_groups"] or {}

        def variables(kind: str) -> list[str]:
            names = to_list(parameters[kind] or [])
            flat = (column for name in names for column in together.get(name, [name]))
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
        encoders = parameters["categorical_encoders"]
        shared = {column: name for name, own in together.items() for column in own}
        labels = {name: encoders.get(shared.get(name, name)) for name in text}
        if isinstance(normalizer, GroupNormalizer | MultiNormalizer):  # it goes by the series
            labels |= {name: encoders.get(name) for name in groups}
        for name, own in zip(targets, normalizers_of(normalizer), strict=True):
            if isinstance(own, NaNLabelEncoder):
                labels[name] = own
        reals = [*targets, *static_reals, *known_reals, *unknown_reals]
        reals = [name for name in dict.fromkeys(reals) if name not in labels and name != time]
        # a covariate may be scaled by columns that nothing else reads
        by = [
            n for scaler in parameters["scalers"].values() for n in getattr(scaler, "_groups", [])
        ]
        return cls(
            time=time,
            groups=groups,
            targets=targets,
            known=[name for name in (*known_reals, *known_labels) if name not in (time, *groups)],
            reals=reals,
            labels=labels,
            text=text,
            columns=list(dict.fromkeys([*groups, time, *targets, *text, *reals, *by])),
            fill=parameters["constant_fill_strategy"] or {},
            allow_gaps=parameters["allow_missing_timesteps"],
            min_history=parameters["min_encoder_length"],
            max_history=parameters["max_encoder_length"],
            horizon=parameters["max_prediction_length"],
            lag=max((lag for own in lags.values() for lag in own), default=0),
        )

    def select(self, table: Any, argument: str, columns: Iterable[str]) -> pd.DataFrame:
        """Take columns of a table, the time index as 64-bit integers.

        Raises
        ------
        TypeError, ValueError
            If it is no table, lacks a column, has no name for a series, no whole number for a time,
            two rows for one time, or anything but numbers for a real variable.
        """
        if not isinstance(table, pd.DataFrame):
            mend = "the one that the dataset was made of" if argument == "data" else "or None"
            raise TypeError(
                f"{WHO}: {argument} must be a pandas DataFrame, got {type(table).__name__}; "
                f"pass {mend}."
            )
        columns = list(columns)
        missing = [name for name in columns if name not in table.columns]
        if missing:
            indexed = [name for name in missing if name in table.index.names]
            mend = f"call {argument}.reset_index() first" if indexed else "add them"
            raise ValueError(
                f"{WHO}: {argument} must have the columns {columns}, got none named {missing}; "
                f"{mend}."
            )
        twice = [name for name in columns if isinstance(table[name], pd.DataFrame)]
        if twice:
            raise ValueError(
                f"{WHO}: {argument} must have every column once, got {twice} several times; "
                f"rename or drop the others."
            )
        table = table[columns].reset_index(drop=True)
        for name in self.groups:
            if table[name].isna().any():
                raise ValueError(
                    f"{WHO}: {argument} must name the series of every row, got "
                    f"{int(table[name].isna().sum())} rows without {name!r}; fill it in."
                )
        for name in [self.time, *(name for name in self.reals if name in columns)]:
            whole = name == self.time
            if not (types.is_integer_dtype if whole else is_real)(table[name]):
                mend = "number the steps" if whole else "convert it"
                raise TypeError(
                    f"{WHO}: column {name!r} of {argument} must hold "
                    f"{'integers' if whole else 'numbers'}, got {table[name].dtype}; {mend}."
                )
            if not whole and types.is_extension_array_dtype(table[name]):  # torch knows none
                table[name] = table[name].to_numpy(float, na_value=np.nan)
        if table[self.time].isna().any():  # of a nullable type
            raise ValueError(
                f"{WHO}: {argument} must have a time index in every row, got "
                f"{int(table[self.time].isna().sum())} without {self.time!r}; fill it in."
            )
        ends = (int(table[self.time].min()), int(table[self.time].max())) if len(table) else ()
        beyond = [time for time in ends if abs(time) + self.horizon > MOST_TIME]
        if beyond:
            raise ValueError(
                f"{WHO}: column {self.time!r} of {argument} must hold time indices between "
                f"-2**53 and 2**53, the horizon included, got {beyond[0]}; count from another "
                f"start."
            )
        table[self.time] = table[self.time].astype("int64")
        keys = [*self.groups, self.time]
        again = table.duplicated(keys)
        if again.any():
            *key, step = table.loc[again, keys].iloc[0]
            raise ValueError(
                f"{WHO}: {argument} must have one row per series and time index, got several for "
                f"{name_series(self.groups, key)} at {self.time}={step}"
                f"{more(int(again.sum()) - 1, 'such rows')}; add such rows up or drop them."
            )
        return table

    def number_series(self, table: pd.DataFrame) -> tuple[np.ndarray, list[tuple]]:
        """Count series in the order in which they appear: that of every row, and their names."""
        names = table[self.groups].drop_duplicates()
        # by text and category columns alike
        rows = pd.MultiIndex.from_frame(table[self.groups].astype(object))
        series = pd.MultiIndex.from_frame(names.astype(object)).get_indexer(rows)
        return series, list(zip(*(names[name].tolist() for name in self.groups), strict=True))

    def check_values(
        self,
        table: pd.DataFrame,
        argument: str,
        columns: Iterable[str],
        series: np.ndarray,
        names: list[tuple],
    ) -> None:
        """Raise if a value is empty or infinite, or a label one that the model does not know.

        Parameters
        ----------
        table : pandas.DataFrame
            Rows that are read.
        argument : str
            Where they are from.
        columns : iterable of str
            Which columns to check.
        series : numpy.ndarray
            Number of the series of each row.
        names : list of tuple
            Name of each series.
        """
        for name in columns:
            values = table[name]
            if name in self.reals:
                wrong = ~np.isfinite(values.to_numpy(float, na_value=np.nan))
                known, mend = "finite numbers", "fill them in"
                if name in self.targets:
                    mend += ", or drop rows at the end: those to be forecast belong in future"
            else:
                if name in self.text and _is_numeric(values):
                    raise TypeError(
                        f"{WHO}: categorical variable {name!r} of {argument} must hold text, got "
                        f"{values.dtype}; convert it, for example with .astype(str)."
                    )
                encoder = self.labels.get(name)
                if encoder is None or encoder.add_nan:  # then everything is a class
                    continue
                unknown = [value for value in values.unique() if value not in encoder.classes_]
                wrong = values.isin(unknown).to_numpy()
                known = f"one of the {len(encoder.classes_)} labels that the model was trained with"
                mend = (
                    f"correct or drop it, or train with categorical_encoders="
                    f"{{{name!r}: NaNLabelEncoder(add_nan=True)}}"
                )
            if wrong.any():
                first = int(wrong.argmax())
                own = wrong & (series == series[first])
                (value,) = values.iloc[[first]].tolist()
                others = len(np.unique(series[wrong])) - 1
                raise ValueError(
                    f"{WHO}: column {name!r} of {argument} must hold {known}, got "
                    f"{value!r} for {name_series(self.groups, names[series[first]])} "
                    f"at {self.time}={name_times(table.loc[own, self.time])}"
                    f"{more(others)}; {mend}."
                )


def name_series(groups: list[str], key: Iterable[Any]) -> str:
    """Name a series for a message.

    >>> name_series(["store", "item"], ("north", 7))
    "store='north', item=7"
    """
    return ", ".join(f"{name}={value!r}" for name, value in zip(groups, key, strict=True))


def name_times(times: Iterable[int]) -> str:
    """Name time indices for a message.

    >>> name_times([3, 4, 5]), name_times([7]), name_times([1, 3]), name_times(range(2**62))
    ('3 to 5', '7', '1, 3', '0 to 4611686018427387903')
    """
    times = times if isinstance(times, range) else sorted(map(int, times))  # a range may be long
    if len(times) > 2 and times[-1] - times[0] == len(times) - 1:
        return f"{times[0]} to {times[-1]}"
    return ", ".join(map(str, times[:5])) + (", ..." if len(times) > 5 else "")


def more(count: int, what: str = "series") -> str:
    """Say how many others there are.

    >>> more(0), more(2)
    ('', ' (and 2 more series)')
    """
    return f" (and {count} more {what})" if count else ""


def is_real(values: pd.Series) -> bool:
    """Whether a column holds numbers, none of them complex."""
    return types.is_numeric_dtype(values) and not types.is_complex_dtype(values)


def _is_numeric(values: pd.Series) -> bool:
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.cat.categories
    return types.is_numeric_dtype(values.dtype)
