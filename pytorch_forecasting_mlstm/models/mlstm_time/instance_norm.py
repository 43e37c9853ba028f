"""Instance normalization: every sample is scaled by its own history, and its forecast back.

Every sample is shifted and scaled to mean 0 and standard deviation 1 over the valid steps of its
history (reversible instance normalization, Kim et al. 2022,
https://openreview.net/forum?id=cGDAkQo1C0p). The statistics are folded into the ``target_scale``
of the dataset's normalizer, so that one map brings back forecasts of every kind, distributions
included.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..base.link import Link

__all__ = ["InstanceStatistics", "measure_instance"]


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


def measure_instance(
    y: Tensor, raw: Tensor, mask: Tensor, target_scale: Tensor, link: Link, normalize: bool
) -> InstanceStatistics:
    """Compute the statistics of every sample.

    Parameters
    ----------
    y : Tensor
        History as the dataset normalizes it, (B, T), 0 where it is not valid.
    raw : Tensor
        History in the units of the data, (B, T), 0 where it is not valid.
    mask : Tensor
        Valid steps, bool, (B, T).
    target_scale : Tensor
        Center and scale of the dataset's normalizer, (B, 2).
    link : Link
        How the loss maps the output of the network to the data.
    normalize : bool
        Whether to normalize at all; if not, ``target_scale`` is left as it is.
    """
    count = mask.sum(1, keepdim=True).clamp_min(1)
    data_center, data_scale = target_scale[:, :1], target_scale[:, 1:]
    zero, one = torch.zeros_like(data_center), torch.ones_like(data_scale)

    center = y.sum(1, keepdim=True) / count if normalize else zero
    if link is Link.SCALE:  # the distribution has no center: divide by the mean magnitude
        center, spread = zero, y.abs().sum(1, keepdim=True) / count
    else:
        spread = (((y - center) * mask).square().sum(1, keepdim=True) / count).sqrt()
    # a constant history has no scale, even where rounding leaves a deviation
    highest = y.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    lowest = y.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    varies = spread > 0 if link is Link.SCALE else highest > lowest
    scale = torch.where(varies, spread, one) if normalize else one

    if link is Link.LOG_RATE:
        rate = raw.abs().sum(1, keepdim=True) / count
        log_rate = torch.where(rate > 0, rate, one).log() if normalize else zero
        folded = torch.cat([log_rate, one], dim=1)
    else:
        folded = torch.cat([data_center + data_scale * center, data_scale * scale], dim=1)
    return InstanceStatistics(center, scale, folded, varies)
