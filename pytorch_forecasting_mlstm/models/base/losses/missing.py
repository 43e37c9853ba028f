"""Losses and metrics of targets that are missing (NaN) at some steps: means over the others."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from pytorch_forecasting.metrics import (
    MASE,
    MQF2DistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
)
from pytorch_forecasting.metrics.base_metrics import AggregationMetric, CompositeMetric
from pytorch_forecasting.utils import to_list, unpack_sequence
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..padding import valid_steps

__all__ = ["WITHOUT_STEPS", "has_missing", "observed_loss", "observed_share", "skip_missing"]

#: Losses that average over a batch, or treat a forecast as one vector: they have no loss per step.
WITHOUT_STEPS = (AggregationMetric, MultivariateNormalDistributionLoss, MQF2DistributionLoss)


def has_missing(*targets: Any) -> bool:
    """Return whether a value of any target is missing. On an accelerator, this waits for it."""
    return any(bool(_values(part).isnan().any()) for group in targets for part in _parts(group))


@contextmanager
def skip_missing(metrics: Iterable[Any]) -> Iterator[None]:
    """Make metrics skip the steps at which the target is missing.

    Parameters
    ----------
    metrics : iterable of Metric
        Losses or metrics to log.
    """
    metrics = list(metrics)
    for metric in metrics:
        metric.forward = partial(observed_loss, metric)
    try:
        yield
    finally:
        for metric in metrics:
            del metric.forward


def observed_share(y: Any) -> float:
    """Return the share of a batch's steps, padding left out, at which the target is observed."""
    observed = [~_values(part).isnan() for part in _parts(y)]
    total = sum(part.numel() for part in observed)
    return sum(int(part.sum()) for part in observed) / max(total, 1)


def observed_loss(
    loss: Any,
    prediction: Any,
    y: Any,
    encoder_target: Any = None,
    encoder_lengths: Tensor | None = None,
) -> Tensor:
    """Compute a loss over the steps at which the target is observed.

    Parameters
    ----------
    loss : Metric
        The loss, or a metric to log.
    prediction : Tensor or list of Tensor
        What the loss of each target expects, (B, steps, output_size), or (B, steps).
    y : tuple
        Target, or list of targets, and weight; or the target alone. A target is padded or packed.
    encoder_target, encoder_lengths : optional
        History of each target, and lengths, which MASE needs.

    Returns
    -------
    Tensor
        The loss. It is 0, with gradients of 0, if no step is observed.
    """
    target, weight = y if isinstance(y, tuple | list) else (y, None)
    if isinstance(loss, MultiLoss | CompositeMetric):
        several = isinstance(loss, MultiLoss)
        parts, weights = (loss.metrics, loss.weights) if several else (loss._metrics, loss._weights)
        terms = [
            factor
            * observed_loss(
                part,
                prediction[number] if several else prediction,
                (target[number] if several else target, weight),
                encoder_target[number]
                if several and encoder_target is not None
                else encoder_target,
                encoder_lengths,
            )
            for number, (part, factor) in enumerate(zip(parts, weights, strict=True))
        ]
        return torch.stack(terms).sum(0)
    values, lengths = _unpack(target)
    valid = valid_steps(lengths, values.shape[1])
    observed = valid & ~values.isnan()
    if isinstance(loss, WITHOUT_STEPS):
        if not (valid & ~observed).any():
            return type(loss).forward(loss, prediction, y)
        raise ValueError(
            f"{type(loss).__name__} must be given a target at every step, got "
            f"{int((valid & ~observed).sum())} of {int(valid.sum())} that are missing (NaN); fill "
            f"them in, or pass a loss of single steps, for example NormalDistributionLoss()."
        )
    scaling = None
    if isinstance(loss, MASE):
        scaling = _mase_scaling(values, observed, encoder_target, encoder_lengths)
        observed = observed & scaling.isfinite()[:, None]
    if not observed.any():
        return prediction.sum() * 0
    # each step becomes a sample of one step: no loss of single steps can tell the difference
    steps = prediction[observed].unsqueeze(1)
    if weight is not None:
        weight = weight.expand_as(values) if weight.ndim == 2 else weight[:, None].expand_as(values)
        weight = weight[observed].unsqueeze(1)
    packed = values[observed].unsqueeze(1), weight
    if scaling is None:
        return type(loss).forward(loss, steps, packed)
    return _mase(loss, steps, packed, scaling[:, None].expand_as(values)[observed])


def _mase(loss: MASE, steps: Tensor, packed: tuple[Tensor, Any], scaling: Tensor) -> Tensor:
    """Compute MASE of single steps with the given scaling."""
    loss.calculate_scaling = lambda *_: scaling
    try:
        # it reads only the scaling; a history of one step lets it pass its own check
        lengths = torch.ones(len(steps), dtype=torch.long, device=steps.device)
        return type(loss).forward(
            loss, steps, packed, encoder_target=packed[0], encoder_lengths=lengths
        )
    finally:
        del loss.calculate_scaling


def _mase_scaling(
    values: Tensor, observed: Tensor, history: Tensor, history_lengths: Any
) -> Tensor:
    """Return the mean absolute change of each window, over steps of which both ends are observed.

    Without missing values it is that of pytorch-forecasting, which divides by one more than the
    number of changes. It is infinite if no change is observed: such a window counts nothing.
    """
    if history_lengths is None:
        history_lengths = torch.full((len(history),), history.shape[1], device=history.device)
    history_observed = valid_steps(history_lengths, history.shape[1]) & ~history.isnan()
    series = torch.cat([history, values.to(history.dtype)], dim=1)
    both = torch.cat([history_observed, observed], dim=1)
    # the horizon follows the last valid step of the history
    size = series.shape[1]
    step = torch.arange(size, device=series.device)
    lengths = history_lengths[:, None]
    source = torch.where(step < lengths, step, step - lengths + history.shape[1])
    inside = source < size
    source = source.clamp(max=size - 1)
    series, both = series.gather(1, source), both.gather(1, source) & inside
    changed = both[:, 1:] & both[:, :-1]
    change = (series[:, 1:] - series[:, :-1]).abs().masked_fill(~changed, 0).sum(1)
    count = changed.sum(1)
    return (change / (count + 1) + 1e-6).masked_fill(count == 0, torch.inf)


def _parts(y: Any) -> list[Any]:
    return [y] if isinstance(y, PackedSequence | Tensor) else to_list(y)


def _values(target: Any) -> Tensor:
    return target.data if isinstance(target, PackedSequence) else target


def _unpack(target: Any) -> tuple[Tensor, Tensor]:
    if isinstance(target, PackedSequence):
        values, lengths = unpack_sequence(target)
        return values, lengths.to(values.device)
    return target, torch.full((len(target),), target.shape[1], device=target.device)
