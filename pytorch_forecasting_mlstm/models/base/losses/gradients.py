"""Losses at their limits: exact forecasts, and values that are not finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_forecasting.metrics import RMSE, DistributionLoss
from pytorch_forecasting.utils import to_list
from torch import Tensor

from .link import component_metrics, per_target_losses

__all__ = [
    "check_loss_finite",
    "check_parameters_finite",
    "explain_nonfinite_output",
    "zero_nan_gradients",
]

_HINT = (
    "train with a smaller learning_rate, with gradient_clip_val=1.0 in the Trainer, or with a loss "
    "or target_normalizer for data of this scale"
)


def zero_nan_gradients(loss: Any, prediction: Tensor | list[Tensor], value: Tensor) -> None:
    """Zero the NaN gradients of exact forecasts: sqrt has no derivative at 0.

    With RMSE, autograd returns NaN for an exact forecast, which makes all weights NaN. Constant
    series of a high level reach this at once: float32 has no number between the forecast and the
    target. Zero is right, since the loss is at its minimum.

    Parameters
    ----------
    loss : Metric
        Loss of the model.
    prediction : Tensor or list of Tensor
        Input of the loss, for each target. Its gradients are changed.
    value : Tensor
        Value of the loss. If it is not finite, gradients are left as they are.
    """

    def zero_nan(gradient: Tensor) -> Tensor:
        exact = value.isfinite() & gradient.isnan()
        return gradient.masked_fill(exact, 0.0)

    for part, output in zip(per_target_losses(loss), to_list(prediction), strict=True):
        has_root = any(isinstance(metric, RMSE) for metric in component_metrics(part))
        if output.requires_grad and has_root:
            output.register_hook(zero_nan)


@contextmanager
def explain_nonfinite_output(caller: str) -> Iterator[None]:
    """Explain that the network diverged if torch rejects a parameter of a distribution.

    Parameters
    ----------
    caller : str
        Name to begin the message with.

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
        raise _nonfinite_output(caller, str(error).splitlines()[0]) from error


def check_parameters_finite(loss: Any, parameters: Tensor, caller: str) -> None:
    """Raise if a parameter of a distribution is not finite.

    Torch checks this as well, but no longer in a process that has used ``torch.compile``.

    Parameters
    ----------
    loss : Metric
        Loss of one target.
    parameters : Tensor
        Parameters of the distribution.
    caller : str
        Name to begin the message with.
    """
    if not isinstance(loss, DistributionLoss) or torch.compiler.is_compiling():
        return
    finite = parameters.detach().isfinite()
    if not finite.all():
        count = int((~finite).sum())
        problem = f"{count} of {finite.numel()} parameters of {type(loss).__name__}"
        raise _nonfinite_output(caller, problem)


def _nonfinite_output(caller: str, problem: str) -> ValueError:
    return ValueError(
        f"{caller}: the network's output must be finite, got NaN or inf: its weights or inputs "
        f"are out of range; {_HINT}. ({problem})"
    )


def check_loss_finite(value: Tensor, caller: str) -> None:
    """Raise if the loss of a training step is not finite.

    In this case pytorch-forecasting replaces the loss by a constant, which trains nothing.

    Parameters
    ----------
    value : Tensor
        Loss of a training step.
    caller : str
        Name to begin the message with.

    Raises
    ------
    ValueError
        If it has no gradient.
    """
    if torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(
            f"{caller}: the loss of a training step must be finite, got NaN or inf although the "
            f"batch is finite; {_HINT}."
        )
