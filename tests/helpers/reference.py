"""Oracles: the paper's equations, step by step, without stabilization and without package code.

Sources: xLSTM (arXiv 2405.04517), section 2.3; the soft cap of 15 from xLSTM-7B (arXiv 2503.13427).
Letters: B batch, T time, NH heads, K key, V value, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext

import torch
from torch import Tensor


def reference_mlstm(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the mLSTM over (B, NH, T, ...); c (B, NH, V, K) and n (B, NH, K) are true values."""
    outputs = []
    for t in range(q.shape[2]):
        i, f = log_i[:, :, t].exp(), log_f[:, :, t].exp()
        q_t, k_t, v_t = q[:, :, t], k[:, :, t], v[:, :, t]
        outer = v_t.unsqueeze(-1) * k_t.unsqueeze(-2)
        c = f[..., None, None] * c + i[..., None, None] * outer
        n = f[..., None] * n + i[..., None] * k_t
        numerator = (c * q_t.unsqueeze(-2)).sum(-1)
        denominator = (n * q_t).sum(-1).abs().clamp(min=1)
        outputs.append(numerator / denominator.unsqueeze(-1))
    return torch.stack(outputs, dim=2), c, n


def running_maximum(log_i: Tensor, log_f: Tensor, m: Tensor) -> Tensor:
    """Return the stabilizer (B, NH) after the last step: m = max(log_f + m, log_i)."""
    for t in range(log_i.shape[2]):
        m = torch.maximum(log_f[:, :, t] + m, log_i[:, :, t])
    return m


def decimal_mlstm(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, c: Tensor, n: Tensor
) -> Tensor:
    """Compute the same in decimals, whose exponents do not overflow; return h in float64."""

    def to_decimals(tensor: Tensor) -> list:
        return [
            to_decimals(part) if part.dim() else Decimal(part.item())
            for part in tensor.detach().double()
        ]

    def run_head(q: list, k: list, v: list, log_i: list, log_f: list, c: list, n: list) -> list:
        outputs = []
        for q_t, k_t, v_t, i, f in zip(
            q, k, v, (z.exp() for z in log_i), (z.exp() for z in log_f), strict=True
        ):
            c = [
                [f * old + i * a * b for old, b in zip(row, k_t, strict=True)]
                for row, a in zip(c, v_t, strict=True)
            ]
            n = [f * old + i * b for old, b in zip(n, k_t, strict=True)]
            denominator = max(abs(_dot(n, q_t)), Decimal(1))
            outputs.append([float(_dot(row, q_t) / denominator) for row in c])
        return outputs

    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 999_999, -999_999
        per_head = [
            [run_head(*head) for head in zip(*sample, strict=True)]
            for sample in zip(*map(to_decimals, (q, k, v, log_i, log_f, c, n)), strict=True)
        ]
    return torch.tensor(per_head, dtype=torch.float64)


def _dot(x: Sequence[Decimal], y: Sequence[Decimal]) -> Decimal:
    """Return the scalar product."""
    return sum((a * b for a, b in zip(x, y, strict=True)), Decimal(0))


def collapsed_mlstm(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a memory with the defect of the stock cell, which sums v kᵀ over the keys."""
    uniform = torch.full_like(k, 1 / k.shape[-1])
    return reference_mlstm(q, k.sum(-1, keepdim=True) * uniform, v, log_i, log_f, c, n)


def reference_cell(
    weights: Mapping[str, Tensor], num_heads: int, x: Tensor, c: Tensor, n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the cell, from its named parameters; x (B, input), c (B, NH, V, K), n (B, H)."""
    batch, hidden = n.shape
    head_dim = hidden // num_heads
    projected = x @ weights["projection.weight"].T + weights["projection.bias"]
    q, k, v, gates = projected.split([hidden, hidden, hidden, 2 * num_heads + hidden], dim=-1)
    if "norm_gates.weight" in weights:
        q = _normalize(q, weights, "norm_q")
        k = _normalize(k, weights, "norm_k")
        v = _normalize(v, weights, "norm_v")
        gates = _normalize(gates, weights, "norm_gates")
    i, f, o = gates.split([num_heads, num_heads, hidden], dim=-1)
    q, k, v, n = (part.reshape(batch, num_heads, 1, head_dim) for part in (q, k, v, n))
    h, c, n = reference_mlstm(
        q,
        k / math.sqrt(head_dim),
        v,
        (15 * torch.tanh(i / 15)).unsqueeze(-1),
        -torch.log1p(torch.exp(-f)).unsqueeze(-1),
        c,
        n.squeeze(2),
    )
    return h.reshape(batch, hidden) / (1 + torch.exp(-o)), c, n.reshape(batch, hidden)


def _normalize(z: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Layer normalization over the last axis, with gain and offset."""
    centered = z - z.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
