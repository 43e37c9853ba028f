"""One step of the true memory, for pre-activations of one step.

The soft cap bounds the input gate, so no stabilizer is needed. All products are elementwise, since
autocast would round matrix products. c and n are written as ``addcmul`` and so on because the time
of a step is that of calling torch.

Dimensions: B batch, NH heads, d head size (K and V), H = NH·d.
"""

import torch
from torch import Tensor

__all__ = ["step_heads", "step_units"]


def step_units(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, c and n for memories of 1×1; everything is (B, H)."""
    key = i * k
    c = torch.addcmul(key * v, f, c)
    n = torch.addcmul(key, f, n)
    return c * q / (n * q).abs().clamp_min(1), c, n


def step_heads(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h (B, H), c and n, for q, k, v and n (B, H), gates (B, NH) and c (B, NH, d, d)."""
    by_head, by_unit = c.shape[:3], q.shape
    q, k, v = q.view(by_head), k.view(by_head), v.view(by_head)
    f = f.unsqueeze(-1)
    key = i.unsqueeze(-1) * k
    c = torch.addcmul(v.unsqueeze(-1) * key.unsqueeze(-2), f.unsqueeze(-1), c)
    n = torch.addcmul(key, f, n.reshape(by_head))
    read = (c * q.unsqueeze(-2)).sum(-1)
    h = read / (n * q).sum(-1, keepdim=True).abs().clamp_min(1)
    return h.view(by_unit), c, n.view(by_unit)
