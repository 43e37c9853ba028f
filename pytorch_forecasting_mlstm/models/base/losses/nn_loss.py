"""Losses of ``torch.nn`` as metrics of pytorch-forecasting."""

from copy import deepcopy
from typing import Any, NoReturn

from pytorch_forecasting.metrics import MultiHorizonMetric
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

__all__ = ["NNLoss", "is_nn_loss", "wrap_nn_loss"]

#: Losses of two tensors of equal shape, whose terms can be masked and weighted step by step.
_ELEMENTWISE = (nn.HuberLoss, nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss)
#: What pytorch-forecasting has in the place of others.
_EQUIVALENTS = {
    nn.PoissonNLLLoss: "PoissonLoss()",
    nn.GaussianNLLLoss: "NormalDistributionLoss()",
    nn.CrossEntropyLoss: "CrossEntropy()",
    nn.NLLLoss: "CrossEntropy()",
    nn.BCELoss: "CrossEntropy()",
    nn.BCEWithLogitsLoss: "CrossEntropy()",
}


class NNLoss(MultiHorizonMetric):
    """A loss of ``torch.nn`` on point forecasts, averaged over the valid steps of a batch.

    Parameters
    ----------
    nn_loss : nn.Module
        ``nn.HuberLoss``, ``nn.L1Loss``, ``nn.MSELoss`` or ``nn.SmoothL1Loss``. It is copied.
    """

    def __init__(self, nn_loss: nn.Module) -> None:
        super().__init__(name=type(nn_loss).__name__)
        copied: Any = deepcopy(nn_loss)
        copied.reduction = "none"
        self.nn_loss = copied

    def loss(self, y_pred: Any, target: Tensor) -> Tensor:
        """Return the loss of every step."""
        return self.nn_loss(self.to_prediction(y_pred), target)


def wrap_nn_loss(loss: nn.Module, caller: str) -> NNLoss:
    """Turn a loss of ``torch.nn`` into a metric.

    Parameters
    ----------
    loss : nn.Module
        What the user passes.
    caller : str
        Name to begin the message with.

    Raises
    ------
    TypeError
        If the loss is not one of points.
    ValueError
        If it does not average.
    """
    if type(loss) not in _ELEMENTWISE:
        _raise_unsupported(loss, caller)
    if loss.reduction != "mean":
        raise ValueError(
            f"{caller}: {type(loss).__name__} must have reduction='mean', because horizons may "
            f"differ in length, got {loss.reduction!r}; leave it out."
        )
    return NNLoss(loss)


def _raise_unsupported(loss: nn.Module, caller: str) -> NoReturn:
    names = ", ".join(f"nn.{kind.__name__}" for kind in _ELEMENTWISE)
    instead = _EQUIVALENTS.get(type(loss), "MAE()")
    raise TypeError(
        f"{caller}: of torch.nn, a loss must be one of {names}, got {type(loss).__name__}; pass a "
        f"metric of pytorch_forecasting, {instead} for example."
    )


def is_nn_loss(loss: Any) -> bool:
    """Return whether a loss is one of ``torch.nn``."""
    return isinstance(loss, _Loss)
