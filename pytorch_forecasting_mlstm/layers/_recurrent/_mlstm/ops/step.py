"""One step of the true memory, in PyTorch.

The soft cap bounds the input gate, so no stabilizer is needed. All products are elementwise, since
autocast would round matrix products. c and n are written as ``addcmul`` and so on because the time
of a step is that of calling torch.

Dimensions: B batch, NH heads, d head size (K and V), H = NH·d.
"""

import math

import torch
from torch import Tensor

from ..norms import CellNorms, normalize_parts
from ..preactivations import soft_cap
from .execution import is_eager_on_cpu
from .types import StepResult

__all__ = ["step"]


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult:
    """Take a step, differentiable any number of times.

    Parameters
    ----------
    p : Tensor
        Pre-activations, (B, 4 H + 2 NH), that have not been normalized.
    norms : CellNorms
        Norms of the pre-activations, and of what every head reads.
    c : Tensor
        Memory, (B, NH, d, d), or (B, H) for memories of 1×1.
    n : Tensor
        Normalizer, (B, H).
    """
    q, k, v, i, f_and_o = normalize_parts(p, norms, c.shape[1], n.dtype)
    f, o = torch.sigmoid(f_and_o).split((c.shape[1], n.shape[1]), dim=-1)
    i = torch.exp(soft_cap(i))
    if c.dim() == 2:
        h, c, n = _step_units(q, k, v, i, f, c, n)
    else:
        i = i * c.shape[-1] ** -0.5  # the 1/√d of k
        h, c, n = _step_heads(q, k, v, i, f, c, n)
    if norms.heads is not None:
        h = norms.heads(h)
    h = o * h
    # One product checks h and n, to keep the step fast. A non-finite c makes h non-finite.
    finite = not is_eager_on_cpu(h) or math.isfinite(torch.dot(h.view(-1), n.view(-1)).item())
    return StepResult(h, c, n, finite)


def _step_units(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, c and n for memories of 1×1; everything is (B, H)."""
    key = i * k
    c = torch.addcmul(key * v, f, c)
    n = torch.addcmul(key, f, n)
    return c * q / _denominator(n * q), c, n


def _step_heads(
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
    h = read / _denominator((n * q).sum(-1, keepdim=True))
    return h.view(by_unit), c, n.view(by_unit)


def _denominator(nq: Tensor) -> Tensor:
    """Return ``max(|nᵀq|, 1)``, NaN where nᵀq overflows: a quotient of 0 would hide that."""
    return nq.abs().clamp_min(1) + (nq - nq)
