"""Series upside down: in training the model sees half of them so, that it learns no drift by heart.

Training data of few years drift: they end lower than they began, or fell in the one autumn that
they hold. Upside down they drift the other way, and what is left to learn is what the shape of a
history tells of its future.
"""

from typing import Any

import torch
from pytorch_forecasting.metrics import MAE, MASE, RMSE
from torch import Tensor

from ..base.losses.factory import (
    metrics_of,
    normalizers_of,
    parts_of,
)
from .targets import TargetPast

__all__ = ["check_can_be_turned", "draw_turned", "mirrored", "mirrored_past", "one_sided_part"]


def one_sided_part(loss: Any, output_transformer: Any) -> Any:
    """Return the first part of a loss that does not treat both signs of its target alike, or None.

    The forecast that is best by absolute errors, the median, goes with its target through any
    transformation; that by squared errors, the mean, through none.
    """
    for part, normalizer in zip(parts_of(loss), normalizers_of(output_transformer), strict=False):
        even = (MAE, MASE) if getattr(normalizer, "transformation", None) else (MAE, MASE, RMSE)
        for metric in metrics_of(part):
            if type(metric) not in even:  # what is derived from them may be anything
                return metric
    return None


def check_can_be_turned(covariates: list[str], loss: Any, output_transformer: Any) -> None:
    """Raise a ValueError unless samples can be turned upside down."""
    part = one_sided_part(loss, output_transformer)
    if covariates:
        why = f"the covariates {covariates} are not turned with the target"
    elif part is not None:
        why = f"{part!r} does not treat both signs of this target alike"
    else:
        return
    raise ValueError(
        f"mLSTMTime: random_sign_flip must be False here, as {why}, got True; leave it out."
    )


def draw_turned(targets: list[TargetPast]) -> list[Tensor]:
    """Draw whether to turn a sample: for each target (B, 1, 1), False where it does not vary.

    A history that does not vary is its own mirror image, and must not be shown two futures.
    """
    features = targets[0].features
    turned = torch.rand(len(features), 1, 1, device=features.device) < 0.5
    drawn = []
    for target in targets:
        assert target.scale is not None, "the loss of classes has a side"
        drawn.append(turned & target.scale.varies[..., None])
    return drawn


def mirrored_past(past: TargetPast, turned: Tensor) -> TargetPast:
    """Turn the past of a real target upside down, where ``turned`` (B, 1, 1)."""
    return past._replace(
        features=mirrored(past.features, turned), paths=mirrored(past.paths, turned[..., None])
    )


def mirrored(x: Tensor, turned: Tensor) -> Tensor:
    """Change the sign of x, where ``turned``."""
    return torch.where(turned, -x, x)
