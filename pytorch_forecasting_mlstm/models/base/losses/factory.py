"""What a loss asks of the model: its default, its copies, its link to the data, its output."""

import pickle
from collections.abc import Callable, Iterable
from copy import deepcopy
from enum import Enum
from typing import Any

import numpy as np
import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.metrics import (
    MAE,
    BetaDistributionLoss,
    CrossEntropy,
    DistributionLoss,
    LogNormalDistributionLoss,
    MQF2DistributionLoss,
    MultiLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import (
    CompositeMetric,
    convert_torchmetric_to_pytorch_forecasting_metric,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric

__all__ = [
    "Link",
    "choose_loss",
    "fresh_loss",
    "link_of",
    "logged_metrics",
    "losses_of",
    "metrics_of",
    "normalizers_of",
    "output_size_of",
    "outside_inference_mode",
    "pack_targets",
    "parts_of",
    "point_forecast",
    "rescale",
    "tell_transformations",
    "whole_horizon",
]


#: Parameters of distributions, by number, that the host makes positive by softplus.
_POSITIVE: dict[type, tuple[int, ...]] = {
    NormalDistributionLoss: (1,),
    LogNormalDistributionLoss: (1,),
    NegativeBinomialDistributionLoss: (0, 1),
    BetaDistributionLoss: (1,),
}
#: The least of these: softplus(-15) is 3e-7, a deviation that float32 tells from none.
_LEAST_PARAMETER = -15.0


#: Ways back from transformations that the host names, but goes back from by exp(x), of log(1 + y),
#: and by softplus(x), of y + 1: which is 1 too much.
_WAYS_BACK: dict[str, Callable[[Tensor], Tensor]] = {"log1p": torch.expm1, "count": lambda x: x - 1}


class Link(Enum):
    """How a loss goes from the network's output, at a scale of about 1, to the data."""

    AFFINE = "times scale, plus center"
    SCALE = "times scale; there is no center"  # a count's mean
    LOG_RATE = "the logarithm of a rate"  # the loss takes the exponential itself
    CLASSES = "logits of classes"


def link_of(loss: Any) -> Link:
    """Return the link of the loss of one target."""
    if isinstance(loss, CrossEntropy):
        return Link.CLASSES
    if isinstance(loss, NegativeBinomialDistributionLoss):
        return Link.SCALE
    if isinstance(loss, PoissonLoss | TweedieLoss):
        return Link.LOG_RATE
    return Link.AFFINE


def losses_of(loss: Any) -> list[Any]:
    """Return the loss of every target; of a composite metric the first, which sets the scale."""
    return [metrics_of(part)[0] for part in parts_of(loss)]


def parts_of(loss: Any) -> list[Any]:
    """Return the part of a loss that each target has; of a composite metric the whole."""
    return list(loss.metrics) if isinstance(loss, MultiLoss) else [loss]


def metrics_of(part: Any) -> list[Any]:
    """Return the metrics that a composite metric sums up, or the one that it is."""
    return list(part._metrics) if isinstance(part, CompositeMetric) else [part]


def normalizers_of(output_transformer: Any) -> list[Any]:
    """Return the host's normalizer of every target."""
    if isinstance(output_transformer, MultiNormalizer):
        return list(output_transformer.normalizers)
    return [output_transformer]


def choose_loss(dataset: TimeSeriesDataSet, loss: Any = None) -> Any:
    """Return a loss that fits the targets of a dataset.

    One target: ``loss``, by default :class:`~pytorch_forecasting.metrics.MAE`, or for a categorical
    target :class:`~pytorch_forecasting.metrics.CrossEntropy`. Several targets, or one in a list: a
    :class:`~pytorch_forecasting.metrics.MultiLoss` with a copy for each, as each keeps a state of
    its own.
    """
    normalizers = normalizers_of(dataset.target_normalizer)
    if loss is None:
        losses = [CrossEntropy() if isinstance(x, NaNLabelEncoder) else MAE() for x in normalizers]
        return MultiLoss(losses) if dataset.multi_target else losses[0]
    loss = fresh_loss(loss)
    if isinstance(loss, list | tuple):
        if not loss:
            raise ValueError(
                "mLSTMTime: loss must have a part for each target, got an empty list; pass for "
                "example loss=MAE()."
            )
        loss = MultiLoss(list(loss))
    if isinstance(loss, MultiLoss):
        if not dataset.multi_target:
            raise ValueError(
                f"mLSTMTime: the dataset has the single target {dataset.target!r}, but loss is a "
                f"MultiLoss of {len(loss.metrics)}; pass a single loss, or give the dataset a list "
                f"of targets."
            )
        if len(loss.metrics) != len(dataset.target_names):
            raise ValueError(
                f"mLSTMTime: loss must have one part for each of the targets "
                f"{dataset.target_names}, got {len(loss.metrics)}."
            )
    elif dataset.multi_target:
        loss = MultiLoss([deepcopy(loss) for _ in normalizers])
    return loss


def fresh_loss(loss: Any, argument: str = "loss") -> Any:
    """Copy a loss, without what it has accumulated, so that models never share its state.

    Nor do the parts of one loss, each of which becomes a submodule: the host keeps them in a list,
    in which torch finds no weights to train, to save or to move. A metric of torchmetrics is
    wrapped in the host's way.
    """
    if isinstance(loss, list | tuple):
        return [fresh_loss(part, argument) for part in loss]
    if not isinstance(loss, Metric):
        example = "MAE()" if argument == "loss" else "[MAE(), SMAPE()]"
        raise TypeError(
            f"mLSTMTime: {argument} must be a metric of pytorch_forecasting or torchmetrics, or a "
            f"list of these, got {loss!r}; pass for example {argument}={example}."
        )
    copy: Any
    try:
        copy = deepcopy(loss)
    except RuntimeError:  # it holds tensors of its last step's graph, which pickling lets go of
        copy = pickle.loads(pickle.dumps(loss))
    if isinstance(getattr(copy, "quantiles", None), np.ndarray | Tensor):
        copy.quantiles = copy.quantiles.tolist()  # the host asks whether there are any
    for kind, name in ((MultiLoss, "metrics"), (CompositeMetric, "_metrics")):
        if isinstance(loss, kind):
            parts = [fresh_loss(part, argument) for part in getattr(loss, name)]
            setattr(copy, name, nn.ModuleList(parts))
    copy.reset()
    return convert_torchmetric_to_pytorch_forecasting_metric(copy)


def logged_metrics(metrics: Any) -> nn.ModuleList:
    """Copy metrics to log, which are given the point forecast of every target.

    Raises
    ------
    TypeError
        If one is no metric.
    ValueError
        If one reads more than a point, or the logarithm of it.
    """
    if isinstance(metrics, Metric | str) or not isinstance(metrics, Iterable | None):
        raise TypeError(
            f"mLSTMTime: logging_metrics must be a list of metrics, got {metrics!r}; pass for "
            f"example logging_metrics=[MAE(), SMAPE()]."
        )
    copies = [fresh_loss(metric, "logging_metrics") for metric in metrics or ()]
    for metric in copies:
        for part in metrics_of(metric):
            if isinstance(part, QuantileLoss | DistributionLoss | MultiLoss) or link_of(part) in (
                Link.CLASSES,
                Link.LOG_RATE,
            ):
                raise ValueError(
                    f"mLSTMTime: logging_metrics must be metrics of a point forecast, which is "
                    f"what they are given, got {part!r}; pass for example [SMAPE(), MAE()]."
                )
        if not hasattr(metric, "name"):  # of a composite metric, which is logged under it
            metric.name = repr(metric)
    return nn.ModuleList(copies)


def pack_targets(y: tuple[Any, Any], lengths: Tensor) -> tuple[Any, Any]:
    """Mark the steps of targets that are padding, as the host does it for a loss."""
    if lengths.min() == lengths.max():
        return y
    target, weight = y
    packed = [
        pack_padded_sequence(part, lengths.cpu(), batch_first=True, enforce_sorted=False)
        for part in (target if isinstance(target, list | tuple) else [target])
    ]
    return (packed if isinstance(target, list | tuple) else packed[0]), weight


def rescale(loss: Any, output: Tensor, target_scale: Tensor, normalizer: Any) -> Tensor:
    """Bring the network's output for one target to what its loss takes."""
    if link_of(loss) is Link.LOG_RATE:
        return output * target_scale[:, None, 1:] + target_scale[:, None, :1]
    for kind, positive in _POSITIVE.items():
        if isinstance(loss, kind):
            columns = list(output.unbind(-1))
            for column in positive:
                columns[column] = _above_underflow(columns[column])
            output = torch.stack(columns, dim=-1)
    transformation = getattr(normalizer, "transformation", None)
    back = _WAYS_BACK.get(transformation) if isinstance(transformation, str) else None
    if back is not None and not isinstance(loss, DistributionLoss):  # which goes back by itself
        return _not_negative(back(output * target_scale[:, None, 1:] + target_scale[:, None, :1]))
    return loss.rescale_parameters(output, target_scale=target_scale, encoder=normalizer)


def _not_negative(y: Tensor) -> Tensor:
    """Raise to 0 what is below, with the gradient that it would have: training leads back."""
    return torch.where(y < 0, y - y.detach(), y)


def _above_underflow(parameter: Tensor) -> Tensor:
    """Keep a parameter from where its softplus is 0, of which there is no distribution.

    Its gradient stays what it would be at the limit, so that training leads away from there.
    """
    limit = _LEAST_PARAMETER + (parameter - parameter.detach())
    return torch.where(parameter < _LEAST_PARAMETER, limit, parameter)


def output_size_of(loss: Any, normalizer: Any) -> int:
    """Return how many numbers the loss of one target takes per step."""
    if isinstance(normalizer, NaNLabelEncoder):
        return len(normalizer.classes_)
    if isinstance(loss, DistributionLoss):
        return len(loss.distribution_arguments)
    return len(loss.quantiles) if isinstance(loss, QuantileLoss) else 1


def tell_transformations(loss: Any, output_transformer: Any) -> None:
    """Tell every distribution the transformation of its target.

    The host tells it with the first forecast only: a reloaded model could not read a raw one.
    """
    for part, normalizer in zip(losses_of(loss), normalizers_of(output_transformer), strict=False):
        if isinstance(part, DistributionLoss):
            part._transformation = getattr(normalizer, "transformation", None)


def whole_horizon(loss: Any) -> bool:
    """Return whether a loss takes the longest horizon only, as one vector."""
    return isinstance(loss, MQF2DistributionLoss)


def outside_inference_mode(
    loss: Any, call: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """Call, outside of inference mode if the loss needs it: the forecast of MQF2 is a gradient.

    Lightning tests and predicts in inference mode, which forbids gradients to be taken.
    """
    if not (torch.is_inference_mode_enabled() and any(map(whole_horizon, losses_of(loss)))):
        return call(*arguments, **options)
    with torch.inference_mode(False), torch.no_grad():
        return call(*tree_map_only(Tensor, Tensor.clone, arguments), **options)


def point_forecast(loss: Any, prediction: Tensor, **kwargs: Any) -> Tensor:
    """Return the point forecast of one target.

    The host's, but for quantiles without the median, from which the host has none: there, the
    straight line between the two quantiles around it.
    """
    if isinstance(loss, QuantileLoss) and 0.5 not in loss.quantiles:
        order = sorted(range(len(loss.quantiles)), key=loss.quantiles.__getitem__)
        above = next(n for n, index in enumerate(order) if loss.quantiles[index] > 0.5)
        lower, upper = order[above - 1], order[above]
        low, high = loss.quantiles[lower], loss.quantiles[upper]
        return torch.lerp(
            prediction[..., lower], prediction[..., upper], (0.5 - low) / (high - low)
        )
    try:
        return loss.to_prediction(prediction, **kwargs)
    except TypeError:  # as the host does: not every loss takes all arguments
        return loss.to_prediction(prediction)
