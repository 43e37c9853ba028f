"""Datasets of pytorch-forecasting with the training and the validation windows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pytorch_forecasting.data import NaNLabelEncoder

from ...data import BatchedTimeSeriesDataSet
from .layout import SERIES, TIME, Layout
from .splits import Split


def rows_to_learn(frame: pd.DataFrame, end: int, shortest: int) -> pd.DataFrame:
    """Return the rows before `end` of series that have at least `shortest` of them."""
    rows = frame[frame[TIME] < end]
    return rows[rows.groupby(SERIES)[TIME].transform("size") >= shortest]


def training_set(
    frame: pd.DataFrame, layout: Layout, split: Split, end: int
) -> BatchedTimeSeriesDataSet:
    """Return all windows with targets before `end`; scalers are fitted to these rows only."""
    rows = rows_to_learn(frame, end, split.min_history + split.horizon)
    classes = [*layout.static_classes, *layout.known_classes, *layout.past_classes]
    return BatchedTimeSeriesDataSet(
        rows,
        time_idx=TIME,
        target=layout.target,
        group_ids=[SERIES],
        max_encoder_length=split.history,
        min_encoder_length=split.min_history,
        max_prediction_length=split.horizon,
        static_categoricals=layout.static_classes,
        static_reals=layout.static_reals,
        time_varying_known_categoricals=layout.known_classes,
        time_varying_known_reals=layout.known_reals,
        time_varying_unknown_categoricals=layout.past_classes,
        time_varying_unknown_reals=[layout.target, *layout.past_reals],
        # A class may appear for the first time after training.
        categorical_encoders={name: NaNLabelEncoder(add_nan=True, warn=False) for name in classes},
        target_normalizer=None,
    )


def validation_set(
    training: BatchedTimeSeriesDataSet, frame: pd.DataFrame, origins: np.ndarray, horizon: int
) -> BatchedTimeSeriesDataSet | None:
    """Return the windows that begin at `origins`, one per series, or None if there are none."""
    rows = frame[frame[TIME] < origins.max() + horizon]
    first = rows.groupby(SERIES)[TIME].transform("min")
    # Series without a history before the first origin have no windows.
    rows = rows[first <= int(origins.max()) - int(training.min_encoder_length)]
    if rows.empty:
        return None
    windows = BatchedTimeSeriesDataSet.from_dataset(
        training, rows, min_prediction_idx=int(origins.min()), stop_randomization=True
    )
    windows = windows.filter(
        lambda index: index["time_idx_first_prediction"].isin(origins) & _has_longest_history(index)
    )
    return windows if len(windows) else None


def _has_longest_history(index: pd.DataFrame) -> pd.Series:
    """Mark one window per series and origin: the dataset also has those with shorter histories."""
    length = index["time_idx_first_prediction"] - index["time_idx_first"]
    windows = length.groupby([index[SERIES], index["time_idx_first_prediction"]])
    return length == windows.transform("max")
