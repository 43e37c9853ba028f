"""Series upside down: in training the model sees half of them so, that it learns no drift by heart.

A window and its mirror image at the window's mean are equally likely, as far as a model that reads
the history alone should know. Training data of few years say otherwise: they end lower than they
began, or every autumn falls. What comes of it is learnt by heart, and does not hold after them.
"""

import math
from typing import Any, NamedTuple

import torch
from pytorch_forecasting.metrics import (
    MAE,
    MASE,
    RMSE,
    MultiLoss,
    NormalDistributionLoss,
    QuantileLoss,
)
from pytorch_forecasting.metrics.base_metrics import CompositeMetric
from torch import Tensor

from pytorch_forecasting_mlstm.models.mlstm_time._targets import TargetPast

__all__ = ["Mirror", "draw", "mirrored_forecasts", "mirrored_past", "mirrors_of"]


class Mirror(NamedTuple):
    """How the numbers that a loss takes turn where the target turns its sign.

    Attributes
    ----------
    order : tuple of int
        Where each of them comes from: the lowest quantile from the highest.
    signs : tuple of int
        What it is multiplied by: a deviation keeps its sign.
    """

    order: tuple[int, ...]
    signs: tuple[int, ...]


def mirrors_of(loss: Any) -> list[Mirror | None]:
    """Return the mirror of the loss of every target; None for one that does not treat signs alike.

    Squares and absolute values do, and quantiles in pairs; rates and percentages have one sign, and
    a forecast that is best by them lies to one side.
    """
    return [_mirror_of(part) for part in (loss.metrics if isinstance(loss, MultiLoss) else [loss])]


def _mirror_of(loss: Any) -> Mirror | None:
    if isinstance(loss, CompositeMetric):
        parts = {_mirror_of(part) for part in loss._metrics}
        return parts.pop() if len(parts) == 1 else None
    if type(loss) in (MAE, RMSE, MASE):  # not what is derived from them
        return Mirror((0,), (-1,))
    if type(loss) is NormalDistributionLoss:
        return Mirror((0, 1), (-1, 1))
    if type(loss) is QuantileLoss:
        quantiles = list(loss.quantiles)
        order = tuple(
            other
            for quantile in quantiles
            for other, opposite in enumerate(quantiles)
            if math.isclose(quantile, 1 - opposite)
        )
        if sorted(order) == list(range(len(quantiles))):
            return Mirror(order, (-1,) * len(order))
    return None


def draw(samples: int, device: torch.device) -> Tensor:
    """Draw for every sample whether it is turned, (B, 1, 1)."""
    return torch.rand(samples, 1, 1, device=device) < 0.5


def mirrored_past(past: TargetPast, turned: Tensor) -> TargetPast:
    """Turn the past of a real target, where ``turned`` (B, 1, 1)."""
    return past._replace(
        features=torch.where(turned, -past.features, past.features),
        paths=torch.where(turned[..., None], -past.paths, past.paths),
    )


def mirrored_forecasts(outputs: list[Tensor], turned: Tensor, loss: Any) -> list[Tensor]:
    """Turn the network's output of every target, (B, steps, output_size), back."""
    upright = []
    for output, mirror in zip(outputs, mirrors_of(loss), strict=True):
        assert mirror is not None, "a model of such a loss turns no samples"
        signs = torch.tensor(mirror.signs, dtype=output.dtype, device=output.device)
        upright.append(torch.where(turned, output[..., list(mirror.order)] * signs, output))
    return upright
