"""Losses of ``torch.nn`` as metrics of pytorch-forecasting."""

from copy import deepcopy
from typing import Any, NoReturn

from pytorch_forecasting.metrics import MultiHorizonMetric
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from ...._upstream import NNLossAdapter

__all__ = ["NNLoss", "check_adapted_loss", "is_nn_loss", "unwrap_nn_loss", "wrap_nn_loss"]

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

    It stands in for ``NNLossAdapter``, which pytorch-forecasting has from 1.9 on.

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


def wrap_nn_loss(loss: nn.Module, caller: str) -> MultiHorizonMetric:
    """Turn a loss of ``torch.nn`` into a metric.

    Parameters
    ----------
    loss : nn.Module
        What the user passes.
    caller : str
        Name to begin the message with.

    Returns
    -------
    MultiHorizonMetric
        An ``NNLossAdapter`` of pytorch-forecasting where there is one, and else an `NNLoss`.

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
    if NNLossAdapter is None:
        return NNLoss(loss)
    adapter: MultiHorizonMetric = NNLossAdapter(loss, name=type(loss).__name__)
    return adapter


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


def unwrap_nn_loss(metric: Any) -> Any:
    """Return the loss of ``torch.nn`` that a metric adapts, or the metric itself."""
    if isinstance(metric, NNLoss):
        return metric.nn_loss
    if NNLossAdapter is not None and isinstance(metric, NNLossAdapter):
        return metric._loss
    return metric


def check_adapted_loss(metric: Any, caller: str) -> None:
    """Raise if the user has adapted a loss of ``torch.nn`` that is not one of points.

    Parameters
    ----------
    metric : Metric
        What the user passes.
    caller : str
        Name to begin the message with.

    Raises
    ------
    TypeError
        If it adapts another loss.
    """
    adapted = unwrap_nn_loss(metric)
    if adapted is not metric and type(adapted) not in _ELEMENTWISE:
        _raise_unsupported(adapted, caller)
