"""Forecast the steps after the end of a table, and return them as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting.utils import to_list
from torch import Tensor

from ...._validation import check_dict, check_int
from ....data import BatchedTimeSeriesDataSet
from ....data.rows import Rows
from ..inference import predict_outputs
from ..losses.link import primary_metrics, target_normalizers
from ..losses.output import read_levels
from .beyond import Blocks, forecast_beyond
from .columns import (
    check_columns_finite,
    column_names,
    quantile_levels,
    read_columns,
    requested_levels,
)
from .dataset import make_datasets
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
#: Block after block is drawn with a seed of its own, all of which torch must accept.
_MAX_SEED = 2**63 - 1
#: More would fill the memory, and change no quantile that a person could tell.
_MAX_PATHS = 100_000
_MAX_HORIZON = 1_000_000


def forecast(
    model: Any,
    data: pd.DataFrame,
    future: pd.DataFrame | None = None,
    *,
    horizon: int | None = None,
    quantiles: Sequence[float] | None = None,
    num_paths: int = 100,
    seed: int = 0,
    batch_size: int = 64,
    trainer_kwargs: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Forecast the horizon after the last row of every series.

    Parameters
    ----------
    model : ForecastingModel
        Model that was made from a dataset.
    data, future, horizon, quantiles, num_paths, seed, batch_size, trainer_kwargs
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
    check_int(caller, "num_paths", num_paths, minimum=2, maximum=_MAX_PATHS)
    check_int(caller, "seed", seed, minimum=0, maximum=_MAX_SEED)
    if trainer_kwargs is not None:
        check_dict(caller, "trainer_kwargs", trainer_kwargs, "{'precision': 'bf16-mixed'}")
    # torch rejects integers of NumPy, and sizes beyond 64 bits
    batch_size, num_paths, seed = min(int(batch_size), _MAX_SEED), int(num_paths), int(seed)
    missing_values = getattr(model.hparams, "missing_values", None) or ()
    schema = Schema.from_parameters(parameters, caller, missing_values)
    steps = schema.horizon if horizon is None else horizon
    _check_horizon(schema, steps)
    metrics = primary_metrics(model.loss)
    if quantiles is None:
        levels = [quantile_levels(loss) for loss in metrics]
    else:
        wanted = read_levels(quantiles, caller)
        levels = [requested_levels(loss, wanted, caller) for loss in metrics]
    _check_names(schema, model, levels)
    history = select_history(schema, data)
    future_rows = build_future_rows(schema, history, future, steps)

    def predict(rows: Rows, copies: int = 1) -> list[Tensor]:
        parts = []
        for dataset in make_datasets(model, parameters, schema, rows, copies):
            if trainer_kwargs is None:
                parts.append(predict_outputs(model, dataset, batch_size))
            else:
                parts.append(_predict_with_trainer(model, dataset, batch_size, trainer_kwargs))
        return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]

    step = future_rows.times - history.last.times[future_rows.series]
    outputs = predict(history.rows.extend(future_rows[step <= schema.horizon]))
    columns = read_columns(model, outputs, levels, batch_size, quantiles is not None, seed)
    if steps > schema.horizon:
        check_columns_finite(schema, history, columns, model.loss)
        blocks = Blocks(model, schema, levels, num_paths, seed, batch_size, predict)
        later = forecast_beyond(blocks, history, future_rows, outputs)
        columns = [
            {name: np.concatenate([part[name], more[name]], axis=1) for name in part}
            for part, more in zip(columns, later, strict=True)
        ]
    columns = [{name: part[name][:, :steps] for name in part} for part in columns]
    check_columns_finite(schema, history, columns, model.loss)
    return _to_long_frame(schema, history, data, columns)


def _check_horizon(schema: Schema, steps: Any) -> None:
    check_int(schema.caller, "horizon", steps, maximum=max(_MAX_HORIZON, schema.horizon))
    if steps > schema.horizon and schema.unknown:
        raise ValueError(
            f"{schema.caller}: horizon must be at most {schema.horizon}, that of training, for a "
            f"model that reads past covariates, got {steps} with {schema.unknown}, whose later "
            f"values are not known; pass a smaller horizon, or train without these variables."
        )


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
    schema: Schema, history: History, data: pd.DataFrame, columns: list[dict[str, np.ndarray]]
) -> pd.DataFrame:
    """Stack the columns (series, steps) of each target: series by series, target by target."""
    count, horizon = columns[0]["prediction"].shape
    last = np.repeat(history.positions, horizon)
    table: dict[str, Any] = {name: data[name].array.take(last) for name in schema.groups}
    steps = np.tile(np.arange(1, horizon + 1), count)
    table[schema.time] = np.repeat(history.last.times, horizon) + steps
    table["step"] = steps
    tables = []
    for target, part in zip(schema.targets, columns, strict=True):
        label = {"target": target} if len(columns) > 1 else {}
        flat = {name: values.ravel() for name, values in part.items()}
        tables.append(pd.DataFrame({**table, **label, **flat}))
    if len(tables) == 1:
        return tables[0]
    order = np.argsort(np.tile(np.arange(count * horizon) // horizon, len(tables)), kind="stable")
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
