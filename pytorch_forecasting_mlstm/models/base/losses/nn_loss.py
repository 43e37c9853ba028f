"""Losses of ``torch.nn`` as metrics of pytorch-forecasting."""

from copy import deepcopy
from typing import Any, NoReturn

from pytorch_forecasting.metrics import MultiHorizonMetric
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from ...._safe_files.safe_globals import safe_class
from ...._upstream import NNLossAdapter

__all__ = ["NNLoss", "is_nn_loss", "unwrap_nn_loss", "wrap_nn_loss"]

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


class _PointLossAdapter(MultiHorizonMetric):
    """What ``NNLossAdapter`` is for point forecasts, before pytorch-forecasting 1.9.

    Its attributes have the same names, so that files of either are read by the other.
    """

    _loss: Any
    _mode: Any

    def __init__(self, loss: nn.Module, name: str, reduction: str) -> None:
        super().__init__(name=name, reduction=reduction)
        self._loss = deepcopy(loss)
        self._loss.reduction = "none"
        self._mode = "point"

    def loss(self, y_pred: Any, target: Tensor) -> Tensor:
        """Return the loss of every step."""
        return self._loss(self.to_prediction(y_pred), target)


_Adapter: Any = NNLossAdapter or _PointLossAdapter


@safe_class
class NNLoss(_Adapter):
    """A loss of ``torch.nn`` on point forecasts, averaged over the valid steps of a batch.

    It is the ``NNLossAdapter`` of pytorch-forecasting where there is one. That class cannot be
    printed, copied or pickled. Its description shows the attribute of the name of each argument:
    for the argument ``loss`` this is a method, whose description is again that of the class. Here
    the argument has another name, that of the attribute with the adapted loss.

    Parameters
    ----------
    nn_loss : nn.Module
        ``nn.HuberLoss``, ``nn.L1Loss``, ``nn.MSELoss`` or ``nn.SmoothL1Loss``. It is copied.
    name : str or None, default=None
        Name that the loss is logged under. None: that of the class of ``nn_loss``.
    """

    def __init__(self, nn_loss: nn.Module, name: str | None = None) -> None:
        name = type(nn_loss).__name__ if name is None else name
        super().__init__(nn_loss, name=name, reduction="mean")

    @property
    def nn_loss(self) -> Any:
        """The loss that is adapted."""
        return self._loss


def wrap_nn_loss(loss: Any, caller: str) -> NNLoss:
    """Turn a loss of ``torch.nn`` into a metric.

    Parameters
    ----------
    loss : nn.Module
        What the user passes: one of ``torch.nn``, or an ``NNLossAdapter`` of one, whose name is
        kept.
    caller : str
        Name to begin the message with.

    Raises
    ------
    TypeError
        If the loss is not one of points, or is a subclass of ``NNLossAdapter``, which may compute
        something else.
    ValueError
        If it does not average.
    """
    adapted = unwrap_nn_loss(loss)
    if isinstance(adapted, _Adapter):
        raise TypeError(
            f"{caller}: a loss of torch.nn must be adapted by NNLossAdapter itself, got its "
            f"subclass {type(loss).__name__}; pass a subclass of MultiHorizonMetric instead."
        )
    if type(adapted) not in _ELEMENTWISE:
        _raise_unsupported(adapted, caller)
    if loss.reduction != "mean":
        raise ValueError(
            f"{caller}: {type(adapted).__name__} must have reduction='mean', because horizons may "
            f"differ in length, got {loss.reduction!r}; leave it out."
        )
    return NNLoss(adapted, name=None if adapted is loss else loss.name)


def _raise_unsupported(loss: nn.Module, caller: str) -> NoReturn:
    names = ", ".join(f"nn.{kind.__name__}" for kind in _ELEMENTWISE)
    instead = _EQUIVALENTS.get(type(loss), "MAE()")
    raise TypeError(
        f"{caller}: of torch.nn, a loss must be one of {names}, got {type(loss).__name__}; pass a "
        f"metric of pytorch_forecasting, {instead} for example."
    )


def is_nn_loss(loss: Any) -> bool:
    """Return whether a loss is one of ``torch.nn``, or adapts one."""
    return isinstance(loss, _Loss | _Adapter)


def unwrap_nn_loss(metric: Any) -> Any:
    """Return the loss of ``torch.nn`` that a metric adapts, or the metric itself.

    A subclass of an adapter is returned as it is, for its method ``loss`` may be another.
    """
    return metric._loss if type(metric) in (NNLossAdapter, NNLoss) else metric
