"""Scales of single samples: what a history is divided by, and what a forecast is multiplied by.

Every sample is brought to mean 0 and deviation 1 over the valid steps of its own history
(reversible instance normalization, Kim et al. 2022, https://openreview.net/forum?id=cGDAkQo1C0p).
The statistics are folded into the host's ``target_scale``, so that the host's own
``transform_output`` brings back every kind of forecast, distributions included.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..base.losses.factory import Link

__all__ = ["InstanceScale", "measure_instance"]


class InstanceScale(NamedTuple):
    """Statistics of one target over the history of every sample.

    Attributes
    ----------
    center, scale : Tensor
        What the history, in the host's normalized space, is shifted and divided by, (B, 1).
    target_scale : Tensor
        Center and scale that bring the network's output back to the data, (B, 2), in the place of
        the host's ``x["target_scale"]``.
    varies : Tensor
        Whether the history varies, bool, (B, 1).
    """

    center: Tensor
    scale: Tensor
    target_scale: Tensor
    varies: Tensor

    def normalize(self, y: Tensor) -> Tensor:
        """Bring values in the host's normalized space, (B, T), to the sample's own scale."""
        return (y - self.center) / self.scale


def measure_instance(
    y: Tensor, raw: Tensor, mask: Tensor, target_scale: Tensor, link: Link, normalize: bool
) -> InstanceScale:
    """Measure the scale of every sample.

    Parameters
    ----------
    y : Tensor
        History in the host's normalized space, (B, T), 0 where it is not valid.
    raw : Tensor
        History in the units of the data, (B, T), 0 where it is not valid.
    mask : Tensor
        Valid steps, bool, (B, T).
    target_scale : Tensor
        Center and scale of the host, (B, 2).
    link : Link
        How the loss goes from the network's output to the data.
    normalize : bool
        Whether to normalize at all; if not, the host's scale is taken as it is.
    """
    count = mask.sum(1, keepdim=True).clamp_min(1)
    host_center, host_scale = target_scale[:, :1], target_scale[:, 1:]
    zero, one = torch.zeros_like(host_center), torch.ones_like(host_scale)

    center = y.sum(1, keepdim=True) / count if normalize else zero
    if link is Link.SCALE:  # the distribution knows no center: divide by the mean size
        center, spread = zero, y.abs().sum(1, keepdim=True) / count
    else:
        spread = (((y - center) * mask).square().sum(1, keepdim=True) / count).sqrt()
    # a history that does not vary says nothing about scale, nor does what rounding leaves of one
    highest = y.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    lowest = y.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    varies = spread > 0 if link is Link.SCALE else highest > lowest
    scale = torch.where(varies, spread, one) if normalize else one

    if link is Link.LOG_RATE:
        rate = raw.abs().sum(1, keepdim=True) / count
        log_rate = torch.where(rate > 0, rate, one).log() if normalize else zero
        folded = torch.cat([log_rate, one], dim=1)
    else:
        folded = torch.cat([host_center + host_scale * center, host_scale * scale], dim=1)
    return InstanceScale(center, scale, folded, varies)
