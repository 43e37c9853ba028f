"""Instance normalization: every sample is scaled by its own history, and its forecast back.

Every sample is shifted and scaled to mean 0 and standard deviation 1 over the valid steps of its
history (reversible instance normalization, Kim et al. 2022,
https://openreview.net/forum?id=cGDAkQo1C0p). The statistics are folded into the ``target_scale``
of the dataset's normalizer, so that one map brings back forecasts of every kind, distributions
included.

A history without spread has no scale of its own, and one with hardly any would turn what happens
in the horizon into a number of thousands of standard deviations. The former is scaled by its series
or by the other series, the latter by a tenth of the scale of its series.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..base.link import Link
from ..base.padding import zero_outside
from ..base.scales.table import ReferenceScales

__all__ = ["InstanceStatistics", "TargetHistory", "count_steps", "measure_instance"]

#: Smallest scale of a history that varies, as a share of the scale of its series.
_MIN_SHARE = 0.1
#: Scales of a normalizer below this are the epsilon that pytorch-forecasting adds to 0.
_EPSILON = 1e-6
#: Scale of a constant history that float32 may compute by rounding, as a share of its level.
_ROUNDING = 1e-5


class TargetHistory(NamedTuple):
    """The history of one real target.

    Attributes
    ----------
    raw, transformed : Tensor
        Values in the units of the data, and as the normalizer transforms them, (B, T).
    mask : Tensor or None
        Valid steps, bool, (B, T); None if all are valid.
    """

    raw: Tensor
    transformed: Tensor
    mask: Tensor | None

    def extremes(self) -> tuple[Tensor, Tensor]:
        """Return the highest and the lowest transformed value, (B, 1)."""
        high = low = self.transformed
        if self.mask is not None:
            high, low = (high.masked_fill(~self.mask, end) for end in (-torch.inf, torch.inf))
        return high.amax(1, keepdim=True), low.amin(1, keepdim=True)


class InstanceStatistics(NamedTuple):
    """Statistics of one target over the history of every sample.

    Attributes
    ----------
    center, scale : Tensor
        What the history, as the dataset normalizes it, is shifted and divided by, (B, 1).
    target_scale : Tensor
        Center and scale that bring the output of the network back to the data, (B, 2). It replaces
        that of the dataset.
    varies : Tensor
        Whether the history varies, bool, (B, 1).
    """

    center: Tensor
    scale: Tensor
    target_scale: Tensor
    varies: Tensor

    def normalize(self, y: Tensor) -> Tensor:
        """Scale values (B, T), as the dataset normalizes them, by the sample's statistics."""
        return (y - self.center) / self.scale


def count_steps(x: Tensor, mask: Tensor | None) -> Tensor | int:
    """Return the number of valid steps of x (B, T), (B, 1), but at least 1."""
    return x.shape[1] if mask is None else mask.sum(1, keepdim=True).clamp_min(1)


def measure_instance(
    history: TargetHistory,
    target_scale: Tensor,
    reference: ReferenceScales,
    link: Link,
    normalize: bool,
) -> InstanceStatistics:
    """Compute the statistics of every sample.

    Parameters
    ----------
    history : TargetHistory
        History of the target.
    target_scale : Tensor
        Center and scale of the dataset's normalizer, (B, 2).
    reference : ReferenceScales
        Scales of histories that have none of their own.
    link : Link
        How the loss maps the output of the network to the data.
    normalize : bool
        Whether to normalize at all; if not, ``target_scale`` is left as it is, unless its scale is
        an epsilon, or less than a tenth of that of the series.
    """
    raw, transformed, mask = history
    count = count_steps(raw, mask)
    data_center, data_scale = target_scale[:, :1], target_scale[:, 1:]
    zero, one = torch.zeros_like(data_center), torch.ones_like(data_scale)
    y = zero_outside((transformed - data_center) / data_scale, mask)

    # a constant history has no scale, even where rounding leaves a deviation
    highest, lowest = history.extremes()
    level = torch.where(highest >= lowest, highest, zero)
    mean = y.sum(1, keepdim=True) / count
    if link is Link.SCALE:  # the distribution has no center: divide by the mean magnitude
        center, spread = zero, y.abs().sum(1, keepdim=True) / count
        varies = spread > 0
    else:
        center = mean if normalize else zero
        spread = (zero_outside(y - mean, mask).square().sum(1, keepdim=True) / count).sqrt()
        varies = highest > lowest

    if link is Link.LOG_RATE:
        rate = zero_outside(raw, mask).abs().sum(1, keepdim=True) / count
        rate = torch.where(rate > 0, rate, _borrowed_scale(zero, zero, reference))
        log_rate = rate.log() if normalize else zero
        scale = torch.where(varies, spread, one) if normalize else one
        return InstanceStatistics(center, scale, torch.cat([log_rate, one], dim=1), varies)

    window_scale = torch.maximum(spread, _MIN_SHARE * reference.series / data_scale)
    borrowed = _borrowed_scale(level, data_scale, reference) / data_scale
    scale = torch.where(varies, window_scale, borrowed)
    if mask is not None:
        is_empty = ~mask.any(1, keepdim=True) & (data_scale > _EPSILON)
        scale = torch.where(is_empty, one, scale)  # its level is unknown, too: that of the dataset
    if not normalize:
        smallest = _smallest_scale(level)
        smallest = torch.maximum(smallest, _MIN_SHARE * reference.series)
        is_constant_series = reference.known & (reference.series == 0)
        use_borrowed = (data_scale < _EPSILON) | (
            ~varies & ((data_scale < smallest) | is_constant_series)
        )
        least = (_MIN_SHARE * reference.series / data_scale).clamp_min(1)
        scale = torch.where(use_borrowed, scale, least)
    folded = torch.cat([data_center + data_scale * center, data_scale * scale], dim=1)
    return InstanceStatistics(center, scale, folded, varies)


def _smallest_scale(level: Tensor) -> Tensor:
    """Return the scale, (B, 1), below which a normalizer has found none in a constant history."""
    return (_ROUNDING * level.abs()).clamp_min(_EPSILON)


def _borrowed_scale(level: Tensor, data_scale: Tensor, reference: ReferenceScales) -> Tensor:
    """Return the scale, (B, 1), of histories that are constant at ``level``, (B, 1).

    That is the scale of the series. A series that is unknown has the scale of the normalizer, if
    that is not fitted to the history as well. Otherwise the scale is that of the other series, but
    not above the level: a constant of 3 must not get the scale of its neighbors in the millions.
    """
    others = torch.where(
        level == 0, reference.smallest, torch.minimum(level.abs(), reference.median)
    )
    use_normalizer = ~reference.known & (data_scale > _smallest_scale(level))
    borrowed = torch.where(use_normalizer, data_scale, others)
    return torch.where(reference.series > 0, reference.series, borrowed)
