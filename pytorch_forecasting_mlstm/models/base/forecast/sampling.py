"""Draw values from the forecast of a step, for sample paths."""

from typing import Any

import numpy as np
import torch
from pytorch_forecasting.metrics import (
    CrossEntropy,
    DistributionLoss,
    ImplicitQuantileNetworkDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from pytorch_forecasting.metrics.base_metrics import MultivariateDistributionLoss
from torch import Tensor

from ..losses.output import exit_inference_mode, point_forecast

__all__ = ["can_sample", "draw", "draw_levels", "sample_quantiles"]

#: Transformations whose values also have an upper limit.
_BOUNDED_ABOVE = ("logit",)
#: Levels closer to 0 and 1 are not drawn: distributions would return infinities.
_MIN_LEVEL = 1e-6
#: Levels at which an implicit quantile function is evaluated.
_GRID = [level / 50 for level in range(1, 50)]
#: From this rate on, counts do not fit the 64 bits in which torch draws them.
_MAX_RATE = 2.0**62


def can_sample(loss: Any) -> bool:
    """Return whether the loss of a target forecasts more than a point."""
    if isinstance(loss, QuantileLoss):
        return len(loss.quantiles) > 1
    return isinstance(loss, DistributionLoss | PoissonLoss | CrossEntropy)


def draw_levels(correlation: Tensor, paths: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw levels between 0 and 1 for the steps of a block.

    Along each path they follow a Gaussian copula with the correlation of an autoregressive process
    of order 1. At each step, the levels of all paths are evenly spaced. All series share the random
    numbers, so that the forecast of a series does not depend on the others.

    Parameters
    ----------
    correlation : Tensor
        Correlation of neighboring steps for each series, (S,).
    paths, steps : int
        Numbers of paths P and of steps T.
    generator : torch.Generator
        Source of random numbers.

    Returns
    -------
    Tensor
        Levels (P, S, T).
    """
    noise = torch.randn(paths, 1, steps, generator=generator).expand(-1, len(correlation), -1)
    share = (1 - correlation.square()).sqrt()
    values = [noise[..., 0]]
    for step in range(1, steps):
        values.append(correlation * values[-1] + share * noise[..., step])
    ranks = torch.stack(values, dim=-1).argsort(0).argsort(0)
    return (ranks + 0.5) / paths


@torch.no_grad()
def draw(
    loss: Any, output: Tensor, levels: Tensor, normalizer: Any, generator: torch.Generator
) -> Tensor:
    """Draw one value for each step of each window.

    The values of distributions without quantile function come from torch's global generators,
    unless a :class:`~..seeded_draws.SeededDraws` is active.

    Parameters
    ----------
    loss : Metric
        Primary metric of the target.
    output : Tensor
        What the loss expects, (P S, T, output_size): path by path.
    levels : Tensor
        Result of `draw_levels`, (P, S, T).
    normalizer : TorchNormalizer or NaNLabelEncoder
        Normalizer of the target.
    generator : torch.Generator
        Source of random numbers for classes and counts.

    Returns
    -------
    Tensor
        Values in the unit of the data, or numbers of classes, (P, S, T). A loss that forecasts a
        point gives that point.
    """
    if isinstance(loss, CrossEntropy):
        uniform = torch.rand(levels.shape[0], 1, levels.shape[2], generator=generator)
        return _draw_classes(output.softmax(-1).reshape(*levels.shape, -1), uniform)
    if not can_sample(loss):
        return point_forecast(loss, output).reshape(levels.shape)
    flat = levels.flatten(0, 1).to(output)
    if isinstance(loss, QuantileLoss):
        transformation = getattr(normalizer, "transformation", None)
        values = sample_quantiles(output, list(loss.quantiles), flat, transformation)
    elif isinstance(loss, PoissonLoss):
        values = _draw_poisson(loss.to_prediction(output).cpu(), generator)
    else:
        values = exit_inference_mode(loss, _draw_from_distribution, loss, output, flat, levels)
    return values.reshape(levels.shape)


def _draw_poisson(rate: Tensor, generator: torch.Generator) -> Tensor:
    """Draw counts; those of the largest rates are the rates themselves, which differ little."""
    drawn = torch.poisson(rate.clamp(max=_MAX_RATE), generator=generator)
    return torch.where(rate < _MAX_RATE, drawn, rate)


def _draw_classes(probabilities: Tensor, uniform: Tensor) -> Tensor:
    reached = probabilities.cumsum(-1) <= uniform[..., None].to(probabilities)
    return reached.sum(-1).clamp(max=probabilities.shape[-1] - 1)


def _draw_from_distribution(loss: Any, output: Tensor, flat: Tensor, levels: Tensor) -> Tensor:
    if isinstance(loss, MultivariateDistributionLoss):  # over the series of one path
        parts = output.unflatten(0, levels.shape[:2])
        return torch.cat([loss.sample(part, 1)[..., 0] for part in parts])
    if isinstance(loss, ImplicitQuantileNetworkDistributionLoss):  # it draws one level for all
        known = loss.to_quantiles(output, quantiles=torch.tensor(_GRID).to(output))
        return sample_quantiles(known, _GRID, flat)
    try:
        return loss.map_x_to_distribution(output).icdf(flat.clamp(_MIN_LEVEL, 1 - _MIN_LEVEL))
    except NotImplementedError:
        return loss.sample(output, 1)[..., 0]


def sample_quantiles(
    output: Tensor, trained: list[float], levels: Tensor, transformation: Any = None
) -> Tensor:
    """Evaluate a quantile function that is known at some levels.

    It is interpolated linearly. Beyond the outermost levels it goes on with exponential tails,
    whose density continues that of the outermost intervals. For a normal distribution that is known
    at 0.1, 0.5 and 0.9, this preserves the variance to 3 percent. Where a transformation limits the
    values, there is no tail.

    Parameters
    ----------
    output : Tensor
        Quantiles (B, T, Q).
    trained : list of float
        Their levels, at least two, in any order.
    levels : Tensor
        Levels to evaluate, (B, T).
    transformation : str or dict, optional
        Transformation of the target.

    Returns
    -------
    Tensor
        Values (B, T).

    Examples
    --------
    >>> quantiles = torch.tensor([[[0.0, 10.0]]])
    >>> sample_quantiles(quantiles, [0.25, 0.75], torch.tensor([[0.5]]))
    tensor([[5.]])
    """
    order = np.argsort(trained, kind="stable")
    known = output.sort(-1).values  # quantiles of a network may cross
    at = torch.tensor(np.asarray(trained, float)[order]).to(output)
    upper = torch.searchsorted(at, levels.contiguous()).clamp(1, len(at) - 1)
    low, high = known.gather(-1, upper[..., None] - 1), known.gather(-1, upper[..., None])
    span = at[upper] - at[upper - 1]
    share = ((levels - at[upper - 1]) / span.clamp_min(_MIN_LEVEL)).clamp(0, 1)
    values = torch.lerp(low.squeeze(-1), high.squeeze(-1), share)
    has_low_tail = transformation is None
    has_high_tail = transformation is None or (
        isinstance(transformation, str) and transformation not in _BOUNDED_ABOVE
    )
    if has_low_tail:
        slope = (known[..., 1] - known[..., 0]) / (at[1] - at[0]).clamp_min(_MIN_LEVEL)
        depth = torch.log(at[0] / levels.clamp(_MIN_LEVEL)).clamp_min(0)
        values = values - slope * at[0] * depth
    if has_high_tail:
        slope = (known[..., -1] - known[..., -2]) / (at[-1] - at[-2]).clamp_min(_MIN_LEVEL)
        depth = torch.log((1 - at[-1]) / (1 - levels).clamp(_MIN_LEVEL)).clamp_min(0)
        values = values + slope * (1 - at[-1]) * depth
    return values
