"""Fit the statistics of a dataset to one shard after the other."""

from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from pytorch_forecasting.data import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
)
from pytorch_forecasting.utils import to_list
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from .._messages import one_line
from .batched import BatchedTimeSeriesDataSet

__all__ = ["build_shard", "fit_labels", "merge_statistics", "read_shard"]


def read_shard(path: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a file of Parquet.

    Parameters
    ----------
    path : str
        The file.
    columns : sequence of str, optional
        Columns to read. Default: all.

    Returns
    -------
    DataFrame
        Its rows, numbered from 0.

    Raises
    ------
    ImportError
        If no library that reads Parquet is installed.
    """
    if find_spec("pyarrow") is None and find_spec("fastparquet") is None:
        raise ImportError(
            "ParquetShards: pandas needs pyarrow to read Parquet, got neither pyarrow nor "
            "fastparquet; install it with pip install 'pytorch-forecasting-mlstm[parquet]'."
        )
    return pd.read_parquet(path, columns=columns).reset_index(drop=True)


def build_shard(path: str, parameters: dict[str, Any]) -> BatchedTimeSeriesDataSet:
    """Read a file of Parquet, and make a dataset of it.

    Parameters
    ----------
    path : str
        The file.
    parameters : dict
        Arguments of the dataset, which are copied.

    Raises
    ------
    ValueError
        If the file and the parameters make no dataset; the message names the file.
    """
    table = read_shard(path)
    try:
        return BatchedTimeSeriesDataSet.from_parameters(parameters, table)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"ParquetShards: cannot use {path!r}: {one_line(error)}") from error


def fit_labels(paths: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Fit the encoders of labels to all shards, and find the first time.

    Parameters
    ----------
    paths : list of str
        The files.
    settings : dict
        Arguments of a dataset.

    Returns
    -------
    dict
        ``categorical_encoders``, ``target_normalizer`` and ``min_prediction_idx``.
    """
    first = build_shard(paths[0], settings)
    given = settings.get("categorical_encoders") or {}
    encoders = {
        name: deepcopy(given.get(name, NaNLabelEncoder())) for name in first._categorical_encoders
    }
    columns = {name: first._variable_groups.get(name, [name]) for name in encoders}
    columns |= {column: [name] for name, column in first._group_ids_mapping.items()}
    normalizer = deepcopy(settings["target_normalizer"])
    parts = _parts(normalizer)
    targets = {
        name: part
        for name, part in zip(first.target_names, parts, strict=True)
        if isinstance(part, NaNLabelEncoder)
    }
    to_fit = {name: encoder for name, encoder in encoders.items() if not _is_fitted(encoder)}
    needed = [name for part in to_fit for name in columns[part]] + [*targets, first.time_idx]
    del first
    time, labels = settings["time_idx"], dict.fromkeys(needed)
    lowest = []
    for path in paths:
        table = read_shard(path, list(labels))
        lowest.append(table[time].min())
        for name in labels:
            if name != time:
                distinct = [labels[name], table[name].drop_duplicates().astype(object)]
                labels[name] = pd.concat(distinct).drop_duplicates()
    for name, encoder in to_fit.items():
        encoder.fit(pd.concat([labels[column] for column in columns[name]]).drop_duplicates())
    for name, part in targets.items():
        if not _is_fitted(part):
            part.fit(labels[name])
    earliest = settings.get("min_prediction_idx")
    return {
        "categorical_encoders": encoders,
        "target_normalizer": normalizer,
        "min_prediction_idx": int(min(lowest)) if earliest is None else earliest,
    }


def merge_statistics(
    fitted: list[tuple[dict[str, Any], Any]], settings: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
    """Merge the statistics of all shards.

    Parameters
    ----------
    fitted : list of tuple
        For each shard its scalers and target normalizer, which were fitted to it.
    settings : dict
        Arguments of the datasets.

    Returns
    -------
    scalers : dict
        Scaler of each variable.
    target_normalizer
        Normalizer of the target.

    Raises
    ------
    ValueError
        If statistics of several shards do not give that of all of them.
    """
    given = settings.get("scalers") or {}
    scalers = {
        name: _merge(f"the scaler of {name!r}", given.get(name), [part[name] for part, _ in fitted])
        for name in fitted[0][0]
    }
    before = settings["target_normalizer"]
    of_shards = [_parts(normalizer) for _, normalizer in fitted]
    merged = [
        _merge(f"the normalizer of {name!r}", part, [parts[place] for parts in of_shards])
        for place, (name, part) in enumerate(
            zip(to_list(settings["target"]), _parts(before), strict=True)
        )
    ]
    whole = fitted[0][1]
    if not isinstance(whole, MultiNormalizer):
        return scalers, merged[0]
    whole.normalizers = merged
    return scalers, whole


def _parts(normalizer: Any) -> list[Any]:
    if isinstance(normalizer, MultiNormalizer):
        return list(normalizer.normalizers)
    return list(normalizer) if isinstance(normalizer, list | tuple) else [normalizer]


def _is_fitted(transformer: Any) -> bool:
    try:
        check_is_fitted(transformer)
    except (NotFittedError, TypeError):  # the latter for None
        return False
    return True


def _merge(what: str, before: Any, fitted: list[Any]) -> Any:
    """Merge scalers that are fitted to one shard each, unless they were fitted before."""
    first = fitted[0]
    if first is None or isinstance(first, EncoderNormalizer | NaNLabelEncoder):
        return first  # every window has its own statistics, or labels are fitted already
    if _is_fitted(before) or len(fitted) == 1:
        return first
    if type(first) is StandardScaler:
        return _merge_moments(fitted)
    if type(first) is GroupNormalizer and isinstance(getattr(first, "norm_", None), pd.DataFrame):
        norm = pd.concat([part.norm_ for part in fitted]).sort_index()
        if norm.index.is_unique:
            first.norm_, first.missing_ = norm, norm.median().to_dict()
            return first
    raise ValueError(
        f"ParquetShards.fit: {what} must be one that can be fitted to one file after the other, "
        f"got {one_line(repr(first))}; pass one that is fitted to a sample of the rows, or "
        f"StandardScaler(), EncoderNormalizer() or GroupNormalizer(groups=...) by groups that are "
        f"in one file each."
    )


def _merge_moments(fitted: list[StandardScaler]) -> StandardScaler:
    """Merge means and variances; a column that is constant up to rounding has the scale 1."""
    merged = fitted[0]
    counts = np.array([np.broadcast_to(part.n_samples_seen_, part.mean_.shape) for part in fitted])
    means = np.array([part.mean_ for part in fitted])
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    merged.mean_, merged.n_samples_seen_ = mean, total
    if merged.with_std:
        variances = np.array([part.var_ for part in fitted])
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        eps = np.finfo(np.float64).eps
        constant = variance <= total * eps * variance + (total * mean * eps) ** 2
        merged.var_, merged.scale_ = variance, np.where(constant, 1.0, np.sqrt(variance))
    return merged
