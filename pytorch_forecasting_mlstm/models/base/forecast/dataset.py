"""The dataset of a forecast: built once for each model, then given other rows."""

from collections.abc import Iterator
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import BaseEstimator
from torch import nn

from ....data import BatchedTimeSeriesDataSet
from ....data.refill import can_refill, empty_copy, refill
from ....data.rows import Rows
from ..errors import UPSTREAM_ERRORS
from .schema import Schema

__all__ = ["make_datasets"]


class _Template(NamedTuple):
    """A dataset without rows, and the parameters that it was made from."""

    dataset: BatchedTimeSeriesDataSet | None
    parameters: list[Any]


_templates: WeakKeyDictionary[nn.Module, _Template] = WeakKeyDictionary()
_lock = Lock()


def make_datasets(
    model: nn.Module, parameters: dict[str, Any], schema: Schema, rows: Rows, copies: int = 1
) -> list[BatchedTimeSeriesDataSet]:
    """Make the dataset of the last window of every series.

    Any number of threads may call this for one model.

    Parameters
    ----------
    model : ForecastingModel
        The model.
    parameters : dict
        Parameters of its dataset.
    schema : Schema
        Roles of the columns.
    rows : Rows
        History and horizon of every series.
    copies : int, default 1
        How often the rows contain each series, under the same name: first all series once, then all
        of them again.

    Returns
    -------
    list of BatchedTimeSeriesDataSet
        One dataset, or one for every copy. Their windows are in the order of the series.

    Raises
    ------
    ValueError
        If no dataset can be made from the rows.
    """
    leaves = list(_leaves(parameters))
    with _lock:
        template = _templates.get(model)
    is_current = template is not None and _are_same(template.parameters, leaves)
    if template is not None and is_current and template.dataset is not None:
        dataset = refill(template.dataset, rows)
        if dataset is not None:
            return [dataset]
    count = len(np.unique(rows.series)) // copies
    parts = [rows] if copies == 1 else [rows[rows.series // count == n] for n in range(copies)]
    datasets = [_build(parameters, schema, part) for part in parts]
    if not is_current:
        empty = empty_copy(datasets[0]) if can_refill(datasets[0]) else None
        with _lock:
            _templates[model] = _Template(empty, leaves)
    return datasets


def _build(parameters: dict[str, Any], schema: Schema, rows: Rows) -> BatchedTimeSeriesDataSet:
    """Build a dataset as pytorch-forecasting does."""
    try:
        dataset = BatchedTimeSeriesDataSet.from_parameters(
            parameters,
            rows.to_frame(schema.time),
            predict=True,
            weight=None,
            min_prediction_idx=None,
        )
    except UPSTREAM_ERRORS as error:
        raise ValueError(
            f"{schema.caller}: no dataset can be made from data: {error}; correct or leave out "
            f"such rows, or train with other lags, scalers or another target_normalizer."
        ) from error
    # the dataset sorts the series in an order of its own
    last = rows[np.flatnonzero(np.diff(rows.series, append=-1))].to_frame(schema.time)
    codes = [dataset.transform_values(name, last[name], group_id=True) for name in schema.groups]
    first_rows = dataset.index["index_start"].to_numpy(copy=True)
    windows = dataset.data["groups"][first_rows].tolist()
    number = {tuple(code): window for window, code in enumerate(windows)}
    order = [number[tuple(code)] for code in np.stack(codes, axis=1).tolist()]
    dataset.index = dataset.index.iloc[order].reset_index(drop=True)
    return dataset


def _leaves(value: Any) -> Iterator[Any]:
    """List the objects that parameters consist of: a change replaces some of them."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, BaseEstimator):
        yield type(value)
        for key, item in vars(value).items():
            yield key
            # what was fitted is replaced as a whole; it may be large
            yield from _leaves(item) if isinstance(item, list | tuple) else (item,)
            if isinstance(item, dict):  # classes are added to it
                yield len(item)
    else:
        yield value


def _are_same(old: list[Any], new: list[Any]) -> bool:
    return len(old) == len(new) and all(
        a is b or (isinstance(a, int | str) and type(a) is type(b) and a == b)
        for a, b in zip(old, new, strict=True)
    )
