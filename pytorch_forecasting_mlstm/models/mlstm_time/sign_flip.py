"""Random sign flips: in training, each sample is negated with probability 0.5.

Training data that cover few years drift in one direction: they may end lower than they began, or
contain a single autumn. Negated samples drift the other way, so a model can learn what the shape of
a history says about the horizon, but not the drift.
"""

from typing import Any

import torch
from pytorch_forecasting.metrics import MAE, MASE, RMSE
from torch import Tensor, nn

from ..base.losses.link import component_metrics, per_target_losses, target_normalizers
from ..base.losses.nn_loss import unwrap_nn_loss

#: Losses that treat both signs alike, and whose best forecast is the median, or another center.
_MEDIAN = (MAE, MASE, nn.L1Loss)
_MEAN = (RMSE, nn.HuberLoss, nn.MSELoss, nn.SmoothL1Loss)

__all__ = ["check_flip_supported", "find_asymmetric_metric", "sample_flip_mask"]


def find_asymmetric_metric(loss: Any, output_transformer: Any) -> Any:
    """Return the first metric of a loss that depends on the sign of its target, or None.

    The median minimizes absolute errors, and any monotone transformation preserves it. The mean
    minimizes squared errors, and no nonlinear transformation preserves it.
    """
    losses, normalizers = per_target_losses(loss), target_normalizers(output_transformer)
    for part, normalizer in zip(losses, normalizers, strict=False):
        transformed = getattr(normalizer, "transformation", None)
        symmetric = _MEDIAN if transformed else _MEDIAN + _MEAN
        for metric in component_metrics(part):
            # a subclass may be anything
            if type(unwrap_nn_loss(metric)) not in symmetric:
                return metric
    return None


def check_flip_supported(covariates: list[str], loss: Any, output_transformer: Any) -> None:
    """Raise a ValueError unless the signs of samples can be flipped."""
    metric = find_asymmetric_metric(loss, output_transformer)
    if covariates:
        reason = f"the covariates {covariates} are not negated with the target"
    elif metric is not None:
        reason = f"{metric!r} does not treat both signs of this target alike"
    else:
        return
    raise ValueError(
        f"mLSTMTime: random_sign_flip must be False here, as {reason}, got True; leave it out."
    )


def sample_flip_mask(batch_size: int, device: torch.device) -> Tensor:
    """Draw the samples to negate, bool, (B, 1, 1)."""
    return torch.rand(batch_size, 1, 1, device=device) < 0.5
