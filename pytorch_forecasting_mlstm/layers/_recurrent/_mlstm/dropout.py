"""Dropout whose random numbers take less time on the CPU."""

import torch
from torch import Tensor, nn

from .ops.execution import is_eager_on_cpu

__all__ = ["Dropout"]

_MIN_NUMEL = 2**12  # below, more calls cost more than fewer random numbers gain


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`, in a third of the time on a CPU.

    torch draws a random number of 64 bits per element. Here it draws one for every four, and each
    gets 16 of its bits, so that the probability is a multiple of 2⁻¹⁶. What is kept is divided by
    ``1 - p``, as in torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zero elements with probability p and scale the others, in training."""
        levels = round(self.p * 2**16)
        if (
            not self.training
            or not 0 < levels < 2**16
            or self.inplace
            or not is_eager_on_cpu(input)
            or type(input) is not Tensor
            or input.numel() < _MIN_NUMEL
            or not input.is_floating_point()
        ):
            return super().forward(input)
        keep = _draw_16_bits(input) >= levels - 2**15
        scale = input.new_tensor(1 / (1 - self.p))
        return input * torch.where(keep, scale, scale.new_zeros(()))


def _draw_16_bits(like: Tensor) -> Tensor:
    """Draw integers from -2¹⁵ to 2¹⁵ - 1, in the shape of a tensor."""
    n = like.numel()
    bits = torch.empty(-(-n // 4), dtype=torch.int64, device=like.device)
    return bits.random_(-(2**63), None).view(torch.int16)[:n].view(like.shape)
