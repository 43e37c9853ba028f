"""Encoders of the targets: what the memory reads of them, and the linear part of the forecast."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..base.link import Link
from ..base.padding import zero_outside
from ..base.scales.table import ReferenceScales
from .instance_norm import InstanceStatistics, TargetHistory, count_steps, measure_instance
from .missing import fill_missing, observed_steps
from .submodules import DecompositionLinear

__all__ = [
    "CategoricalTargetEncoder",
    "EncodedTarget",
    "RealTargetEncoder",
    "TargetSpec",
    "flip_sign",
    "make_target_encoder",
]

#: Added to a count, as a share of the mean rate, before its logarithm: counts may be 0.
_COUNT_OFFSET = 0.5
#: Deviation of logarithms below which a history counts as constant: rounding leaves 1e-7.
_MIN_DEVIATION = 1e-5


class TargetSpec(NamedTuple):
    """What the network has to know of a target.

    Attributes
    ----------
    link : Link
        How the loss maps the output of the network to the data.
    output_size : int
        Numbers per step that the loss expects.
    transform : callable, optional
        Of a real target: maps values in the units of the data to the space in which
        ``target_scale`` centers and scales them. May be None if both are the same.
    is_distribution : bool
        Of a real target: whether the numbers are the parameters of a distribution. The linear maps
        then initialize only the first one, its location. Otherwise they initialize all of them: a
        point or the quantiles.
    num_classes, embedding_size : int, optional
        Of a categorical target: number of its classes, and width of their embedding.
    """

    link: Link
    output_size: int
    transform: Callable[[Tensor], Tensor] | None = None
    is_distribution: bool = False
    num_classes: int | None = None
    embedding_size: int = 1


class EncodedTarget(NamedTuple):
    """The encoded history of one target.

    Attributes
    ----------
    features : Tensor
        What the memory reads, (B, history, size).
    statistics : InstanceStatistics or None
        Statistics of every sample; None for classes.
    components : Tensor
        Trend, cycle and season of the forecast, (B, horizon, output_size, 3).
    flipped : Tensor, optional
        Whether the sign of a sample is flipped, bool, (B, 1, 1).
    observed : Tensor, optional
        Of a real target: steps that are neither missing nor padding, bool, (B, history); None if
        these are all.
    """

    features: Tensor
    statistics: InstanceStatistics | None
    components: Tensor
    flipped: Tensor | None = None
    observed: Tensor | None = None

    def flip(self, mask: Tensor) -> "EncodedTarget":
        """Flip the sign of a real target in some samples, (B, 1, 1), except where it is constant.

        A constant history is its own mirror image: flipping it would train one history on two
        different horizons.
        """
        assert self.statistics is not None, "classes have no sign"
        mask = mask & self.statistics.varies[..., None]
        return self._replace(
            features=flip_sign(self.features, mask),
            components=flip_sign(self.components, mask[..., None]),
            flipped=mask,
        )

    def latest(self, steps: int) -> "EncodedTarget":
        """Return what the memory reads, for the last steps of the history only."""
        observed = None if self.observed is None else self.observed[:, -steps:]
        return self._replace(features=self.features[:, -steps:], observed=observed)

    def missing_mark(self, dtype: torch.dtype) -> Tensor:
        """Return the mark of a real target, (B, history, 1): 1 where it is missing."""
        if self.observed is None:
            return self.features.new_zeros(*self.features.shape[:2], 1, dtype=dtype)
        return (~self.observed[..., None]).to(dtype)


def flip_sign(x: Tensor, mask: Tensor) -> Tensor:
    """Change the sign of x where ``mask``."""
    return torch.where(mask, -x, x)


class RealTargetEncoder(nn.Module):
    """Encode a real target: normalize it sample by sample, and map its components to the horizon.

    Parameters
    ----------
    spec : TargetSpec
        The target.
    history, horizon, moving_averages
        As in :class:`~.submodules.DecompositionLinear`.
    normalize : bool
        Whether every sample is scaled by its own history.
    """

    size = 1

    def __init__(
        self,
        spec: TargetSpec,
        history: int,
        horizon: int,
        moving_averages: tuple[int, int],
        normalize: bool,
    ) -> None:
        super().__init__()
        self.transform, self.link, self.normalize = spec.transform, spec.link, normalize
        self.linear = DecompositionLinear(history, horizon, moving_averages)
        gain = torch.ones(spec.output_size)
        if spec.is_distribution:
            gain[1:] = 0
        self.gain = nn.Parameter(gain)

    def forward(
        self,
        raw: Tensor,
        mask: Tensor | None,
        recent: Tensor | None,
        target_scale: Tensor,
        reference: ReferenceScales,
    ) -> EncodedTarget:
        """Encode a right-aligned history (B, T), in the units of the data, valid (B, T).

        Where it is missing, it is NaN. Its ``recent`` steps, (B, T), scale the sample, if one of
        them is observed. A mask of None is one that is True everywhere.
        """
        observed = observed_steps(raw, mask)
        scaling = _scaling_steps(observed, recent)
        dtype = self.gain.dtype  # not that of raw: a target may be of integers
        raw, target_scale = raw.to(dtype), target_scale.to(dtype)
        transformed = raw if self.transform is None else self.transform(raw)
        y = (transformed - target_scale[:, :1]) / target_scale[:, 1:]
        y, raw = zero_outside(y, observed), zero_outside(raw, observed)
        statistics = measure_instance(
            TargetHistory(raw, transformed, scaling),
            target_scale,
            reference.to(dtype),
            self.link,
            self.normalize,
        )
        if self.link is Link.LOG_RATE:
            y, statistics = _to_log_space(raw, scaling, statistics, self.normalize)
        else:
            y = statistics.normalize(y)
        if observed is not None:
            valid = torch.ones_like(observed) if mask is None else mask
            y = zero_outside(fill_missing(y, observed, valid), mask)
        components = self.linear(y, mask)[..., None, :] * self.gain[:, None]
        return EncodedTarget(y[..., None], statistics, components, observed=observed)


def _scaling_steps(observed: Tensor | None, recent: Tensor | None) -> Tensor | None:
    """Return the observed steps that are recent, or all observed ones of samples without any."""
    if recent is None:
        return observed
    if observed is None:
        return recent
    scaling = observed & recent
    # Not torch.where, since ONNX Runtime selects no booleans.
    return scaling | (observed & ~scaling.any(1, keepdim=True))


class CategoricalTargetEncoder(nn.Module):
    """Encode a categorical target: embed its classes, and map each class to its own logit.

    The history of a class is 1 where the target was of that class, and 0 elsewhere. All classes
    share the linear maps.

    Parameters
    ----------
    num_classes, embedding_size : int
        Number of classes, and width of their embedding.
    history, horizon, moving_averages
        As in :class:`~.submodules.DecompositionLinear`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        history: int,
        horizon: int,
        moving_averages: tuple[int, int],
    ) -> None:
        super().__init__()
        self.size = embedding_size
        self.embedding = nn.Embedding(num_classes, embedding_size)
        self.linear = DecompositionLinear(history, horizon, moving_averages)

    def forward(
        self,
        codes: Tensor,
        mask: Tensor | None,
        recent: Tensor | None,
        target_scale: Tensor,
        reference: ReferenceScales,
    ) -> EncodedTarget:
        """Encode a right-aligned history (B, T) of class codes, valid (B, T)."""
        codes = zero_outside(codes, mask)
        classes, dtype = self.embedding.num_embeddings, self.embedding.weight.dtype
        member = nn.functional.one_hot(codes, classes).mT.to(dtype)  # (B, C, T)
        valid = None if mask is None else mask[:, None].expand_as(member).flatten(0, 1)
        components = self.linear(member.flatten(0, 1), valid)  # (B C, horizon, 3)
        components = components.unflatten(0, (-1, classes)).transpose(1, 2)  # (B, horizon, C, 3)
        return EncodedTarget(self.embedding(codes), None, components.contiguous())


def _to_log_space(
    raw: Tensor, scaling: Tensor | None, statistics: InstanceStatistics, normalize: bool
) -> tuple[Tensor, InstanceStatistics]:
    """Bring a history to the space of a loss that takes the logarithm of a rate.

    In that space, what the memory and the linear maps read varies as their forecast does.

    Parameters
    ----------
    raw : Tensor
        History in the units of the data, (B, T).
    scaling : Tensor or None
        Steps that scale the sample, (B, T); None for all.
    statistics : InstanceStatistics
        Statistics of every sample, with the logarithm of its mean rate as center.
    normalize : bool
        Whether every sample is scaled by its own history.

    Returns
    -------
    tuple of Tensor and InstanceStatistics
        The history, of mean 0 and standard deviation 1 if it is normalized, and the statistics
        that lead from there to log rates.
    """
    log_rate = statistics.target_scale[:, :1]
    count = count_steps(raw, scaling)
    y = torch.log(raw.clamp_min(0) * torch.exp(-log_rate) + _COUNT_OFFSET)
    if not normalize:
        return y, statistics
    center = zero_outside(y, scaling).sum(1, keepdim=True) / count
    spread = (zero_outside(y - center, scaling).square().sum(1, keepdim=True) / count).sqrt()
    spread = torch.where(spread > _MIN_DEVIATION, spread, torch.ones_like(spread))
    scale = torch.cat([log_rate, spread], dim=1)
    return (y - center) / spread, statistics._replace(target_scale=scale)


def make_target_encoder(
    spec: TargetSpec,
    history: int,
    horizon: int,
    moving_averages: tuple[int, int],
    normalize: bool,
) -> RealTargetEncoder | CategoricalTargetEncoder:
    """Make the encoder for the kind of a target."""
    if spec.num_classes is not None:
        return CategoricalTargetEncoder(
            spec.num_classes, spec.embedding_size, history, horizon, moving_averages
        )
    return RealTargetEncoder(spec, history, horizon, moving_averages, normalize)
