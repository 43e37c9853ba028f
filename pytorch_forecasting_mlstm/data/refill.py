"""Give a dataset other rows: the last window of every series, without pandas.

Building a `TimeSeriesDataSet` takes 20 ms and more, however few rows it has. Here the encoders and
scalers of a dataset that was built once encode the rows of later tables, as arrays.
"""

from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pytorch_forecasting.data import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TorchNormalizer,
)
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .batched import BatchedTimeSeriesDataSet
from .fallback import fallback_reason
from .group_normalization import group_norm
from .rows import Labels, Rows, to_array
from .scaling import encoder_normalizers
from .windows import IntArray

__all__ = ["can_refill", "empty_copy", "refill"]

Array = npt.NDArray[Any]


class _UnsupportedError(Exception):
    """These rows need a dataset of their own."""


def can_refill(dataset: BatchedTimeSeriesDataSet) -> bool:
    """Return whether a dataset can be given other rows.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Dataset in prediction mode.
    """
    # the value of a constant would depend on the first row of the table
    fills_by_group = any(
        isinstance(transformer, GroupNormalizer) and transformer._groups
        for transformer in map(dataset.get_transformer, dataset._constant_fill_strategy)
    )
    encoders = [*dataset._categorical_encoders.values(), *dataset.target_normalizers]
    subclassed = any(
        isinstance(encoder, NaNLabelEncoder) and type(encoder) is not NaNLabelEncoder
        for encoder in encoders
    )
    single_samples = fallback_reason(dataset, encoder_normalizers(dataset)) is not None
    return not (fills_by_group or subclassed or single_samples or dataset.weight is not None)


def empty_copy(dataset: BatchedTimeSeriesDataSet) -> BatchedTimeSeriesDataSet:
    """Copy a dataset without its rows; the copy shares no normalizer that a batch changes.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Dataset.
    """
    copies: dict[int, Any] = {}

    def separate(normalizer: Any) -> Any:
        if not isinstance(normalizer, EncoderNormalizer | MultiNormalizer):
            return normalizer
        if id(normalizer) not in copies:  # variables may share one
            copies[id(normalizer)] = copied = copy(normalizer)
            if isinstance(copied, MultiNormalizer):
                copied.normalizers = [separate(part) for part in normalizer.normalizers]
        return copies[id(normalizer)]

    empty = copy(dataset)
    empty.target_normalizer = separate(dataset.target_normalizer)
    empty._scalers = {name: separate(scaler) for name, scaler in dataset._scalers.items()}
    empty.data, empty.index = {}, None
    empty.__dict__.pop("_scale_tables", None)
    return empty


def refill(template: BatchedTimeSeriesDataSet, rows: Rows) -> BatchedTimeSeriesDataSet | None:
    """Return a dataset like another one, with the last window of every series in a table.

    Parameters
    ----------
    template : BatchedTimeSeriesDataSet
        Dataset in prediction mode for which `can_refill` is true. It is left unchanged.
    rows : Rows
        The columns that the dataset reads, without empty values.

    Returns
    -------
    BatchedTimeSeriesDataSet or None
        The dataset; window by window in the order of ``rows.series``. None if the rows need a
        dataset of their own: if a series is too short, or an encoded value is not finite.
    """
    dataset = empty_copy(template)
    dataset.min_prediction_idx = int(rows.times.min())
    starts = np.flatnonzero(np.diff(rows.series, prepend=-1))
    position = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    kept = np.flatnonzero(position >= dataset.max_lag)
    series, times = rows.series[kept], rows.times[kept]
    if len(np.unique(series)) < len(starts):
        return None
    try:
        dataset.data = _Encoder(dataset, rows, kept).encode()
    except _UnsupportedError:
        return None
    last = np.flatnonzero(np.diff(series, append=-1))
    longest = dataset.max_encoder_length + dataset.max_prediction_length
    in_window = times > np.repeat(times[last], np.diff(last, prepend=-1)) - longest
    first = last + 1 - np.add.reduceat(in_window.astype(np.int64), np.append(0, last[:-1] + 1))
    length = times[last] - times[first] + 1
    if (length < dataset.min_encoder_length + dataset.min_prediction_length).any():
        return None
    index = {"index_start": first, "index_end": last, "sequence_length": length}
    dataset.index = pd.DataFrame({**index, "time": times[first], "sequence_id": series[first]})
    return dataset


class _Encoder:
    """Encode the columns of a table as `TimeSeriesDataSet._preprocess_data` does.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Fitted encoders and scalers, and names of the variables.
    rows : Rows
        The table.
    kept : ndarray of int
        Rows that are left after those that lags use up.
    """

    def __init__(self, dataset: Any, rows: Rows, kept: IntArray) -> None:
        self.dataset, self.rows, self.kept = dataset, rows, kept
        self.norms: dict[int, Array] = {}
        self.lags = {
            lagged: (name, lag)
            for name in dataset._lags
            for lagged, lag in dataset._get_lagged_names(name).items()
        }
        self.normalizers = dict(zip(dataset.target_names, dataset.target_normalizers, strict=True))

    def encode(self) -> dict[str, Any]:
        """Return the tensors of the dataset."""
        dataset = self.dataset
        targets = {
            name: self.codes(name, normalizer)
            if isinstance(normalizer, NaNLabelEncoder)
            else self.read(name)
            for name, normalizer in self.normalizers.items()
        }
        count = len(self.kept)
        labels = [self.categorical(name) for name in dataset.flat_categoricals]
        return {
            "reals": _to_tensor([self.real(name) for name in dataset.reals], count),
            "categoricals": _to_tensor(labels, count, torch.int64),
            "groups": _to_tensor([self.group(name) for name in dataset.group_ids], count),
            "target": [_to_tensor([target], count).squeeze(1) for target in targets.values()],
            "weight": None,
            "time": torch.from_numpy(self.rows.times[self.kept]),
        }

    def read(self, name: str, lag: int = 0) -> Array:
        """Return the values of a column, or those of earlier rows."""
        rows = self.kept - lag
        if name == self.dataset.time_idx:
            return self.rows.times[rows]
        return to_array(self.rows.columns[name][rows])

    def codes(self, name: str, encoder: Any, lag: int = 0) -> IntArray:
        """Encode labels."""
        column = self.rows.columns[name][self.kept - lag]
        if encoder is None or not isinstance(column, Labels):
            raise _UnsupportedError
        used = column.used()
        codes = np.zeros(len(used), dtype=np.int64)
        codes[used] = encoder.transform(column.values[used], ignore_na=lag > 0)
        return codes[column.codes]

    def group(self, name: str) -> IntArray:
        """Encode the names of a group column; new names get new numbers."""
        column = self.rows.columns[name][self.kept]
        assert isinstance(column, Labels)
        classes = self.dataset._categorical_encoders[f"__group_id__{name}"].classes_
        values = column.values.tolist()
        codes = [classes.get(value, len(classes) + n) for n, value in enumerate(values)]
        return np.array(codes, dtype=np.int64)[column.codes]

    def categorical(self, name: str) -> IntArray:
        """Encode a categorical variable, or a lag of one."""
        source, lag = self.lags.get(name, (name, 0))
        return self.codes(source, self.dataset.get_transformer(name), lag)

    def real(self, name: str) -> Array:
        """Scale a real variable, unless its batch does so."""
        dataset = self.dataset
        if name in ("relative_time_idx", "encoder_length") and name not in self.rows.columns:
            return np.zeros(len(self.kept))  # follows from the window
        source, lag = self.lags.get(name, (name, 0))
        if source in self.normalizers:
            return self.target(source, lag)
        for target in self.normalizers if dataset.add_target_scales else ():
            if name in (f"{target}_center", f"{target}_scale"):
                scales = self.target_scales(target)[:, int(name == f"{target}_scale")]
                scales = np.broadcast_to(scales, self.kept.shape)
                return _scale(dataset.get_transformer(name), scales, name)
        values = self.read(source, lag)
        if lag and values.dtype.kind != "f":
            values = values.astype(float)
        transformer = dataset.get_transformer(name)
        if isinstance(transformer, GroupNormalizer):
            return self.normalize(transformer, values)
        return _scale(transformer, values, name)

    def target(self, name: str, lag: int) -> Array:
        """Scale a target, or a lag of one."""
        normalizer, values = self.normalizers[name], self.read(name, lag)
        if len(self.normalizers) > 1:  # pytorch-forecasting reads them as one array
            columns = [self.rows.columns[other] for other in self.normalizers]
            dtypes = [column.dtype for column in columns if isinstance(column, np.ndarray)]
            is_real = len(dtypes) == len(columns)
            values = values.astype(np.result_type(*dtypes) if is_real else np.float32)
        if isinstance(normalizer, EncoderNormalizer):
            preprocessed = np.asarray(normalizer.preprocess(values.astype(float)))
            if not np.isfinite(preprocessed).all():
                raise _UnsupportedError
            return values.astype(float)
        if isinstance(normalizer, GroupNormalizer):
            return self.normalize(normalizer, values)
        if lag and type(normalizer) is not TorchNormalizer:
            raise _UnsupportedError
        return np.asarray(normalizer.transform(pd.Series(values)))

    def target_scales(self, name: str) -> Array:
        """Return center and scale of a target, by row or once for all."""
        normalizer = self.normalizers[name]
        if isinstance(normalizer, GroupNormalizer):
            return self.norm(normalizer)
        if isinstance(normalizer, EncoderNormalizer):
            return np.array([[0.0, 1.0]])  # the batch replaces it
        return np.asarray(normalizer.get_parameters())[None]

    def normalize(self, normalizer: Any, values: Array) -> Array:
        """Scale by group."""
        scaled = TorchNormalizer.transform(
            normalizer, pd.Series(values), target_scale=self.norm(normalizer)
        )
        return np.asarray(scaled)

    def norm(self, normalizer: Any) -> Array:
        """Return center and scale by row, or once for all."""
        if id(normalizer) not in self.norms:
            keys = [self.norm_key(name) for name in normalizer._groups]
            self.norms[id(normalizer)] = group_norm(normalizer, keys)
        return self.norms[id(normalizer)]

    def norm_key(self, name: str) -> Array:
        """Return a column by which a normalizer groups: encoded, if the dataset encodes it."""
        dataset = self.dataset
        encodes_groups = isinstance(dataset.target_normalizer, GroupNormalizer | MultiNormalizer)
        if name in self.normalizers:
            raise _UnsupportedError
        if name in dataset.flat_categoricals or (encodes_groups and name in dataset.group_ids):
            return self.codes(name, dataset.get_transformer(name))
        return self.read(name)


def _scale(transformer: Any, values: Array, name: str) -> Array:
    """Scale a covariate by a scaler that is the same for all rows."""
    if transformer is None or isinstance(transformer, EncoderNormalizer):  # the batch scales it
        return values
    if type(transformer) is TorchNormalizer:  # it takes no table
        return np.asarray(transformer.transform(values))
    if type(transformer) is not StandardScaler:
        return np.asarray(transformer.transform(pd.DataFrame({name: values}))).reshape(-1)
    scaled = values.astype(values.dtype if values.dtype == np.float32 else np.float64)
    if transformer.with_mean:
        scaled -= transformer.mean_
    if transformer.with_std:
        scaled /= transformer.scale_
    return scaled


def _to_tensor(columns: list[Array], count: int, empty: torch.dtype = torch.float) -> Tensor:
    """Stack columns: integers if all are, else floats, which must be finite."""
    if not columns:
        return torch.empty(count, 0, dtype=empty)
    whole = np.result_type(*(column.dtype for column in columns)).kind in "bi"
    stacked = np.stack(columns, axis=1).astype(np.int64 if whole else np.float32)
    if not (whole or np.isfinite(stacked).all()):
        raise _UnsupportedError
    return torch.from_numpy(stacked)
