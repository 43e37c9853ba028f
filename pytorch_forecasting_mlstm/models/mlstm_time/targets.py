"""The past of a target: what the memory reads of it, and what goes straight to the forecast."""

from typing import Any, NamedTuple

import torch
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import DistributionLoss
from pytorch_forecasting.utils import get_embedding_size
from torch import Tensor, nn

from ..base.losses.factory import Link, link_of
from .instance_norm import (
    InstanceScale,
    measure_instance,
)
from .linear_paths import LinearPaths

__all__ = ["CategoricalTarget", "RealTarget", "TargetPast", "make_target"]

#: What is added to a count, as a share of the mean rate, before its logarithm: there may be zeros.
_ZERO_COUNT = 0.5
#: Deviation of logarithms below which a history is constant: rounding leaves 1e-7 of one.
_CONSTANT = 1e-5


class TargetPast(NamedTuple):
    """The past of one target.

    Attributes
    ----------
    features : Tensor
        What the memory reads, (B, history, size).
    scale : InstanceScale or None
        Scale of every sample; None for classes.
    paths : Tensor
        What goes to the forecast by the linear paths, (B, horizon, output_size, 3), in the order of
        ``PATHS``.
    """

    features: Tensor
    scale: InstanceScale | None
    paths: Tensor


class RealTarget(nn.Module):
    """A real target: normalized sample by sample, with linear paths to the horizon.

    Parameters
    ----------
    normalizer : TorchNormalizer
        Normalizer of the host.
    loss : Metric
        Loss of this target.
    history, horizon, moving_averages
        As of :class:`LinearPaths`.
    output_size : int
        Numbers per step that the loss takes. The linear paths start as a point and as every
        quantile, or as the location of a distribution, the first of its parameters.
    normalize : bool
        Whether every sample is brought to its own scale.
    """

    size = 1

    def __init__(
        self,
        normalizer: Any,
        loss: Any,
        history: int,
        horizon: int,
        moving_averages: tuple[int, int],
        output_size: int,
        normalize: bool,
    ) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.link = link_of(loss)
        self.normalize = normalize
        self.linear = LinearPaths(history, horizon, moving_averages)
        gain = torch.ones(output_size)
        if isinstance(loss, DistributionLoss):
            gain[1:] = 0
        self.gain = nn.Parameter(gain)

    def forward(self, raw: Tensor, mask: Tensor, target_scale: Tensor) -> TargetPast:
        """Read a right-aligned history (B, T), in units of the data, valid (B, T)."""
        dtype = self.gain.dtype  # not raw's: a target may be counted in whole numbers
        raw, target_scale = raw.to(dtype), target_scale.to(dtype)
        y = (self.normalizer.preprocess(raw) - target_scale[:, :1]) / target_scale[:, 1:]
        y, raw = y.masked_fill(~mask, 0), raw.masked_fill(~mask, 0)
        scale = measure_instance(y, raw, mask, target_scale, self.link, self.normalize)
        if self.link is Link.LOG_RATE:
            y, scale = _in_log_space(raw, mask, scale, self.normalize)
        else:
            y = scale.normalize(y)
        y = y.masked_fill(~mask, 0)
        paths = self.linear(y, mask)[..., None, :] * self.gain[:, None]
        return TargetPast(y[..., None], scale, paths)


class CategoricalTarget(nn.Module):
    """A categorical target: its classes embedded, and linear paths from each class to its logit.

    The history of a class is 1 where the target was of it, and 0 elsewhere. All classes share the
    paths.

    Parameters
    ----------
    classes : int
        Number of classes.
    history, horizon, moving_averages
        As of :class:`LinearPaths`.
    width : int, optional
        Width of the embedding. Default: the host's choice for so many classes.
    """

    def __init__(
        self,
        classes: int,
        history: int,
        horizon: int,
        moving_averages: tuple[int, int],
        width: int | None,
    ) -> None:
        super().__init__()
        self.size = get_embedding_size(classes) if width is None else width
        self.embedding = nn.Embedding(classes, self.size)
        self.linear = LinearPaths(history, horizon, moving_averages)

    def forward(self, raw: Tensor, mask: Tensor, target_scale: Tensor) -> TargetPast:
        """Read the right-aligned history raw (B, T) of classes, given its valid steps (B, T)."""
        raw = raw.masked_fill(~mask, 0)
        classes = self.embedding.num_embeddings
        member = nn.functional.one_hot(raw, classes).mT.to(self.embedding.weight.dtype)  # (B, C, T)
        valid = mask[:, None].expand_as(member)
        paths = self.linear(member.flatten(0, 1), valid.flatten(0, 1))  # (B C, horizon, 3)
        paths = paths.unflatten(0, (-1, classes)).transpose(1, 2)  # (B, horizon, C, 3)
        return TargetPast(self.embedding(raw), None, paths.contiguous())


def _in_log_space(
    raw: Tensor, mask: Tensor, scale: InstanceScale, normalize: bool
) -> tuple[Tensor, InstanceScale]:
    """Bring a history to the space of a loss that takes the logarithm of a rate.

    There, what the linear paths and the memory read varies as their forecast does.

    Parameters
    ----------
    raw : Tensor
        History in the units of the data, (B, T).
    mask : Tensor
        Valid steps, (B, T).
    scale : InstanceScale
        Scale of every sample, with the logarithm of its mean rate as center.
    normalize : bool
        Whether every sample is brought to its own scale.

    Returns
    -------
    tuple of Tensor and InstanceScale
        The history, of mean 0 and deviation 1 if it is normalized, and the scale that leads from
        there to log rates.
    """
    log_rate = scale.target_scale[:, :1]
    count = mask.sum(1, keepdim=True).clamp_min(1)
    y = torch.log(raw.clamp_min(0) * torch.exp(-log_rate) + _ZERO_COUNT).masked_fill(~mask, 0)
    if not normalize:
        return y, scale
    center = y.sum(1, keepdim=True) / count
    spread = (((y - center) * mask).square().sum(1, keepdim=True) / count).sqrt()
    spread = torch.where(spread > _CONSTANT, spread, torch.ones_like(spread))
    return (y - center) / spread, scale._replace(target_scale=torch.cat([log_rate, spread], dim=1))


def make_target(
    normalizer: Any,
    loss: Any,
    history: int,
    horizon: int,
    moving_averages: tuple[int, int],
    output_size: int,
    normalize: bool,
    width: int | None,
) -> RealTarget | CategoricalTarget:
    """Choose by the normalizer of the host: it encodes the labels of a categorical target."""
    if isinstance(normalizer, NaNLabelEncoder):
        return CategoricalTarget(len(normalizer.classes_), history, horizon, moving_averages, width)
    return RealTarget(normalizer, loss, history, horizon, moving_averages, output_size, normalize)
