"""A last check of what ``predict`` returns."""

from typing import Any

import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from ..._messages import format_series
from .losses.link import per_target_losses
from .padding import valid_steps

__all__ = ["NONFINITE_HINT", "check_outputs_finite"]

NONFINITE_HINT = (
    "train with a smaller learning_rate, or with a loss or target_normalizer for data of this scale"
)


def check_outputs_finite(
    model: Any, dataset: TimeSeriesDataSet, x: dict[str, Any], outputs: Any
) -> None:
    """Raise if a number of a forecast is not finite, before the end of its horizon.

    Parameters
    ----------
    model : ForecastingModel
        Model that predicts.
    dataset : TimeSeriesDataSet
        Dataset of the batch.
    x : dict
        The batch.
    outputs : Tensor or list of Tensor
        For each target, (B, steps) or (B, steps, numbers).

    Raises
    ------
    ValueError
        With loss, series and step of the first such number.
    """
    names, losses = dataset.target_names, per_target_losses(model.loss)
    for name, loss, values in zip(names, losses, to_list(outputs), strict=True):
        if not values.is_floating_point() or torch.isfinite(values.sum()):
            continue
        steps = valid_steps(x["decoder_lengths"], values.shape[1])
        nonfinite = ~values.isfinite() & steps.view(*steps.shape, *(1,) * (values.ndim - 2))
        if nonfinite.any():
            sample, step, *_ = position = tuple(nonfinite.nonzero()[0].tolist())
            row = dataset.x_to_index(x).iloc[sample]
            series = format_series(dataset.group_ids, row[dataset.group_ids])
            raise ValueError(
                f"{type(model).__name__}.predict: a forecast must be finite, got "
                f"{values[position].item()} of {name!r} for {series} at "
                f"{dataset.time_idx}={row[dataset.time_idx] + step} from {loss!r}; "
                f"{NONFINITE_HINT}."
            )
