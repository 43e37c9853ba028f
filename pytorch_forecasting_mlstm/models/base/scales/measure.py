"""Measure the typical scale of every series of a dataset, and which histories have none."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from torch import Tensor, distributed

from ....data import ParquetShards
from ....data.group_normalization import series_starts
from ....data.shard_loader import find_process
from ..link import Link
from ..losses.link import link_of, primary_metrics, target_normalizers
from .table import TypicalScales

__all__ = [
    "adopt_scales",
    "adopt_shard_scales",
    "measure_model_scales",
    "measure_series_scales",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: The last scales of each dataset, with what they were measured from: `from_dataset` and `fit` ask.
_measured: WeakKeyDictionary[TimeSeriesDataSet, tuple[list[Any], Any, TypicalScales]] = (
    WeakKeyDictionary()
)


def measure_series_scales(dataset: TimeSeriesDataSet, links: Sequence[Link]) -> TypicalScales:
    """Measure the typical scale of every target in every series.

    Where the loss has a center, that is the root mean square of the standard deviations of all
    windows of history and horizon; otherwise it is the mean magnitude of all values.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset to train on.
    links : sequence of Link
        For each target, how its loss maps the output of the network to the data.

    Returns
    -------
    TypicalScales
        The scales. Those of a dataset are measured once, unless its data, lengths or normalizer
        have changed since.
    """
    tensors = [dataset.data["groups"], *dataset.data["target"], dataset.target_normalizer]
    # Tensors created in inference mode have no version counter.
    versions = [
        part._version if isinstance(part, Tensor) and not part.is_inference() else None
        for part in tensors
    ]
    length = dataset.max_encoder_length + dataset.max_prediction_length
    settings = list(links), length, versions
    known = _measured.get(dataset)
    if known is not None and known[1] == settings:
        if all(one is other for one, other in zip(known[0], tensors, strict=True)):
            return known[2]
    scales = _measure(dataset, links, length)
    _measured[dataset] = tensors, settings, scales
    return scales


def _measure(dataset: TimeSeriesDataSet, links: Sequence[Link], length: int) -> TypicalScales:
    groups: Tensor = dataset.data["groups"]
    first_rows = series_starts(groups)
    normalizers = target_normalizers(dataset.target_normalizer)
    scales = np.zeros((len(first_rows), len(normalizers)))
    for column, (link, normalizer, values) in enumerate(
        zip(links, normalizers, dataset.data["target"], strict=True)
    ):
        if isinstance(normalizer, NaNLabelEncoder):
            continue
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        if link is not Link.LOG_RATE:  # that link takes its rate from the data
            values = normalizer.preprocess(values)
        numbers = values.numpy().astype(np.float64)
        if link in (Link.SCALE, Link.LOG_RATE):
            scales[:, column] = _mean_magnitudes(numbers, first_rows)
        else:
            scales[:, column] = _window_spreads(numbers, first_rows, length)
    return TypicalScales(groups[torch.from_numpy(first_rows)], torch.from_numpy(scales).float())


def adopt_scales(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Let a model scale constant histories by the series of another dataset.

    Parameters
    ----------
    model : ForecastingModel
        The model.
    dataset : TimeSeriesDataSet
        Dataset that it is going to be fitted to.
    """
    _replace_scales(model, measure_model_scales(model, dataset))


def measure_model_scales(model: Any, dataset: TimeSeriesDataSet) -> TypicalScales:
    """Measure the typical scales of every series, as the loss of a model needs them."""
    links = [link_of(metric) for metric in primary_metrics(model.loss)]
    return measure_series_scales(dataset, links)


def adopt_shard_scales(model: Any, shards: ParquetShards, first: TypicalScales) -> None:
    """Let a model scale constant histories by the series of all shards.

    Every process measures some of the other shards, and all get the scales of all.

    Parameters
    ----------
    model : ForecastingModel
        The model.
    shards : ParquetShards
        Shards that it is going to be fitted to.
    first : TypicalScales
        Scales of the first one.
    """
    rank, processes = find_process()
    numbers = range(1 + rank, len(shards), processes)
    gathered: list[Any] = [{n: measure_model_scales(model, shards[n]) for n in numbers}]
    if processes > 1:
        (own,), gathered = gathered, [None] * processes
        distributed.all_gather_object(gathered, own)
    found = {0: first} | {n: scales for part in gathered for n, scales in part.items()}
    parts = [found[number] for number in range(len(shards))]
    _replace_scales(model, TypicalScales(*map(torch.cat, zip(*parts, strict=True))))


def _replace_scales(model: Any, scales: TypicalScales) -> None:
    model.scale_table.replace(scales)
    model.hparams["series_scales"] = scales._asdict()


def _mean_magnitudes(values: FloatArray, first_rows: IntArray) -> FloatArray:
    observed = np.isfinite(values)
    totals = np.add.reduceat(np.where(observed, np.abs(values), 0), first_rows)
    return totals / np.maximum(np.add.reduceat(observed.astype(float), first_rows), 1)


def _window_spreads(values: FloatArray, first_rows: IntArray, length: int) -> FloatArray:
    """Return the root mean square of the standard deviations of all windows of each series.

    A series that is shorter than ``length`` is one window.
    """
    observed = np.isfinite(values)
    rows = np.arange(len(values))
    series = np.searchsorted(first_rows, rows, side="right") - 1
    # sums over all series keep their digits only if every series has a scale near 1
    lowest = np.minimum.reduceat(np.where(observed, values, np.inf), first_rows)
    highest = np.maximum.reduceat(np.where(observed, values, -np.inf), first_rows)
    width = np.where(highest > lowest, highest - lowest, 0)
    with np.errstate(invalid="ignore"):
        units = (values - lowest[series]) / np.where(width > 0, width, 1)[series]
    units = np.where(observed & (width > 0)[series], units, 0)
    sums = [_running_sum(part) for part in (observed.astype(float), units, units**2)]
    start = np.maximum(first_rows[series], rows + 1 - length)
    last = np.append(series[1:] != series[:-1], True)
    is_end = (rows + 1 - start == length) | last
    count, total, squares = (part[1:][is_end] - part[start[is_end]] for part in sums)
    count = np.maximum(count, 1)
    variance = np.maximum(squares / count - (total / count) ** 2, 0)
    windows = np.bincount(series[is_end], minlength=len(first_rows))
    mean = np.bincount(series[is_end], variance, minlength=len(first_rows)) / windows
    return np.sqrt(mean) * width


def _running_sum(values: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(values)])
