"""Whether a loss works on a dataset: everything that would go wrong later is said at once."""

import warnings
from typing import Any, NoReturn

import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder, TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    BetaDistributionLoss,
    CrossEntropy,
    DistributionLoss,
    LogNormalDistributionLoss,
    MQF2DistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import (
    AggregationMetric,
    CompositeMetric,
)
from pytorch_forecasting.metrics.base_metrics._base_metrics import TorchMetricWrapper
from torch import Tensor
from torch.distributions import constraints
from torchmetrics import Metric

from ..losses.factory import (
    fresh_loss,
    link_of,
    metrics_of,
    normalizers_of,
    output_size_of,
    pack_targets,
    parts_of,
)
from .fills import target_fills

__all__ = ["check_logged_metrics", "check_losses", "try_loss"]

#: What distributions need of the normalizer: one of these transformations, and a center or none.
_NEEDS: tuple[tuple[type, tuple[str | None, ...], bool | None], ...] = (
    (
        NegativeBinomialDistributionLoss,
        # not "sqrt": the host multiplies means by the scale of the roots
        (None, "log1p", "softplus", "relu", "count"),
        False,
    ),
    (LogNormalDistributionLoss, ("log", "log1p"), None),
    (BetaDistributionLoss, ("logit",), True),
)
#: Losses that average over a batch, or see a forecast as one vector: steps cannot be told apart.
_NO_STEPS = (AggregationMetric, MultivariateNormalDistributionLoss, MQF2DistributionLoss)
#: Losses that cannot weigh steps; the host would fail on them, or take weights for something else.
_NO_WEIGHTS = (*_NO_STEPS, MASE, TorchMetricWrapper)
#: Distributions of which the host transforms samples, so that a target must be among its images.
_TRANSFORMED = (
    NormalDistributionLoss,
    MultivariateNormalDistributionLoss,
    MQF2DistributionLoss,
)
_NOT_NEGATIVE = (LogNormalDistributionLoss, PoissonLoss, TweedieLoss)


def check_losses(loss: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if the loss of a target cannot work with the dataset."""
    normalizers = normalizers_of(dataset.target_normalizer)
    values, fills = dataset.data["target"], target_fills(dataset)
    for name, part, normalizer, target in zip(
        dataset.target_names, parts_of(loss), normalizers, values, strict=True
    ):
        if isinstance(part, CompositeMetric):
            _check_composite(part, normalizer, dataset.multi_target)
        for single in metrics_of(part):
            _check_loss(single, normalizer)
            _check_steps(single, normalizer, dataset)
            _check_values(single, normalizer, name, target)
            if name in fills:
                _check_fill(single, normalizer, name, fills[name])


def check_logged_metrics(metrics: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if a metric to log cannot weigh steps, or leave out padded ones, and would have to."""
    for metric in metrics:
        for part in metrics_of(metric):
            for normalizer in normalizers_of(dataset.target_normalizer):
                _check_steps(part, normalizer, dataset)


def _refuse(loss: Any, problem: str, cure: str) -> NoReturn:
    raise ValueError(f"mLSTMTime: {_name(loss)} {problem}; {cure}.")


def _name(loss: Any) -> str:
    wrapped = isinstance(loss, TorchMetricWrapper)
    return type(loss.torchmetric if wrapped else loss).__name__


def _check_composite(loss: CompositeMetric, normalizer: Any, multi_target: bool) -> None:
    """Raise if the parts of a sum of metrics do not read the same output in the same way."""
    parts = list(loss._metrics)
    if not parts:
        _refuse(loss, "has no parts", "make it as a sum, SMAPE() + MAE()")
    first, *others = parts
    for other in others:
        same_reading = link_of(first) is link_of(other)
        same_size = output_size_of(first, normalizer) == output_size_of(other, normalizer)
        distributions = isinstance(first, DistributionLoss), isinstance(other, DistributionLoss)
        same_kind = type(first) is type(other) if any(distributions) else True
        if not (same_reading and same_size and same_kind):
            _refuse(
                loss,
                f"adds {_name(first)} and {_name(other)}, which read the forecast in different "
                f"ways",
                "add metrics of one kind, for example SMAPE() + MAE()",
            )
    if not multi_target and any(isinstance(part, MASE) for part in parts):
        _refuse(
            loss,
            "has MASE as a part, which the host does not give the history to compare with",
            "take MASE() alone, or give the dataset a list of targets",
        )


def _check_loss(loss: Any, normalizer: Any) -> None:
    """Raise if the loss of one target cannot work with the target's normalizer."""
    categorical = isinstance(normalizer, NaNLabelEncoder)
    if categorical != isinstance(loss, CrossEntropy):
        kinds = ("real", "categorical")
        _refuse(
            loss,
            f"is a loss for a {kinds[not categorical]} target, got a {kinds[categorical]} one",
            f"pass {'CrossEntropy' if categorical else 'another loss'} for it",
        )
    if isinstance(loss, TorchMetricWrapper) and not _is_an_error(loss.torchmetric):
        _refuse(
            loss,
            "is not better the lower it is, and training makes a loss small",
            "pass another loss, for example MAE(), and this one among logging_metrics",
        )
    if isinstance(loss, QuantileLoss | DistributionLoss):
        quantiles = list(loss.quantiles)
        if not quantiles or not all(0 < q < 1 for q in quantiles):
            _refuse(
                loss, f"needs quantiles between 0 and 1, got {quantiles}", "for example [0.1, 0.9]"
            )
    if isinstance(loss, QuantileLoss):
        if not min(quantiles) <= 0.5 <= max(quantiles):
            _refuse(
                loss,
                f"needs 0.5 among its quantiles, or quantiles on both sides of it, for a point "
                f"forecast, got {quantiles}",
                "add 0.5",
            )
    if isinstance(loss, AggregationMetric) and type(loss.metric) not in (MAE, MAPE, RMSE, SMAPE):
        _refuse(
            loss,
            f"can take the mean of points only, got {_name(loss.metric)}",
            "wrap MAE(), MAPE(), RMSE() or SMAPE()",
        )
    for kind, transformations, center in _NEEDS:
        if not isinstance(loss, kind):
            continue
        transformation = getattr(normalizer, "transformation", None)
        if transformation not in transformations:
            _refuse(
                loss,
                f"needs a target_normalizer with transformation "
                f"{' or '.join(map(repr, transformations))}, got {transformation!r}",
                "make the dataset with one",
            )
        if center is not None and getattr(normalizer, "center", True) != center:
            _refuse(
                loss,
                f"needs a target_normalizer with center={center}, got center={not center}",
                "make the dataset with one",
            )


def _is_an_error(metric: Metric) -> bool:
    """Whether the lowest value is the best: torchmetrics says so of its own, others may not."""
    own = type(metric).__module__.startswith("torchmetrics.")
    return metric.higher_is_better is False or (metric.higher_is_better is None and not own)


def _check_steps(loss: Any, normalizer: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if the loss cannot weigh steps, or leave out padded ones, and would have to."""
    shortest, longest = dataset.min_prediction_length, dataset.max_prediction_length
    if dataset.weight is not None and isinstance(loss, _NO_WEIGHTS):
        _refuse(
            loss,
            f"cannot weigh steps, got a dataset with weight={dataset.weight!r}",
            "make the dataset without, or pass another loss",
        )
    if isinstance(loss, MQF2DistributionLoss) and loss.prediction_length != longest:
        _refuse(
            loss,
            f"needs prediction_length={longest}, the dataset's max_prediction_length, got "
            f"{loss.prediction_length}",
            "make it with that",
        )
    if isinstance(loss, MASE) and dataset.min_encoder_length + shortest < 2:
        _refuse(
            loss,
            "compares with the change from step to step, of which a window of one step has none",
            "make the dataset with min_encoder_length=1 or more",
        )
    if shortest == longest:
        return
    padding = torch.zeros(())  # what the host fills short horizons with
    if isinstance(loss, _NO_STEPS) or not _possible(loss, normalizer, padding):
        _refuse(
            loss,
            f"cannot leave out the padding of short horizons, got a dataset with "
            f"min_prediction_length={shortest} and max_prediction_length={longest}",
            "make these equal, or pass another loss",
        )


def _check_values(loss: Any, normalizer: Any, name: str, values: Tensor) -> None:
    """Raise if the target has values that the loss says are impossible."""
    possible = _possible(loss, normalizer, values)
    if not possible.all():
        wrong = values[~possible]
        _refuse(
            loss,
            f"cannot have the values of target {name!r}, such as {wrong[0].item():g} "
            f"({len(wrong)} of {len(values)})",
            "pass another loss, or make the dataset with another target_normalizer",
        )


def _check_fill(loss: Any, normalizer: Any, name: str, fill: float) -> None:
    """Raise if gaps of the target are filled with what the loss says is impossible."""
    if not _possible(loss, normalizer, torch.tensor(fill)):
        _refuse(
            loss,
            f"cannot have {fill:g} in target {name!r}, which constant_fill_strategy puts into its "
            f"gaps",
            f"leave {name!r} out of constant_fill_strategy, or pass another loss",
        )


def _possible(loss: Any, normalizer: Any, values: Tensor) -> Tensor:
    """Return which values have a finite loss, according to what the loss is made for."""
    if isinstance(loss, NegativeBinomialDistributionLoss):
        return constraints.nonnegative_integer.check(values)
    if isinstance(loss, BetaDistributionLoss):
        return constraints.unit_interval.check(values)
    if isinstance(loss, _NOT_NEGATIVE):
        return constraints.nonnegative.check(values)
    transformation = getattr(normalizer, "transformation", None)
    if isinstance(loss, _TRANSFORMED) and transformation is not None:
        inverse = TorchNormalizer.get_transform(transformation).get("inverse_torch")
        if inverse is None:
            _refuse(
                loss,
                "needs a target_normalizer whose transformation has an 'inverse_torch', a "
                "torch.distributions.Transform",
                "add it to the transformation, or name one of the host's",
            )
        return inverse.codomain.check(values)
    return torch.ones_like(values, dtype=torch.bool)


def try_loss(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Compute the loss of an untrained model on two windows, and raise if that cannot be trained.

    The windows are the shortest and the longest of the dataset. Neither the model nor the random
    numbers to come are changed.
    """
    lengths = dataset.index["sequence_length"].to_numpy()
    training = model.training
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = [dataset[int(lengths.argmin())], dataset[int(lengths.argmax())]]
        x, y = TimeSeriesDataSet._collate_fn(samples)
        model.eval()
        try:
            value = _loss_of(model, x, y)
        except (ValueError, TypeError) as error:
            if str(error).startswith("mLSTMTime"):
                raise
            raise _failed(model, dataset, error) from error
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
        ) as error:
            raise _failed(model, dataset, error) from error
        finally:
            model.train(training)
    if not (isinstance(value, Tensor) and value.ndim == 0):
        raise _failed(model, dataset, "it gives no single number; use reduction='mean'")
    if not value.requires_grad:
        raise _failed(model, dataset, "it has no gradient, or is not finite")


def _loss_of(model: Any, x: dict[str, Any], y: tuple[Any, Any]) -> Any:
    """Compute the loss as the host's training step does."""
    prediction = model(x).prediction
    loss: Metric = fresh_loss(model.loss)
    y = pack_targets(y, x["decoder_lengths"])
    if isinstance(loss, MASE | MultiLoss):
        history = {"encoder_target": x["encoder_target"], "encoder_lengths": x["encoder_lengths"]}
        return loss(prediction, y, **history)
    return loss(prediction, y)


def _failed(model: Any, dataset: TimeSeriesDataSet, problem: Any) -> ValueError:
    normalizers = " ".join(repr(dataset.target_normalizer).split())
    return ValueError(
        f"mLSTMTime: {model.loss!r} cannot be trained on target {dataset.target!r} with "
        f"target_normalizer {normalizers}: {problem or 'the host fails on it'}; pass another loss, "
        f"or make the dataset with another target_normalizer."
    )
