"""What a loss asks of the model: its default, its copies, its link to the data, its output."""

from copy import deepcopy
from enum import Enum
from typing import Any

from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.metrics import (
    MAE,
    CrossEntropy,
    DistributionLoss,
    MultiLoss,
    NegativeBinomialDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import CompositeMetric
from torch import Tensor

__all__ = [
    "Link",
    "choose_loss",
    "fresh_loss",
    "link_of",
    "losses_of",
    "normalizers_of",
    "output_size_of",
    "rescale",
]


class Link(Enum):
    """How a loss goes from the network's output, at a scale of about 1, to the data."""

    AFFINE = "times scale, plus centre"
    SCALE = "times scale; there is no centre"  # a count's mean
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
    parts = list(loss.metrics) if isinstance(loss, MultiLoss) else [loss]
    return [part._metrics[0] if isinstance(part, CompositeMetric) else part for part in parts]


def normalizers_of(output_transformer: Any) -> list[Any]:
    """Return the host's normaliser of every target."""
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
    if isinstance(loss, list | tuple):
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
        return loss
    if dataset.multi_target:
        return MultiLoss([fresh_loss(loss) for _ in normalizers])
    return loss


def fresh_loss(loss: Any) -> Any:
    """Copy a loss, so that models never share its state.

    A loss that was used holds tensors of the last step's graph, which cannot be copied; they are
    dropped.
    """
    loss.reset()
    return deepcopy(loss)


def rescale(loss: Any, output: Tensor, target_scale: Tensor, normalizer: Any) -> Tensor:
    """Bring the network's output for one target to what its loss takes."""
    if link_of(loss) is Link.LOG_RATE:
        return output * target_scale[:, None, 1:] + target_scale[:, None, :1]
    return loss.rescale_parameters(output, target_scale=target_scale, encoder=normalizer)


def output_size_of(loss: Any, normalizer: Any) -> int:
    """Return how many numbers the loss of one target takes per step."""
    if isinstance(normalizer, NaNLabelEncoder):
        return len(normalizer.classes_)
    if isinstance(loss, DistributionLoss):
        return len(loss.distribution_arguments)
    return len(loss.quantiles) if isinstance(loss, QuantileLoss) else 1
