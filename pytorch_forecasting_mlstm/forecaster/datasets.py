"""From the table to the host's data sets: training and held-out windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types
from pytorch_forecasting.data import NaNLabelEncoder

from ..data import BatchedTimeSeriesDataSet as DataSet
from .calendar_features import calendar_features
from .panel import Table
from .splits import Split

_LONGEST_NAME = 100  # characters of a group or category, as the host is given it


@dataclass(frozen=True)
class ModelFrame:
    """The table as the host wants it: its `rows`, and what is known of the `future` after them.

    Its own column names cannot clash with the host's, which allow no point; `time_idx` counts as
    in `Split`. The target is the series less its `center`, divided by its `spread`, (series,) each:
    then every series counts alike in the loss, and the host's 32 bits do for numbers of any size.
    """

    rows: pd.DataFrame
    future: pd.DataFrame
    center: np.ndarray
    spread: np.ndarray
    statics: list[str]
    known_reals: list[str]
    known_categoricals: list[str]


def model_frame(table: Table, split: Split) -> ModelFrame:
    """Lay out all series below one another, with their calendar and what else is known."""
    horizon = split.horizon
    positions = [
        start + np.arange(length + horizon)
        for start, length in zip(table.starts, table.lengths, strict=True)
    ]
    calendar = calendar_features(table.axis, np.concatenate(positions), past=split.validation)
    begins = np.cumsum([0, *map(len, positions)])
    held_out = split.end - split.validation
    trained = [values[: len(values) - held_out] for values in table.values]
    center = np.array([values.mean() for values in trained])
    spread = np.array([_spread(values) for values in trained])
    group_names = [_short_names(list(map(str, table.groups[n]))) for n in table.groups]
    parts = []
    for number, values in enumerate(table.values):
        rows = len(values) + horizon
        part = calendar.iloc[begins[number] : begins[number + 1]].reset_index(drop=True)
        part["series"] = str(number)
        part["time_idx"] = np.arange(rows) + split.end - len(values)
        part["target"] = np.nan
        part.loc[: len(values) - 1, "target"] = (values - center[number]) / spread[number]
        for k, names in enumerate(group_names):
            part[f"group_{k}"] = names[number]
        if table.known is not None:
            for k, name in enumerate(table.known[number].columns):
                part[f"known_{k}"] = table.known[number][name]
        parts.append(part)
    rows = pd.concat(parts, ignore_index=True)
    known = [name for name in rows if name.startswith("known_")]
    reals = [name for name in known if types.is_numeric_dtype(rows[name].dtype)]
    for name in known:
        if name not in reals:
            rows[name] = _short_names(rows[name].tolist())
    ahead = rows["time_idx"] >= split.end
    return ModelFrame(
        rows=rows[~ahead],
        future=rows[ahead].drop(columns="target"),
        center=center,
        spread=spread,
        statics=[name for name in rows if name.startswith("group_") and rows[name].nunique() > 1],
        known_reals=[*calendar.columns, *reals],
        known_categoricals=[name for name in known if name not in reals],
    )


def _short_names(names: list[str]) -> list[str]:
    """Replace long names by numbers in their order: arrays give each row room for the longest."""
    if max(map(len, names)) <= _LONGEST_NAME:
        return names
    order = sorted(set(names))
    number = {name: f"{k:0{len(str(len(order)))}}" for k, name in enumerate(order)}
    return [number[name] for name in names]


def _spread(values: np.ndarray) -> float:
    """Take the standard deviation of a series, or the size of a constant one."""
    size = float(np.abs(values).max())
    spread = (
        float((values / size).std()) * size if size else 0.0
    )  # the square of `size` may overflow
    return spread if spread > 1e-12 * size else size or 1.0


def training_set(frame: ModelFrame, split: Split, end: int) -> DataSet:
    """Take all windows with targets before `end`; scalers learn from these rows alone."""
    rows = frame.rows
    categoricals = [*frame.statics, *frame.known_categoricals]
    return DataSet(
        rows[rows["time_idx"] < end],
        time_idx="time_idx",
        target="target",
        group_ids=["series"],
        max_encoder_length=split.history,
        min_encoder_length=split.min_history,
        max_prediction_length=split.horizon,
        static_categoricals=frame.statics,
        time_varying_known_reals=frame.known_reals,
        time_varying_known_categoricals=frame.known_categoricals,
        time_varying_unknown_reals=["target"],
        # Known ahead of time, a category may appear over the horizon for the first time.
        categorical_encoders={
            name: NaNLabelEncoder(add_nan=True, warn=False) for name in categoricals
        },
        target_normalizer=None,
    )


def held_out_set(
    training: DataSet, frame: ModelFrame, origins: np.ndarray, horizon: int
) -> DataSet:
    """Take the windows that begin at `origins`, one per series; rows after the last are unseen."""
    rows = frame.rows
    held_out = DataSet.from_dataset(
        training,
        rows[rows["time_idx"] < origins.max() + horizon],
        min_prediction_idx=int(origins.min()),
        stop_randomization=True,
    )
    return held_out.filter(
        lambda index: index["time_idx_first_prediction"].isin(origins) & _longest_history(index)
    )


def _longest_history(index: pd.DataFrame) -> pd.Series:
    """Keep one window per series and origin: the host also lists those with shorter histories."""
    length = index["time_idx_first_prediction"] - index["time_idx_first"]
    longest = length.groupby([index["series"], index["time_idx_first_prediction"]])
    return length == longest.transform("max")
