"""MASE is not defined for windows in which the target does not change."""

from collections.abc import Iterable
from typing import Any

from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.metrics import MASE

from ..losses.link import component_metrics, per_target_losses
from ..scales.flat import count_flat_windows

__all__ = ["check_mase"]


def check_mase(loss: Any, metrics: Iterable[Any], dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if MASE would divide by the change within a window that does not change.

    pytorch-forecasting divides by 1e-6 instead, so that these windows drown all others.

    Parameters
    ----------
    loss : Metric
        Loss of the model.
    metrics : iterable of Metric
        Metrics to log.
    dataset : TimeSeriesDataSet
        Dataset that the model is made from.
    caller : str
        Name to begin the message with.

    Raises
    ------
    ValueError
        With the number of such windows.
    """
    logged = [part for metric in metrics for part in component_metrics(metric)]
    counts: dict[str, int] | None = None
    for name, part in zip(dataset.target_names, per_target_losses(loss), strict=True):
        if not any(isinstance(metric, MASE) for metric in [*component_metrics(part), *logged]):
            continue
        counts = count_flat_windows(dataset) if counts is None else counts
        if counts.get(name):
            raise ValueError(
                f"{caller}: MASE() divides by the mean change within a window, which must not be "
                f"0, got {counts[name]} of {len(dataset)} windows in which target {name!r} does "
                f"not change; pass MAE(), and GroupNormalizer to the dataset for series of "
                f"different scales."
            )
