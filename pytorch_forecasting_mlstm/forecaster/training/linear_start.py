"""Begin a training with a linear forecast, and keep near it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ...models import mLSTMTime
from .recipe import linear_rate_share
from .ridge import LinearStart


def start_at(model: mLSTMTime, start: LinearStart) -> None:
    """Let a new model forecast linearly, with quantiles at a fixed distance.

    Parameters
    ----------
    model : mLSTMTime
        The model, whose linear maps and output biases are replaced. What its memory adds is still
        near zero.
    start : LinearStart
        The linear forecast.
    """
    network = model.network
    for linear in network.linear_maps():
        linear.start_at(torch.as_tensor(start.weights, dtype=torch.float32))
    bias = network.residual_head.bias
    offsets = torch.as_tensor(start.offsets, dtype=bias.dtype)
    with torch.no_grad():
        bias.copy_(offsets.repeat(len(bias) // len(offsets)))


def optimizer_of(model: mLSTMTime, windows: int) -> Callable[..., torch.optim.Optimizer]:
    """Return what makes AdamW for a model, as pytorch-forecasting calls it.

    The linear maps learn slowly and do not decay, since a regression has found them. If they read
    more than the memory, they learn the more slowly, the fewer the windows.
    """
    lengths = model.hparams.max_encoder_length, model.hparams.memory_length
    share = linear_rate_share(windows, *lengths)

    def make(
        parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float, **options: Any
    ) -> torch.optim.Optimizer:
        linear = [weight for maps in model.network.linear_maps() for weight in maps.parameters()]
        known = {id(weight) for weight in linear}
        others = [weight for weight in parameters if id(weight) not in known]
        slow = {"params": linear, "lr": share * lr, "weight_decay": 0.0}
        groups: list[dict[str, Any]] = [{"params": others}, slow]
        # In a small model, one call for all tensors takes less time than one for each.
        if not options.get("fused"):  # torch takes only one of the two options
            options.setdefault("foreach", True)
        return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, **options)

    return make
