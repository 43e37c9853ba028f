"""The columns of a forecast, computed from the output of the network."""

from typing import Any

import numpy as np
import torch
from pytorch_forecasting.metrics import CrossEntropy, MultiLoss
from pytorch_forecasting.utils import to_list
from torch import Tensor

from ...._messages import format_series
from ..finite_outputs import NONFINITE_HINT
from ..losses.link import per_target_losses, primary_metrics, target_normalizers
from ..losses.output import check_levels, exit_inference_mode, quantile_forecast
from ..seeded_draws import fixed_seed
from .rows import History
from .schema import Schema

__all__ = [
    "check_columns_finite",
    "column_names",
    "quantile_levels",
    "read_columns",
    "requested_levels",
]


def quantile_levels(loss: Any) -> list[float]:
    """Return the quantiles that a loss makes, if there is more than one."""
    levels = list(getattr(loss, "quantiles", None) or [])
    return levels if len(levels) > 1 else []


def requested_levels(loss: Any, quantiles: list[float], caller: str) -> list[float]:
    """Return the quantiles that a user asks for, unless the target is categorical.

    Raises
    ------
    ValueError
        If the loss of the target cannot forecast them.
    """
    if isinstance(loss, CrossEntropy):
        return []
    levels = list(dict.fromkeys(quantiles))
    check_levels(loss, levels, caller)
    return levels


def column_names(loss: Any, normalizer: Any, levels: list[float]) -> list[str]:
    """Name the columns of a target, in addition to its point forecast."""
    if isinstance(loss, CrossEntropy):
        return [f"p_{label}" for label in normalizer.classes_vector_]
    short = [f"q{level:g}" for level in levels]
    return short if len(set(short)) == len(short) else [f"q{float(level)!r}" for level in levels]


@torch.no_grad()
def read_columns(
    model: Any,
    outputs: list[Tensor],
    levels: list[list[float]],
    batch_size: int,
    are_requested: bool = False,
    seed: int = 0,
) -> list[dict[str, np.ndarray]]:
    """Compute the columns (windows, steps) of each target from the output of the network.

    Parameters
    ----------
    model : ForecastingModel
        The model.
    outputs : list of Tensor
        What the loss of each target expects, (windows, steps, output_size).
    levels : list of list of float
        Quantiles of each target.
    batch_size : int
        Windows at a time.
    are_requested : bool, default False
        Whether the levels are others than those of the losses.
    seed : int, default 0
        Seed of what distributions draw.
    """
    metrics = primary_metrics(model.loss)
    points, quantiles = [], []
    several = isinstance(model.loss, MultiLoss)
    with fixed_seed(metrics, seed):
        for batch in zip(
            *(part.to(model.device).split(batch_size) for part in outputs), strict=True
        ):
            out = {"prediction": list(batch) if several else batch[0]}
            points.append([part.cpu() for part in to_list(model.to_prediction(out))])
            if are_requested:
                quantiles.append(
                    [
                        exit_inference_mode(metric, _read_quantiles, metric, part, target_levels)
                        for metric, part, target_levels in zip(metrics, batch, levels, strict=True)
                    ]
                )
            elif any(levels):
                quantiles.append([part.cpu() for part in to_list(model.to_quantiles(out))])
    columns = []
    for target, (metric, normalizer) in enumerate(
        zip(metrics, target_normalizers(model.output_transformer), strict=True)
    ):
        prediction = torch.cat([part[target] for part in points]).numpy()
        named, parts = {"prediction": prediction}, None
        if isinstance(metric, CrossEntropy):
            named["prediction"] = normalizer.inverse_transform(prediction)
            parts = outputs[target].softmax(-1).cpu()
        elif levels[target]:
            parts = torch.cat([part[target] for part in quantiles])
        if parts is not None:
            names = column_names(metric, normalizer, levels[target])
            named |= {name: x.numpy() for name, x in zip(names, parts.unbind(-1), strict=True)}
        columns.append(named)
    return columns


def _read_quantiles(loss: Any, output: Tensor, levels: list[float]) -> Tensor:
    """Return the quantiles of one target, if there are any."""
    if not levels:
        return output[..., :0].cpu()
    return quantile_forecast(loss, output, levels, "forecast").cpu()


def check_columns_finite(
    schema: Schema, history: History, columns: list[dict[str, np.ndarray]], loss: Any
) -> None:
    """Raise if a number of a forecast is not finite.

    Parameters
    ----------
    schema : Schema
        Roles of the columns of the table.
    history : History
        What the forecasts start from.
    columns : list of dict
        Columns (series, steps) of each target.
    loss : Metric
        Loss of the model.
    """
    for target, part, metric in zip(schema.targets, columns, per_target_losses(loss), strict=True):
        for name, values in part.items():
            if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
                continue
            series, step = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
            time = int(history.last.times[series]) + step + 1
            raise ValueError(
                f"{schema.caller}: a forecast must be finite, got {values[series, step]} as {name} "
                f"of {target!r} for {format_series(schema.groups, history.names[series])} at "
                f"{schema.time}={time} from {metric!r}; {NONFINITE_HINT}."
            )
