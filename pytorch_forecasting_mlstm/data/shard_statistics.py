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
    try:
        return pd.read_parquet(path, columns=columns).reset_index(drop=True)
    except ValueError as error:  # the base of pyarrow's errors, too
        problem = one_line(error)
        if columns is not None:
            present = read_shard(path).columns
            missing = [name for name in columns if name not in present]
            if missing:
                problem = _missing_column(missing[0], present)
        raise ValueError(f"ParquetShards: cannot read {path!r}: {problem}.") from error


def build_shard(
    path: str, parameters: dict[str, Any], table: pd.DataFrame | None = None
) -> BatchedTimeSeriesDataSet:
    """Read a file of Parquet, and make a dataset of it.

    Parameters
    ----------
    path : str
        The file.
    parameters : dict
        Arguments of the dataset, which are copied.
    table : DataFrame, optional
        Its rows, if they have been read.

    Raises
    ------
    ValueError
        If the file and the parameters make no dataset; the message names the file.
    """
    table = read_shard(path) if table is None else table
    if table.empty:
        raise ValueError(f"ParquetShards: {path!r} must have rows, got none; leave the file out.")
    try:
        return BatchedTimeSeriesDataSet.from_parameters(parameters, table)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        problem = _explain(error, table, parameters)
        raise ValueError(f"ParquetShards: cannot use {path!r}: {problem}") from error


def _explain(error: Exception, table: pd.DataFrame, parameters: dict[str, Any]) -> str:
    """Say in the words of the user why a table makes no dataset."""
    if "filters should not remove" in str(error):
        return "every series is too short for a window; leave the file out."
    for name, encoder in (parameters.get("categorical_encoders") or {}).items():
        if name in table and _is_fitted(encoder) and not encoder.add_nan:
            unknown = set(table[name].astype(str)) - set(map(str, encoder.classes_))
            if unknown:
                return (
                    f"{name!r} has the label {min(unknown)!r}, which the dataset does not know; "
                    f"make it with categorical_encoders={{{name!r}: NaNLabelEncoder(add_nan=True)}}"
                    f", or call ParquetShards.fit."
                )
    if isinstance(error, KeyError) and error.args and error.args[0] not in table:
        return _missing_column(error.args[0], table.columns)
    return one_line(error)


def _missing_column(name: Any, present: pd.Index) -> str:
    return f"it has no column {name!r}, its columns are {', '.join(map(repr, present))}"


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
    table = read_shard(paths[0])
    first = build_shard(paths[0], settings, table)
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
    for number, path in enumerate(paths):
        table = read_shard(path, list(labels)) if number else table[list(labels)]
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
    targets = to_list(settings["target"])
    if settings.get("add_target_scales") and len(targets) > 1 and len(fitted) > 1:
        _check_scales_can_be_merged(_parts(before), targets)
    of_shards = [_parts(normalizer) for _, normalizer in fitted]
    merged = [
        _merge(f"the normalizer of {name!r}", part, [parts[place] for parts in of_shards])
        for place, (name, part) in enumerate(zip(targets, _parts(before), strict=True))
    ]
    whole = fitted[0][1]
    if not isinstance(whole, MultiNormalizer):
        return scalers, merged[0]
    whole.normalizers = merged
    return scalers, whole


def _check_scales_can_be_merged(normalizers: list[Any], targets: list[str]) -> None:
    """Raise if scales are inputs that each file would have for itself.

    Of several targets, pytorch-forecasting takes the one scale over all rows to which an
    `EncoderNormalizer` was fitted.
    """
    for name, part in zip(targets, normalizers, strict=True):
        if isinstance(part, EncoderNormalizer):
            raise ValueError(
                f"ParquetShards.fit: with add_target_scales and several targets, the normalizer of "
                f"{name!r} must be a GroupNormalizer by groups that are in one file each, got "
                f"{one_line(repr(part))}; pass one, or leave add_target_scales out."
            )


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
