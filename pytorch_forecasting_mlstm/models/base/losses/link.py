"""What a loss consists of, and how it maps the output of the network to the data."""

from typing import Any

from pytorch_forecasting.data import MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.metrics import (
    CrossEntropy,
    DistributionLoss,
    MQF2DistributionLoss,
    MultiLoss,
    NegativeBinomialDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import CompositeMetric

from ..link import Link

__all__ = [
    "component_metrics",
    "is_joint_over_horizon",
    "link_of",
    "loss_output_size",
    "per_target_losses",
    "primary_metrics",
    "target_normalizers",
]


def link_of(loss: Any) -> Link:
    """Return the link of the loss of one target."""
    if isinstance(loss, CrossEntropy):
        return Link.CLASSES
    if isinstance(loss, NegativeBinomialDistributionLoss):
        return Link.SCALE
    if isinstance(loss, PoissonLoss | TweedieLoss):
        return Link.LOG_RATE
    return Link.AFFINE


def per_target_losses(loss: Any) -> list[Any]:
    """Return the loss of each target: the parts of a ``MultiLoss``, or the loss itself."""
    return list(loss.metrics) if isinstance(loss, MultiLoss) else [loss]


def component_metrics(loss: Any) -> list[Any]:
    """Return the metrics that the loss of one target sums up: itself, unless it is composite."""
    return list(loss._metrics) if isinstance(loss, CompositeMetric) else [loss]


def primary_metrics(loss: Any) -> list[Any]:
    """Return one metric for each target: of a composite metric the first, which sets the scale."""
    return [component_metrics(part)[0] for part in per_target_losses(loss)]


def target_normalizers(output_transformer: Any) -> list[Any]:
    """Return the normalizer of each target."""
    if isinstance(output_transformer, MultiNormalizer):
        return list(output_transformer.normalizers)
    return [output_transformer]


def loss_output_size(loss: Any, normalizer: Any) -> int:
    """Return how many numbers per step the loss of one target expects."""
    if isinstance(normalizer, NaNLabelEncoder):
        return len(normalizer.classes_)
    if isinstance(loss, DistributionLoss):
        return len(loss.distribution_arguments)
    return len(loss.quantiles) if isinstance(loss, QuantileLoss) else 1


def is_joint_over_horizon(loss: Any) -> bool:
    """Return whether a loss treats the whole horizon as one vector, always of the same length."""
    return isinstance(loss, MQF2DistributionLoss)
