"""The gradient of the returned m, the scale that the returned c and n were divided by.

The scale is the largest of all logarithmic weights, so its gradient goes to one step and to the
forget gates after it. Dimensions: B batch, NH heads, T time, K key, V value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .stabilization import LOG_EMPTY

__all__ = ["scale_gradients"]


def scale_gradients(
    log_i: Tensor,
    log_f: Tensor,
    m: Tensor,
    last_c: Tensor,
    last_n: Tensor,
    grad_c: Tensor | None,
    grad_n: Tensor | None,
    grad_m: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the gradients of log_i, log_f and the first m through the scale of the last state.

    Returns None if the last state has no gradient.
    """
    if grad_c is None and grad_n is None and grad_m is None:
        return None
    total = last_c.new_zeros(m.shape)
    if grad_m is not None:
        total = total + grad_m
    if grad_c is not None:
        total = total - (grad_c * last_c).sum((-2, -1))
    if grad_n is not None:
        total = total - (grad_n * last_n).sum(-1)
    return _running_max_bwd(log_i, log_f, m, total)


def _running_max_bwd(
    log_i: Tensor, log_f: Tensor, m: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Route the gradient of the last m, (B, NH), to the maximal step and the gates after it."""
    decay = log_f.flip(-1).cumsum(-1).flip(-1)  # [t]: log_f from t to the end
    log_i = torch.cat([m[..., None], log_i], dim=-1) + F.pad(decay, (0, 1))
    top = log_i.amax(-1, keepdim=True)
    chosen = (log_i == top) & (top > LOG_EMPTY)
    share = grad[..., None] * chosen / chosen.sum(-1, keepdim=True).clamp_min(1)
    return share[..., 1:], share.cumsum(-1)[..., :-1], share[..., 0]
