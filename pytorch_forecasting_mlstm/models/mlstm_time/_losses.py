"""What a loss asks of the model: its default, its copies, its link to the data, its output."""

import pickle
from copy import deepcopy
from enum import Enum
from typing import Any

from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.metrics import (
    MAE,
    BetaDistributionLoss,
    CrossEntropy,
    DistributionLoss,
    LogNormalDistributionLoss,
    MultiLoss,
    NegativeBinomialDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import CompositeMetric
from torch import Tensor
from torchmetrics import Metric

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
    loss = fresh_loss(loss)
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
    elif dataset.multi_target:
        loss = MultiLoss([deepcopy(loss) for _ in normalizers])
    for part, normalizer in zip(losses_of(loss), normalizers, strict=True):
        check_loss(part, normalizer)
    return loss


def check_loss(loss: Any, normalizer: Any) -> None:
    """Raise if the loss of one target cannot work with the target's normaliser."""
    name = type(loss).__name__
    categorical = isinstance(normalizer, NaNLabelEncoder)
    if categorical != isinstance(loss, CrossEntropy):
        raise ValueError(
            f"mLSTMTime: {name} is a loss for a {'real' if categorical else 'categorical'} target, "
            f"got a {'categorical' if categorical else 'real'} one; "
            f"pass {'CrossEntropy' if categorical else 'another loss'} for it."
        )
    if isinstance(loss, QuantileLoss) and 0.5 not in loss.quantiles:
        raise ValueError(
            f"mLSTMTime: QuantileLoss must have 0.5 among its quantiles, from which the host takes "
            f"the point forecast, got {loss.quantiles}; add it."
        )
    for kind, transformations, center in _NEEDS:
        if not isinstance(loss, kind):
            continue
        transformation = getattr(normalizer, "transformation", None)
        if transformation not in transformations:
            raise ValueError(
                f"mLSTMTime: {name} needs a target_normalizer with transformation "
                f"{' or '.join(map(repr, transformations))}, got {transformation!r}; "
                f"make the dataset with one."
            )
        if center is not None and getattr(normalizer, "center", True) != center:
            raise ValueError(
                f"mLSTMTime: {name} needs a target_normalizer with center={center}, got "
                f"center={not center}; make the dataset with one."
            )


#: What distributions need of the normaliser: one of these transformations, and a center or none.
_NEEDS: tuple[tuple[type, tuple[str | None, ...], bool | None], ...] = (
    (
        NegativeBinomialDistributionLoss,
        (None, "log1p", "softplus", "relu", "count", "sqrt"),
        False,
    ),
    (LogNormalDistributionLoss, ("log", "log1p"), None),
    (BetaDistributionLoss, ("logit",), True),
)


def fresh_loss(loss: Any) -> Any:
    """Copy a loss, without what it has accumulated, so that models never share its state."""
    if isinstance(loss, list | tuple):
        return [fresh_loss(part) for part in loss]
    if not isinstance(loss, Metric):
        raise TypeError(
            f"mLSTMTime: loss must be a metric of pytorch_forecasting or torchmetrics, or a list "
            f"of these, got {loss!r}; pass for example loss=MAE()."
        )
    try:
        copy = deepcopy(loss)
    except RuntimeError:  # it holds tensors of its last step's graph, which pickling lets go of
        copy = pickle.loads(pickle.dumps(loss))
    copy.reset()
    return copy


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
