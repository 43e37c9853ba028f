"""Layer norms whose derivatives in forward mode can be differentiated again.

Those of :func:`torch.nn.functional.layer_norm` cannot: torch returns wrong numbers for, say,
``jacfwd(jacfwd(f))``. In forward mode, the norms are therefore computed with simpler operations.
"""

import torch
from torch import Tensor, nn

from .ops.execution import is_forward_mode

__all__ = ["HeadNorm", "LayerNorm"]


class LayerNorm(nn.LayerNorm):
    """:class:`torch.nn.LayerNorm` over the last dimension."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize, scale and shift."""
        if is_forward_mode():
            return _simple_norm(input, self.eps) * self.weight + self.bias
        # Without the detour over torch.nn.functional, which a step of a cell would notice.
        return torch.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class HeadNorm(nn.LayerNorm):
    """Normalize the read-out of every head by itself, and scale every unit.

    Parameters
    ----------
    heads : int
        Heads, NH.
    hidden_size : int
        Units of all heads, H.
    """

    def __init__(self, heads: int, hidden_size: int) -> None:
        super().__init__(hidden_size, bias=False)
        self.heads = heads

    def forward(self, input: Tensor) -> Tensor:
        """Normalize h (..., H), in the dtype of h."""
        h = input.unflatten(-1, (self.heads, -1))
        if is_forward_mode():
            h = _simple_norm(h, self.eps)
        else:
            h = torch.layer_norm(h, h.shape[-1:], eps=self.eps)
        return h.flatten(-2) * self.weight


def _simple_norm(x: Tensor, eps: float) -> Tensor:
    """Return x (..., d) with mean 0 and variance 1 over the last dimension."""
    centered = x - x.mean(-1, keepdim=True)
    variance = centered.square().mean(-1, keepdim=True)
    return centered * (variance + eps).rsqrt()
