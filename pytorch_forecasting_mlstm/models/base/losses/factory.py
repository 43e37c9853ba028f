"""The loss and the logged metrics of a model: copies of what the user passes, or defaults."""

import pickle
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import numpy as np
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import (
    MAE,
    CrossEntropy,
    DistributionLoss,
    MultiLoss,
    QuantileLoss,
)
from pytorch_forecasting.metrics.base_metrics import CompositeMetric
from torch import Tensor, nn
from torchmetrics import Metric

from ...._upstream import coerce_metric
from ..link import Link
from .link import component_metrics, link_of, target_normalizers
from .nn_loss import is_nn_loss, wrap_nn_loss

__all__ = ["clone_loss", "clone_logging_metrics", "resolve_loss"]


def resolve_loss(dataset: TimeSeriesDataSet, loss: Any, caller: str) -> Any:
    """Return a loss that has one part for each target of a dataset.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that the model is made from.
    loss : Metric, list of Metric or None
        What the user asks for. None selects :class:`~pytorch_forecasting.metrics.MAE`, and
        :class:`~pytorch_forecasting.metrics.CrossEntropy` for a categorical target.
    caller : str
        Name to begin error messages with.

    Returns
    -------
    Metric
        For a single target, a copy of the loss. For several targets, or one in a list, a
        :class:`~pytorch_forecasting.metrics.MultiLoss` of separate copies: each keeps a state of
        its own.

    Raises
    ------
    TypeError
        If it is not a metric.
    ValueError
        If the number of losses is not that of the targets.
    """
    normalizers = target_normalizers(dataset.target_normalizer)
    if loss is None:
        losses = [CrossEntropy() if isinstance(x, NaNLabelEncoder) else MAE() for x in normalizers]
        return MultiLoss(losses) if dataset.multi_target else losses[0]
    loss = clone_loss(loss, caller)
    if isinstance(loss, list | tuple):
        if not loss:
            raise ValueError(
                f"{caller}: loss must have a part for each target, got an empty list; pass, for "
                f"example, loss=MAE()."
            )
        loss = MultiLoss(list(loss))
    if isinstance(loss, MultiLoss):
        if not dataset.multi_target:
            raise ValueError(
                f"{caller}: the dataset has the single target {dataset.target!r}, but loss is a "
                f"MultiLoss of {len(loss.metrics)}; pass a single loss, or give the dataset a list "
                f"of targets."
            )
        if len(loss.metrics) != len(dataset.target_names):
            raise ValueError(
                f"{caller}: loss must have one part for each of the targets "
                f"{dataset.target_names}, got {len(loss.metrics)}."
            )
    elif dataset.multi_target:
        loss = MultiLoss([deepcopy(loss) for _ in normalizers])
    return loss


def clone_loss(loss: Any, caller: str, argument: str = "loss") -> Any:
    """Copy a loss without its accumulated state, so that no two models share one.

    Metrics of torchmetrics and losses of ``torch.nn`` are wrapped, as in pytorch-forecasting. The
    parts of a composite loss become submodules: pytorch-forecasting keeps them in a list, where
    torch finds no weights to train, save or move.

    Parameters
    ----------
    loss : Metric or list of Metric
        What to copy.
    caller : str
        Name to begin error messages with.
    argument : str, default "loss"
        Name of the argument in error messages.
    """
    if isinstance(loss, list | tuple):
        return [clone_loss(part, caller, argument) for part in loss]
    if is_nn_loss(loss):
        return wrap_nn_loss(loss, caller)
    if not isinstance(loss, Metric):
        example = "MAE()" if argument == "loss" else "[MAE(), SMAPE()]"
        raise TypeError(
            f"{caller}: {argument} must be a metric of pytorch_forecasting or torchmetrics, a loss "
            f"of torch.nn, or a list of these, got {loss!r}; pass, for example, "
            f"{argument}={example}."
        )
    copy: Any
    try:
        copy = deepcopy(loss)
    except RuntimeError:  # it holds tensors of its last step's graph, which pickling drops
        copy = pickle.loads(pickle.dumps(loss))
    if isinstance(getattr(copy, "quantiles", None), np.ndarray | Tensor):
        copy.quantiles = copy.quantiles.tolist()  # pytorch-forecasting takes its truth value
    for kind, name in ((MultiLoss, "metrics"), (CompositeMetric, "_metrics")):
        if isinstance(loss, kind):
            parts = [clone_loss(part, caller, argument) for part in getattr(loss, name)]
            setattr(copy, name, nn.ModuleList(parts))
    copy.reset()
    return coerce_metric(copy)


def clone_logging_metrics(metrics: Any, caller: str) -> nn.ModuleList:
    """Copy the metrics to log, which are computed from the point forecast of each target.

    Parameters
    ----------
    metrics : iterable of Metric or None
        What to copy.
    caller : str
        Name to begin error messages with.

    Raises
    ------
    TypeError
        If one of them is not a metric.
    ValueError
        If one of them needs more than a point forecast, or its logarithm.
    """
    if isinstance(metrics, Metric | str) or not isinstance(metrics, Iterable | None):
        raise TypeError(
            f"{caller}: logging_metrics must be a list of metrics, got {metrics!r}; pass, for "
            f"example, logging_metrics=[MAE(), SMAPE()]."
        )
    copies = [clone_loss(metric, caller, "logging_metrics") for metric in metrics or ()]
    for metric in copies:
        for component in component_metrics(metric):
            needs_more = isinstance(component, QuantileLoss | DistributionLoss | MultiLoss)
            if needs_more or link_of(component) in (Link.CLASSES, Link.LOG_RATE):
                raise ValueError(
                    f"{caller}: logging_metrics must be metrics of a point forecast, got "
                    f"{component!r}; pass, for example, [SMAPE(), MAE()]."
                )
        if not hasattr(metric, "name"):  # a composite metric is logged under its name
            metric.name = repr(metric)
    return nn.ModuleList(copies)
