"""From the output of the network to forecasts in the scale of the data."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from pytorch_forecasting.metrics import (
    BetaDistributionLoss,
    DistributionLoss,
    LogNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_map_only

from ..link import Link
from .link import is_joint_over_horizon, link_of, primary_metrics, target_normalizers

__all__ = [
    "check_levels",
    "exit_inference_mode",
    "pack_targets",
    "point_forecast",
    "quantile_forecast",
    "read_levels",
    "rescale",
    "set_transformations",
    "sort_quantiles",
    "with_finite_rates",
]

#: Positions of the distribution parameters that pytorch-forecasting makes positive by softplus.
_POSITIVE: dict[type, tuple[int, ...]] = {
    NormalDistributionLoss: (1,),
    LogNormalDistributionLoss: (1,),
    NegativeBinomialDistributionLoss: (0, 1),
    BetaDistributionLoss: (1,),
}
#: Lower bound of these: softplus(-15) is 3e-7, a deviation that float32 can distinguish from 0.
_MIN_PARAMETER = -15.0

#: Inverses that pytorch-forecasting gets wrong by 1: it inverts log1p by exp(x), and "count", which
#: is softplus of y + 1, by softplus(x).
_INVERSE_TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "log1p": torch.expm1,
    "count": lambda x: x - 1,
}


def rescale(loss: Any, output: Tensor, target_scale: Tensor, normalizer: Any) -> Tensor:
    """Map the output of the network for one target to what its loss expects.

    Parameters
    ----------
    loss : Metric
        Primary metric of the target.
    output : Tensor
        Output of the network, (B, horizon, output_size).
    target_scale : Tensor
        Center and scale, (B, 2).
    normalizer : TorchNormalizer or NaNLabelEncoder
        Normalizer of the target.
    """
    if link_of(loss) is Link.LOG_RATE:
        return output * target_scale[:, None, 1:] + target_scale[:, None, :1]
    for kind, positive in _POSITIVE.items():
        if isinstance(loss, kind):
            columns = list(output.unbind(-1))
            for column in positive:
                columns[column] = _clamp_parameter(columns[column])
            output = torch.stack(columns, dim=-1)
    transformation = getattr(normalizer, "transformation", None)
    inverse = _INVERSE_TRANSFORMS.get(transformation) if isinstance(transformation, str) else None
    if inverse is not None and not isinstance(loss, DistributionLoss):  # which inverts itself
        scaled = output * target_scale[:, None, 1:] + target_scale[:, None, :1]
        return _clamp_at_zero(inverse(scaled))
    return loss.rescale_parameters(output, target_scale=target_scale, encoder=normalizer)


def _clamp_at_zero(y: Tensor) -> Tensor:
    """Clamp at 0 from below, with the gradient of the identity, so that training leads back."""
    return torch.where(y < 0, y - y.detach(), y)


def _clamp_parameter(parameter: Tensor) -> Tensor:
    """Clamp a parameter from below, where its softplus would underflow to 0, which is invalid.

    The gradient is that of the identity, so that training leads back.
    """
    limit = _MIN_PARAMETER + (parameter - parameter.detach())
    return torch.where(parameter < _MIN_PARAMETER, limit, parameter)


def set_transformations(loss: Any, output_transformer: Any) -> None:
    """Give each distribution the transformation of its target.

    pytorch-forecasting only does so in the first forecast, so that a loaded model could not convert
    an output that it did not compute itself.
    """
    metrics, normalizers = primary_metrics(loss), target_normalizers(output_transformer)
    for metric, normalizer in zip(metrics, normalizers, strict=False):
        if isinstance(metric, DistributionLoss):
            metric._transformation = getattr(normalizer, "transformation", None)


def point_forecast(loss: Any, prediction: Tensor, **kwargs: Any) -> Tensor:
    """Return the point forecast of one target.

    It is that of pytorch-forecasting, except for quantiles: they are brought in order, and without
    the median, where pytorch-forecasting fails, the two around 0.5 are interpolated linearly.
    """
    if isinstance(loss, QuantileLoss):
        prediction = sort_quantiles(prediction, loss.quantiles)
    if isinstance(loss, QuantileLoss) and 0.5 not in loss.quantiles:
        order = sorted(range(len(loss.quantiles)), key=loss.quantiles.__getitem__)
        above = next(n for n, index in enumerate(order) if loss.quantiles[index] > 0.5)
        lower, upper = order[above - 1], order[above]
        low, high = loss.quantiles[lower], loss.quantiles[upper]
        return torch.lerp(
            prediction[..., lower], prediction[..., upper], (0.5 - low) / (high - low)
        )
    try:
        return loss.to_prediction(prediction, **kwargs)
    except TypeError:  # as in pytorch-forecasting: not every loss takes all arguments
        return loss.to_prediction(prediction)


def quantile_forecast(
    loss: Any, prediction: Tensor, quantiles: Sequence[float], caller: str, **kwargs: Any
) -> Tensor:
    """Return the given quantiles of one target, whichever the loss was made with.

    A distribution has all quantiles. Those of a quantile loss are interpolated linearly between the
    levels that it was trained on.

    Parameters
    ----------
    loss : Metric
        Primary metric of the target.
    prediction : Tensor
        What the loss expects, (B, steps, output_size).
    quantiles : sequence of float
        Levels between 0 and 1.
    caller : str
        Name to begin the message with.
    **kwargs
        Arguments of a distribution's ``to_quantiles``, such as ``n_samples``.

    Returns
    -------
    Tensor
        Quantiles (B, steps, len(quantiles)).

    Raises
    ------
    ValueError
        If a level is not between 0 and 1, or outside of those that the loss was trained on, or if
        the loss makes no quantiles.
    """
    levels = read_levels(quantiles, caller)
    check_levels(loss, levels, caller)
    if isinstance(loss, DistributionLoss | PoissonLoss):
        values = loss.to_quantiles(prediction, quantiles=levels, **kwargs)
        return sort_quantiles(with_finite_rates(loss, prediction, values), levels)
    order = sorted(range(len(loss.quantiles)), key=loss.quantiles.__getitem__)
    trained = [float(loss.quantiles[index]) for index in order]
    known = prediction[..., order].sort(-1).values  # quantiles of a network may cross
    columns = []
    for level in levels:
        upper = next(number for number, other in enumerate(trained) if other >= level)
        lower = max(upper - 1, 0)
        span = trained[upper] - trained[lower]
        share = (level - trained[lower]) / span if span else 1.0
        columns.append(torch.lerp(known[..., lower], known[..., upper], share))
    return torch.stack(columns, dim=-1)


def with_finite_rates(loss: Any, prediction: Tensor, values: Tensor) -> Tensor:
    """Set quantiles to NaN where a Poisson rate is infinite: SciPy 1.15 returns 0 there.

    Parameters
    ----------
    loss : Metric
        Primary metric of the target.
    prediction : Tensor
        What the loss expects, (B, steps, output_size).
    values : Tensor
        Its quantiles, (B, steps, number of levels).
    """
    if not isinstance(loss, PoissonLoss):
        return values
    is_defined = loss.to_prediction(prediction).isfinite()[..., None]
    return values.where(is_defined, torch.nan)


def sort_quantiles(values: Tensor, levels: Sequence[float] | None) -> Tensor:
    """Bring quantiles into the order of their levels: those of a network may cross.

    This brings them no farther from the true quantiles (Chernozhukov et al. 2010,
    https://doi.org/10.3982/ECTA7880).

    Parameters
    ----------
    values : Tensor
        Quantiles, (B, steps, number of levels). Anything else is returned as it is.
    levels : sequence of float or None
        Their levels, in any order.

    Examples
    --------
    >>> sort_quantiles(torch.tensor([[[3.0, 1.0, 2.0]]]), [0.5, 0.1, 0.9])
    tensor([[[2., 1., 3.]]])
    """
    if levels is None or values.ndim != 3 or not 1 < len(levels) == values.shape[-1]:
        return values
    order = sorted(range(len(levels)), key=levels.__getitem__)
    rank = sorted(range(len(levels)), key=order.__getitem__)
    return values.sort(-1).values[..., rank]


def read_levels(quantiles: Any, caller: str) -> list[float]:
    """Return levels as a list of floats.

    Parameters
    ----------
    quantiles : iterable of float
        Levels, as a user passes them.
    caller : str
        Name to begin the message with.

    Raises
    ------
    TypeError
        If they are not numbers.

    Examples
    --------
    >>> read_levels(torch.tensor([0.25, 0.5]), "predict")
    [0.25, 0.5]
    """
    levels = quantiles.tolist() if isinstance(quantiles, Tensor) else quantiles
    if isinstance(levels, Iterable) and not isinstance(levels, str | bytes | dict):
        levels = list(levels)
        if all(isinstance(level, Real) and not isinstance(level, bool) for level in levels):
            return [float(level) for level in levels]
    raise TypeError(
        f"{caller}: quantiles must be a list of levels between 0 and 1, got {levels!r}; for "
        f"example [0.1, 0.9]."
    )


def check_levels(loss: Any, levels: list[float], caller: str) -> None:
    """Raise unless a loss can forecast these quantiles.

    Parameters
    ----------
    loss : Metric
        Primary metric of the target.
    levels : list of float
        Levels.
    caller : str
        Name to begin the message with.
    """
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(
            f"{caller}: quantiles must be levels between 0 and 1, got {levels}; for example [0.1, "
            f"0.9]."
        )
    if isinstance(loss, DistributionLoss | PoissonLoss):
        return
    if not isinstance(loss, QuantileLoss):
        raise ValueError(
            f"{caller}: quantiles need a QuantileLoss or a distribution, got a model with "
            f"{type(loss).__name__}, which forecasts a point; train with "
            f"loss=QuantileLoss({levels})."
        )
    trained = sorted(map(float, loss.quantiles))
    if not trained[0] <= min(levels) <= max(levels) <= trained[-1]:
        raise ValueError(
            f"{caller}: quantiles must be between the lowest and the highest that the model was "
            f"trained with, {trained[0]:g} and {trained[-1]:g}, got {levels}; train with a "
            f"QuantileLoss of these."
        )


def pack_targets(y: tuple[Any, Any], lengths: Tensor) -> tuple[Any, Any]:
    """Pack targets without their padding, as pytorch-forecasting does for a loss."""
    if lengths.min() == lengths.max():
        return y
    target, weight = y
    packed = [
        pack_padded_sequence(part, lengths.cpu(), batch_first=True, enforce_sorted=False)
        for part in (target if isinstance(target, list | tuple) else [target])
    ]
    return (packed if isinstance(target, list | tuple) else packed[0]), weight


def exit_inference_mode(loss: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, outside of inference mode if the loss needs gradients to forecast.

    MQF2 does. Lightning tests and predicts in inference mode, where there are no gradients.
    """
    needs_gradients = any(map(is_joint_over_horizon, primary_metrics(loss)))
    if not (torch.is_inference_mode_enabled() and needs_gradients):
        return function(*args, **kwargs)
    with torch.inference_mode(False), torch.no_grad():
        return function(*tree_map_only(Tensor, Tensor.clone, args), **kwargs)
