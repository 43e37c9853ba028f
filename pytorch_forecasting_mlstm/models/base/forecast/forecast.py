"""Forecast the steps after the end of a table, and return them as a table."""

from typing import Any

import numpy as np
import pandas as pd
from pytorch_forecasting.utils import to_list
from torch import Tensor

from ...._validation import check_int
from ....data import BatchedTimeSeriesDataSet
from ..errors import UPSTREAM_ERRORS
from ..inference import predict_outputs
from ..losses.link import primary_metrics, target_normalizers
from .columns import check_columns_finite, column_names, quantile_levels, read_columns
from .rows import History, build_future_rows, select_history
from .schema import Schema

__all__ = ["forecast"]

# one process predicts all series, and nothing is written
_TRAINER_KWARGS: dict[str, Any] = {
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
    model : ForecastingModel
        Model that was made from a dataset.
    data, future, batch_size, trainer_kwargs
        As in :meth:`ForecastingModel.forecast`, which also documents results and errors.
    """
    caller = f"{type(model).__name__}.forecast"
    parameters = getattr(model, "dataset_parameters", None)
    if parameters is None:
        raise ValueError(
            f"{caller}: the model must know its dataset, got one that was not made from a dataset; "
            f"make it with {type(model).__name__}.from_dataset."
        )
    check_int(caller, "batch_size", batch_size)
    batch_size = int(batch_size)  # torch's loader rejects integers of NumPy
    missing_values = getattr(model.hparams, "missing_values", None) or ()
    schema = Schema.from_parameters(parameters, caller, missing_values)
    levels = [quantile_levels(loss) for loss in primary_metrics(model.loss)]
    _check_names(schema, model, levels)
    history = select_history(schema, data)
    future_rows = build_future_rows(schema, history, future)
    rows = pd.concat([history.rows, future_rows], ignore_index=True)
    try:
        dataset = BatchedTimeSeriesDataSet.from_parameters(
            parameters, rows, predict=True, weight=None, min_prediction_idx=None
        )
    except UPSTREAM_ERRORS as error:
        raise ValueError(
            f"{caller}: no dataset can be made from data: {error}; correct or leave out such rows, "
            f"or train with other lags, scalers or another target_normalizer."
        ) from error
    if trainer_kwargs is None:
        outputs = predict_outputs(model, dataset.to_dataloader(train=False, batch_size=batch_size))
    else:
        outputs = _predict_with_trainer(model, dataset, batch_size, trainer_kwargs)
    windows = _window_of_series(schema, dataset, history)
    columns = read_columns(model, outputs, levels, batch_size)
    by_series = [{name: values[windows] for name, values in part.items()} for part in columns]
    check_columns_finite(schema, history, by_series, model.loss)
    return _to_long_frame(schema, history, by_series)


def _predict_with_trainer(
    model: Any,
    dataset: BatchedTimeSeriesDataSet,
    batch_size: int,
    trainer_kwargs: dict[str, Any],
) -> list[Tensor]:
    """Compute the output of the network for all windows, with a Trainer of the user's choice."""
    trainer_kwargs = {**_TRAINER_KWARGS, **trainer_kwargs}
    outputs = to_list(
        model.predict(
            dataset,
            mode=("raw", "prediction"),
            batch_size=batch_size,
            trainer_kwargs=trainer_kwargs,
        )
    )
    if any(len(part) < len(dataset) for part in outputs):
        raise ValueError(
            f"{type(model).__name__}.forecast: trainer_kwargs must let the trainer see all "
            f"{len(dataset)} series, got {trainer_kwargs}; leave out limit_predict_batches "
            f"and fast_dev_run."
        )
    return outputs


def _to_long_frame(
    schema: Schema, history: History, columns: list[dict[str, np.ndarray]]
) -> pd.DataFrame:
    """Stack the columns (series, steps) of each target: series by series, target by target."""
    count, horizon = len(history.names), schema.horizon
    series, steps = np.repeat(np.arange(count), horizon), np.tile(np.arange(1, horizon + 1), count)
    index = history.last[[*schema.groups, schema.time]].iloc[series].reset_index(drop=True)
    index[schema.time] += steps
    index["step"] = steps
    tables = []
    for target, part in zip(schema.targets, columns, strict=True):
        label = {"target": target} if len(columns) > 1 else {}
        flat = {name: values.ravel() for name, values in part.items()}
        tables.append(index.assign(**label, **flat))
    if len(tables) == 1:
        return tables[0]
    order = np.argsort(np.tile(series, len(tables)), kind="stable")
    return pd.concat(tables, ignore_index=True).iloc[order].reset_index(drop=True)


def _check_names(schema: Schema, model: Any, levels: list[list[float]]) -> None:
    reserved = {"step", "prediction"}
    reserved |= {"target"} if len(schema.targets) > 1 else set()
    metrics, normalizers = primary_metrics(model.loss), target_normalizers(model.output_transformer)
    for metric, normalizer, target_levels in zip(metrics, normalizers, levels, strict=True):
        reserved.update(column_names(metric, normalizer, target_levels))
    duplicates = sorted(reserved.intersection([*schema.groups, schema.time]))
    if duplicates:
        raise ValueError(
            f"{schema.caller}: group columns and the time index must not have the name of a column "
            f"of the forecast, got {duplicates}; make the dataset with other names."
        )


def _window_of_series(
    schema: Schema, dataset: BatchedTimeSeriesDataSet, history: History
) -> np.ndarray:
    """Return the window of every series: the dataset sorts them in an order of its own."""
    codes = [
        dataset.transform_values(name, history.last[name], group_id=True) for name in schema.groups
    ]
    first_rows = dataset.index["index_start"].to_numpy(copy=True)
    windows = dataset.data["groups"][first_rows].tolist()
    number = {tuple(code): window for window, code in enumerate(windows)}
    return np.array([number[tuple(code)] for code in np.stack(codes, axis=1).tolist()])
