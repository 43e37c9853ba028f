"""Layer norms whose derivatives in forward mode can be differentiated again.

Those of :func:`torch.nn.functional.layer_norm` cannot: torch returns wrong numbers for, say,
``jacfwd(jacfwd(f))``. In forward mode, the norms are therefore computed with simpler operations.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .ops.execution import is_forward_mode

__all__ = ["CellNorms", "HeadNorm", "LayerNorm", "Norm", "normalize_heads", "normalize_parts"]


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
        return normalize_heads(input, self.heads, self.weight, self.eps)


def normalize_heads(h: Tensor, NH: int, weight: Tensor, eps: float) -> Tensor:
    """Normalize h (..., H) over the units of every head, and scale every unit."""
    h = h.unflatten(-1, (NH, -1))
    h = _simple_norm(h, eps) if is_forward_mode() else torch.layer_norm(h, h.shape[-1:], eps=eps)
    return h.flatten(-2) * weight


Norm = Callable[[Tensor], Tensor]


class CellNorms(NamedTuple):
    """The norms of a cell, usually modules.

    Attributes
    ----------
    parts : tuple of callable, optional
        Norms of the pre-activations: of q, k and v (B, H), and of all gates (B, 2 NH + H).
    heads : callable, optional
        Norm of what the heads read, (B, H).
    """

    parts: tuple[Norm, Norm, Norm, Norm] | None
    heads: Norm | None


def normalize_parts(p: Tensor, norms: CellNorms, NH: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Normalize and split pre-activations (..., 4 H + 2 NH) into q, k, v, i and [f, o]."""
    H = (p.shape[-1] - 2 * NH) // 4
    if norms.parts is None:
        parts = p.split((H, H, H, NH, NH + H), dim=-1)
    else:
        norm_q, norm_k, norm_v, norm_gates = norms.parts
        q, k, v, gates = p.split((H, H, H, 2 * NH + H), dim=-1)
        parts = (norm_q(q), norm_k(k), norm_v(v), *norm_gates(gates).split((NH, NH + H), dim=-1))
    return parts if p.dtype == dtype else tuple(part.to(dtype) for part in parts)


def _simple_norm(x: Tensor, eps: float) -> Tensor:
    """Return x (..., d) with mean 0 and variance 1 over the last dimension."""
    centered = x - x.mean(-1, keepdim=True)
    variance = centered.square().mean(-1, keepdim=True)
    return centered * (variance + eps).rsqrt()
