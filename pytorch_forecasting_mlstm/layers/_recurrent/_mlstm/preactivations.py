"""From the pre-activations of a cell to the inputs of the recurrence.

Pre-activations are (..., 4 H + 2 NH), in the order q, k, v (H each), i, f (NH each), o (H).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Projections",
    "apply_gate_activations",
    "heads_first",
    "soft_cap",
    "soft_cap_grad",
    "split_heads",
]

_SOFT_CAP = 15.0  # bounds the input gate by e^15, so that true memories fit float32


class Projections(NamedTuple):
    """Views of pre-activations: q, k, v and o (..., NH, H/NH), i and f (..., NH)."""

    q: Tensor
    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor
    o: Tensor


def split_heads(parts: Sequence[Tensor], NH: int) -> Projections:
    """View pre-activations by part and head: one tensor, or q, k, v and all gates."""
    H = (sum(part.shape[-1] for part in parts) - 2 * NH) // 4
    sizes = (H, H, H, NH, NH, H)
    if len(parts) == 1:
        q, k, v, i, f, o = parts[0].split(sizes, dim=-1)
    else:
        q, k, v, gates = parts
        i, f, o = gates.split(sizes[3:], dim=-1)
    by_head = (*q.shape[:-1], NH, H // NH)
    return Projections(q.view(by_head), k.view(by_head), v.view(by_head), i, f, o.view(by_head))


def soft_cap(i: Tensor) -> Tensor:
    """Return the logarithm of the input gate."""
    return _SOFT_CAP * torch.tanh(i / _SOFT_CAP)


def soft_cap_grad(log_i: Tensor) -> Tensor:
    """Return the derivative of the soft cap, given its value."""
    return 1 - (log_i / _SOFT_CAP).square()


def apply_gate_activations(
    p: Tensor, NH: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return q, scaled k and v (..., NH, H/NH), log_i and log_f (..., NH), and o like v."""
    q, k, v, i, f, o = split_heads([p], NH)
    return q, k / math.sqrt(k.shape[-1]), v, soft_cap(i), F.logsigmoid(f), torch.sigmoid(o)


def heads_first(parts: Sequence[Tensor], padding: Tensor | None) -> list[Tensor]:
    """Transpose q, k, v, log_i, log_f and o from (B, T, NH, ...) to (B, NH, T, ...).

    At padding, (B, T, 1), the gates leave the state as it is.
    """
    q, k, v, log_i, log_f, o = parts
    if padding is not None:
        log_i = log_i.masked_fill(padding, -torch.inf)
        log_f = log_f.masked_fill(padding, 0.0)
    return [part.transpose(1, 2) for part in (q, k, v, log_i, log_f, o)]
