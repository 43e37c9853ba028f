"""A loss at its ends: no error at all, or one that is not finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_forecasting.metrics import RMSE
from pytorch_forecasting.utils import to_list
from torch import Tensor

from .factory import metrics_of, parts_of

__all__ = ["check_loss", "divergence_told", "keep_exact_fits"]

_MEND = (
    "train with a smaller learning_rate, with gradient_clip_val=1.0 in the Trainer, or with a loss "
    "or target_normalizer for data of this scale"
)


def keep_exact_fits(loss: Any, prediction: Tensor | list[Tensor], value: Tensor) -> None:
    """Let forecasts without any error be, which the gradient of a root would make NaN.

    The root of a mean square has no gradient at zero: autograd gives NaN for it, from which no
    weight recovers. Constant series of a high level, where float32 has no number between the
    forecast and the target, get there at once. Zero, its minimum, takes the place.

    Parameters
    ----------
    loss : Metric
        Loss of the model.
    prediction : Tensor or list of Tensor
        What the loss was taken of, for each target.
    value : Tensor
        The loss. Where it is not finite, gradients stay what they are.
    """

    def without_nan(gradient: Tensor) -> Tensor:
        exact = value.isfinite() & gradient.isnan()
        return gradient.masked_fill(exact, 0.0)

    for part, output in zip(parts_of(loss), to_list(prediction), strict=True):
        if output.requires_grad and any(isinstance(metric, RMSE) for metric in metrics_of(part)):
            output.register_hook(without_nan)


@contextmanager
def divergence_told() -> Iterator[None]:
    """Name a network whose output is no number, where torch names a parameter of a distribution.

    Raises
    ------
    ValueError
        If a distribution is made of NaN or inf.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected parameter "):
            raise
        raise ValueError(
            f"mLSTMTime: the network's output must be finite, got NaN or inf from weights or "
            f"inputs that are far off; {_MEND}. ({str(error).splitlines()[0]})"
        ) from error


def check_loss(value: Tensor) -> None:
    """Raise if there is nothing to learn from: the host puts a constant for a loss that is NaN.

    Parameters
    ----------
    value : Tensor
        Loss of a training step.

    Raises
    ------
    ValueError
        If it has no gradient.
    """
    if torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(
            f"mLSTMTime: the loss of a training step must be finite, got NaN or inf from a batch "
            f"without any; {_MEND}."
        )
