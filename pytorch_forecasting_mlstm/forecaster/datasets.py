"""Convert a panel to datasets of pytorch-forecasting, with training and held-out windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types
from pytorch_forecasting.data import NaNLabelEncoder

from ..data import BatchedTimeSeriesDataSet
from .calendar_features import calendar_features
from .panel import Panel
from .splits import Split

_MAX_NAME_LENGTH = 100  # characters of a group or category in the dataset


@dataclass(frozen=True)
class ModelFrame:
    """The panel as a table for pytorch-forecasting: its `rows`, and the known `future` after them.

    The columns are renamed, because pytorch-forecasting allows no dots in names and reserves some.
    `time_idx` counts as in `Split`. The target is the series minus its `center`, divided by its
    `spread`, both (series,). All series then have the same weight in the loss, and the float32 of
    pytorch-forecasting is precise enough for numbers of any size.
    """

    rows: pd.DataFrame
    future: pd.DataFrame
    center: np.ndarray
    spread: np.ndarray
    statics: list[str]
    known_reals: list[str]
    known_categoricals: list[str]


def model_frame(panel: Panel, split: Split) -> ModelFrame:
    """Stack all series, with calendar features and known columns."""
    horizon = split.horizon
    positions = [
        start + np.arange(length + horizon)
        for start, length in zip(panel.starts, panel.lengths, strict=True)
    ]
    calendar = calendar_features(panel.axis, np.concatenate(positions), past=split.validation)
    begins = np.cumsum([0, *map(len, positions)])
    training_values = split.training_values(panel)
    center = np.array([values.mean() for values in training_values])
    spread = np.array([_spread(values) for values in training_values])
    group_names = [_short_names(list(map(str, panel.groups[name]))) for name in panel.groups]
    parts = []
    for number, values in enumerate(panel.values):
        length = len(values) + horizon
        part = calendar.iloc[begins[number] : begins[number + 1]].reset_index(drop=True)
        part["series"] = str(number)
        part["time_idx"] = np.arange(length) + split.end - len(values)
        part["target"] = np.nan
        part.loc[: len(values) - 1, "target"] = (values - center[number]) / spread[number]
        for k, names in enumerate(group_names):
            part[f"group_{k}"] = names[number]
        if panel.known is not None:
            for k, name in enumerate(panel.known[number].columns):
                part[f"known_{k}"] = panel.known[number][name]
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


def training_set(frame: ModelFrame, split: Split, end: int) -> BatchedTimeSeriesDataSet:
    """Return all windows with targets before `end`; scalers are fitted to these rows only."""
    rows = frame.rows
    categoricals = [*frame.statics, *frame.known_categoricals]
    return BatchedTimeSeriesDataSet(
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
        # A known category may appear over the horizon for the first time.
        categorical_encoders={
            name: NaNLabelEncoder(add_nan=True, warn=False) for name in categoricals
        },
        target_normalizer=None,
    )


def held_out_set(
    training: BatchedTimeSeriesDataSet, frame: ModelFrame, origins: np.ndarray, horizon: int
) -> BatchedTimeSeriesDataSet:
    """Return the windows that begin at `origins`, one per series, without rows after the last."""
    rows = frame.rows
    held_out = BatchedTimeSeriesDataSet.from_dataset(
        training,
        rows[rows["time_idx"] < origins.max() + horizon],
        min_prediction_idx=int(origins.min()),
        stop_randomization=True,
    )
    return held_out.filter(
        lambda index: index["time_idx_first_prediction"].isin(origins) & _has_longest_history(index)
    )


def _has_longest_history(index: pd.DataFrame) -> pd.Series:
    """Mark one window per series and origin: the dataset also has those with shorter histories."""
    length = index["time_idx_first_prediction"] - index["time_idx_first"]
    windows = length.groupby([index["series"], index["time_idx_first_prediction"]])
    return length == windows.transform("max")


def _short_names(names: list[str]) -> list[str]:
    """Replace long names by ordered numbers: NumPy reserves space for the longest in every row."""
    if max(map(len, names)) <= _MAX_NAME_LENGTH:
        return names
    order = sorted(set(names))
    digits = len(str(len(order)))
    number = {name: f"{k:0{digits}}" for k, name in enumerate(order)}
    return [number[name] for name in names]


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of a series, or the magnitude of a constant one."""
    size = float(np.abs(values).max())
    # Divided by `size` first, whose square may overflow.
    spread = float((values / size).std()) * size if size else 0.0
    return spread if spread > 1e-12 * size else size or 1.0
