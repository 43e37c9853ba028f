"""The past of a target: what the memory reads of it, and what goes straight to the forecast."""

from typing import Any, NamedTuple

from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import DistributionLoss
from pytorch_forecasting.utils import get_embedding_size
from torch import Tensor, nn

from pytorch_forecasting_mlstm.models.mlstm_time._instance_scale import (
    InstanceScale,
    measure_instance,
)
from pytorch_forecasting_mlstm.models.mlstm_time._linear_paths import LinearPaths
from pytorch_forecasting_mlstm.models.mlstm_time._losses import link_of

__all__ = ["CategoricalTarget", "RealTarget", "TargetPast", "make_target"]


class TargetPast(NamedTuple):
    """The past of one target.

    Attributes
    ----------
    features : Tensor
        What the memory reads, (B, history, size).
    scale : InstanceScale or None
        Scale of every sample; None for classes.
    linear : Tensor or None
        What goes straight to the forecast, (B, horizon, output_size); None for classes.
    """

    features: Tensor
    scale: InstanceScale | None
    linear: Tensor | None


class RealTarget(nn.Module):
    """A real target: normalised sample by sample, with linear paths to the horizon.

    Parameters
    ----------
    normalizer : TorchNormalizer
        Normaliser of the host.
    loss : Metric
        Loss of this target.
    history, horizon, moving_average, output_size : int
        As of :class:`LinearPaths`.
    normalise : bool
        Whether every sample is brought to its own scale.
    """

    size = 1

    def __init__(
        self,
        normalizer: Any,
        loss: Any,
        history: int,
        horizon: int,
        moving_average: int,
        output_size: int,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.link = link_of(loss)
        self.normalise = normalise
        self.linear = LinearPaths(
            history, horizon, moving_average, output_size, isinstance(loss, DistributionLoss)
        )

    def forward(self, raw: Tensor, mask: Tensor, target_scale: Tensor) -> TargetPast:
        """Read a right-aligned history (B, T), in units of the data, valid (B, T)."""
        dtype = self.linear.gain.dtype  # not raw's: a target may be counted in whole numbers
        raw, target_scale = raw.to(dtype), target_scale.to(dtype)
        y = (self.normalizer.preprocess(raw) - target_scale[:, :1]) / target_scale[:, 1:]
        y, raw = y.masked_fill(~mask, 0), raw.masked_fill(~mask, 0)
        scale = measure_instance(y, raw, mask, target_scale, self.link, self.normalise)
        y = scale.normalise(y).masked_fill(~mask, 0)
        return TargetPast(y[..., None], scale, self.linear(y, mask))


class CategoricalTarget(nn.Module):
    """A categorical target: its classes, embedded.

    Parameters
    ----------
    classes : int
        Number of classes.
    width : int, optional
        Width of the embedding. Default: the host's choice for so many classes.
    """

    def __init__(self, classes: int, width: int | None = None) -> None:
        super().__init__()
        self.size = get_embedding_size(classes) if width is None else width
        self.embedding = nn.Embedding(classes, self.size)

    def forward(self, raw: Tensor, mask: Tensor, target_scale: Tensor) -> TargetPast:
        """Read the right-aligned history raw (B, T) of classes, given its valid steps (B, T)."""
        return TargetPast(self.embedding(raw.masked_fill(~mask, 0)), None, None)


def make_target(
    normalizer: Any,
    loss: Any,
    history: int,
    horizon: int,
    moving_average: int,
    output_size: int,
    normalise: bool,
    width: int | None,
) -> RealTarget | CategoricalTarget:
    """Choose by the normaliser of the host: it encodes the labels of a categorical target."""
    if isinstance(normalizer, NaNLabelEncoder):
        return CategoricalTarget(len(normalizer.classes_), width)
    return RealTarget(normalizer, loss, history, horizon, moving_average, output_size, normalise)
