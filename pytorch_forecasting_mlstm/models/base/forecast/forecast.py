"""Forecast what comes after a table, as a table."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting.metrics import CrossEntropy, MultiLoss
from pytorch_forecasting.utils import to_list
from torch import Tensor

from ....data import BatchedTimeSeriesDataSet
from ....layers._recurrent._mlstm._checks import check_size
from ..checks.dataset import HOST_ERRORS
from ..losses.factory import losses_of, normalizers_of
from .rows import (
    History,
    horizon_rows,
    read_history,
)
from .schema import WHO, Schema

__all__ = ["forecast"]

# One process sees all series, and nothing is written.
_TRAINER: dict[str, Any] = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}


def forecast(
    model: Any,
    data: pd.DataFrame,
    future: pd.DataFrame | None = None,
    *,
    batch_size: int = 64,
    trainer_kwargs: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Forecast the horizon after the last row of every series.

    Parameters
    ----------
    model : mLSTMTime
        Model that was made from a dataset.
    data, future, batch_size, trainer_kwargs
        As of :meth:`mLSTMTime.forecast`, which says what is returned and raised, too.
    """
    parameters = getattr(model, "dataset_parameters", None)
    if parameters is None:
        raise ValueError(
            f"{WHO}: the model must know its dataset, got one that was not made from any; make it "
            f"with mLSTMTime.from_dataset."
        )
    check_size(WHO, "batch_size", batch_size)
    batch_size = int(batch_size)  # torch's loader takes no integer of NumPy
    trainer_kwargs = {**_TRAINER, **(trainer_kwargs or {})}
    schema = Schema.of(parameters)
    levels = [_levels(loss) for loss in losses_of(model.loss)]
    _check_names(schema, model, levels)
    history = read_history(schema, data)
    rows = pd.concat([history.rows, horizon_rows(schema, history, future)], ignore_index=True)
    try:
        dataset = BatchedTimeSeriesDataSet.from_parameters(
            parameters, rows, predict=True, weight=None, min_prediction_idx=None
        )
    except HOST_ERRORS as error:
        raise ValueError(
            f"{WHO}: no dataset can be made of data: {error}; correct or leave out such rows, or "
            f"train with other lags, scalers or another target_normalizer."
        ) from error
    raw = model.predict(
        dataset,
        mode=("raw", "prediction"),
        batch_size=batch_size,
        trainer_kwargs=trainer_kwargs,
    )
    if any(len(part) < len(dataset) for part in to_list(raw)):
        raise ValueError(
            f"{WHO}: trainer_kwargs must let the trainer see all {len(dataset)} series, got "
            f"{trainer_kwargs}; leave out limit_predict_batches and fast_dev_run."
        )
    windows = _window_of_series(schema, dataset, history)
    parts = _read(model, to_list(raw), levels, batch_size)
    sorted_parts = [{name: own[windows] for name, own in part.items()} for part in parts]
    return _tidy(schema, history, sorted_parts)


def _tidy(schema: Schema, history: History, parts: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Lay out columns (series, steps) of every target: series by series, target by target."""
    count, horizon = len(history.names), schema.horizon
    series, steps = np.repeat(np.arange(count), horizon), np.tile(np.arange(1, horizon + 1), count)
    index = history.last[[*schema.groups, schema.time]].iloc[series].reset_index(drop=True)
    index[schema.time] += steps
    index["step"] = steps
    tables = []
    for target, part in zip(schema.targets, parts, strict=True):
        name = {"target": target} if len(parts) > 1 else {}
        columns = {column: values.ravel() for column, values in part.items()}
        tables.append(index.assign(**name, **columns))
    if len(tables) == 1:
        return tables[0]
    order = np.argsort(np.tile(series, len(tables)), kind="stable")
    return pd.concat(tables, ignore_index=True).iloc[order].reset_index(drop=True)


def _levels(loss: Any) -> list[float]:
    """Return the quantiles that a loss gives, if it is more than one."""
    levels = list(getattr(loss, "quantiles", None) or [])
    return levels if len(levels) > 1 else []


def _columns(loss: Any, normalizer: Any, levels: list[float]) -> list[str]:
    """Name the columns of a target beside its point forecast."""
    if isinstance(loss, CrossEntropy):
        return [f"p_{label}" for label in normalizer.classes_vector_]
    short = [f"q{level:g}" for level in levels]
    return short if len(set(short)) == len(short) else [f"q{float(level)!r}" for level in levels]


def _check_names(schema: Schema, model: Any, levels: list[list[float]]) -> None:
    taken = {"step", "prediction"}
    taken |= {"target"} if len(schema.targets) > 1 else set()
    losses, normalizers = losses_of(model.loss), normalizers_of(model.output_transformer)
    for loss, normalizer, own in zip(losses, normalizers, levels, strict=True):
        taken.update(_columns(loss, normalizer, own))
    twice = sorted(taken.intersection([*schema.groups, schema.time]))
    if twice:
        raise ValueError(
            f"{WHO}: group columns and the time index must not have the name of a column of the "
            f"forecast, got {twice}; make the dataset with other names."
        )


def _window_of_series(
    schema: Schema, dataset: BatchedTimeSeriesDataSet, history: History
) -> np.ndarray:
    """Return the window of every series: the dataset sorts them its own way."""
    codes = [
        dataset.transform_values(name, history.last[name], group_id=True) for name in schema.groups
    ]
    first_rows = dataset.index["index_start"].to_numpy(copy=True)
    windows = dataset.data["groups"][first_rows].tolist()
    number = {tuple(code): window for window, code in enumerate(windows)}
    return np.array([number[tuple(code)] for code in np.stack(codes, axis=1).tolist()])


@torch.no_grad()
def _read(
    model: Any, raw: list[Tensor], levels: list[list[float]], batch_size: int
) -> list[dict[str, np.ndarray]]:
    """Read columns (windows, steps) off the output of the network, for every target."""
    points, quantiles = [], []
    several = isinstance(model.loss, MultiLoss)
    for batch in zip(*(part.to(model.device).split(batch_size) for part in raw), strict=True):
        out = {"prediction": list(batch) if several else batch[0]}
        points.append([part.cpu() for part in to_list(model.to_prediction(out))])
        if any(levels):
            quantiles.append([part.cpu() for part in to_list(model.to_quantiles(out))])
    columns = []
    for target, (loss, normalizer) in enumerate(
        zip(losses_of(model.loss), normalizers_of(model.output_transformer), strict=True)
    ):
        values = torch.cat([part[target] for part in points]).numpy()
        own, parts = {"prediction": values}, None
        if isinstance(loss, CrossEntropy):
            own["prediction"] = normalizer.inverse_transform(values)
            parts = raw[target].softmax(-1).cpu()
        elif levels[target]:
            parts = torch.cat([part[target] for part in quantiles])
        if parts is not None:
            names = _columns(loss, normalizer, levels[target])
            own |= {name: part.numpy() for name, part in zip(names, parts.unbind(-1), strict=True)}
        columns.append(own)
    return columns
