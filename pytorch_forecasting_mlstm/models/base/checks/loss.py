"""Check that a loss can be trained on a dataset, before the training fails."""

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
from torch import Tensor
from torch.distributions import constraints
from torchmetrics import Metric

from ...._messages import UnprefixedError, prefix_errors
from ...._upstream import TorchMetricWrapper
from ..errors import UPSTREAM_ERRORS
from ..losses.factory import clone_loss
from ..losses.link import (
    component_metrics,
    link_of,
    loss_output_size,
    per_target_losses,
    target_normalizers,
)
from ..losses.missing import WITHOUT_STEPS, has_missing, observed_loss
from ..losses.output import pack_targets
from .nonfinite import target_fill_values
from .samples import collate_samples

__all__ = ["check_logging_metrics", "check_losses", "dry_run_loss"]

#: What distributions need of a normalizer: one of these transformations, and its ``center``.
_REQUIREMENTS: tuple[tuple[type, tuple[str | None, ...], bool | None], ...] = (
    (
        NegativeBinomialDistributionLoss,
        # not "sqrt": pytorch-forecasting multiplies means by the scale of the roots
        (None, "log1p", "softplus", "relu", "count"),
        False,
    ),
    # not "log1p": pytorch-forecasting forecasts y + 1 with it
    (LogNormalDistributionLoss, ("log",), None),
    (BetaDistributionLoss, ("logit",), True),
)
#: Losses that cannot weight steps: they fail on weights, or misinterpret them.
_WITHOUT_WEIGHTS = (*WITHOUT_STEPS, MASE, TorchMetricWrapper)
#: Distributions whose samples are transformed: a target must be in the image of this map.
_TRANSFORMED_DISTRIBUTIONS = (
    NormalDistributionLoss,
    MultivariateNormalDistributionLoss,
    MQF2DistributionLoss,
)
_NONNEGATIVE_LOSSES = (PoissonLoss, TweedieLoss)
#: Losses for values that others do not support.
_ALTERNATIVES: dict[type, str] = {
    LogNormalDistributionLoss: (
        "TweedieLoss() for amounts with zeros, or QuantileLoss() for an interval"
    ),
    BetaDistributionLoss: "QuantileLoss() or MAE()",
    NegativeBinomialDistributionLoss: "QuantileLoss(), or PoissonLoss() for amounts from 0 on",
    PoissonLoss: "QuantileLoss() or MAE()",
    TweedieLoss: "QuantileLoss() or MAE()",
}


def _raise_unsupported(loss: Any, problem: str, hint: str) -> NoReturn:
    raise UnprefixedError(f"{_loss_name(loss)} {problem}; {hint}.")


def _loss_name(loss: Any) -> str:
    wrapped = isinstance(loss, TorchMetricWrapper)
    return type(loss.torchmetric if wrapped else loss).__name__


def check_losses(loss: Any, dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if the loss of a target does not suit the dataset.

    Parameters
    ----------
    loss : Metric
        Loss of the model, with a part for each target.
    dataset : TimeSeriesDataSet
        Dataset that the model is made from.
    caller : str
        Name to begin the message with.
    """
    normalizers = target_normalizers(dataset.target_normalizer)
    values, fills = dataset.data["target"], target_fill_values(dataset)
    with prefix_errors(caller):
        for name, part, normalizer, target in zip(
            dataset.target_names, per_target_losses(loss), normalizers, values, strict=True
        ):
            if isinstance(part, CompositeMetric):
                _check_composite(part, normalizer, dataset.multi_target)
            for metric in component_metrics(part):
                _check_metric(metric, normalizer)
                _check_steps(metric, normalizer, dataset)
                _check_observed(metric, name, target)
                _check_values(metric, normalizer, name, target[~target.isnan()])
                if name in fills:
                    _check_fill_value(metric, normalizer, name, fills[name])


def check_logging_metrics(metrics: Any, dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if a metric to log cannot handle the weights or the padding that the dataset has.

    Parameters
    ----------
    metrics : iterable of Metric
        Metrics to log.
    dataset : TimeSeriesDataSet
        Dataset that the model is made from.
    caller : str
        Name to begin the message with.
    """
    with prefix_errors(caller):
        for metric in metrics:
            for component in component_metrics(metric):
                for normalizer in target_normalizers(dataset.target_normalizer):
                    _check_steps(component, normalizer, dataset)


def _check_composite(loss: CompositeMetric, normalizer: Any, multi_target: bool) -> None:
    """Raise if the parts of a sum of metrics interpret the output in different ways."""
    parts = list(loss._metrics)
    if not parts:
        _raise_unsupported(loss, "has no parts", "make it as a sum, SMAPE() + MAE()")
    first, *others = parts
    for other in others:
        same_link = link_of(first) is link_of(other)
        same_size = loss_output_size(first, normalizer) == loss_output_size(other, normalizer)
        distributions = isinstance(first, DistributionLoss), isinstance(other, DistributionLoss)
        same_kind = type(first) is type(other) if any(distributions) else True
        if not (same_link and same_size and same_kind):
            _raise_unsupported(
                loss,
                f"adds {_loss_name(first)} and {_loss_name(other)}, which read the forecast in "
                f"different ways",
                "add metrics of one kind, for example SMAPE() + MAE()",
            )
    if not multi_target and any(isinstance(part, MASE) for part in parts):
        _raise_unsupported(
            loss,
            "has MASE as a part, to which pytorch-forecasting does not pass the history it needs",
            "use MASE() alone, or give the dataset a list of targets",
        )


def _check_metric(loss: Any, normalizer: Any) -> None:
    """Raise if a metric does not suit the normalizer of its target."""
    categorical = isinstance(normalizer, NaNLabelEncoder)
    if categorical != isinstance(loss, CrossEntropy):
        kinds = ("real", "categorical")
        _raise_unsupported(
            loss,
            f"is a loss for a {kinds[not categorical]} target, got a {kinds[categorical]} one",
            f"pass {'CrossEntropy' if categorical else 'another loss'} for it",
        )
    if isinstance(loss, TorchMetricWrapper) and not _is_minimized(loss.torchmetric):
        _raise_unsupported(
            loss,
            "is a score to maximize and cannot be a loss",
            "pass another loss, for example MAE(), and this one in logging_metrics",
        )
    if isinstance(loss, QuantileLoss | DistributionLoss):
        quantiles = list(loss.quantiles)
        if not quantiles or not all(0 < q < 1 for q in quantiles):
            _raise_unsupported(
                loss,
                f"needs quantiles between 0 and 1, got {quantiles}",
                "for example [0.1, 0.9]",
            )
    if isinstance(loss, QuantileLoss):
        if not min(quantiles) <= 0.5 <= max(quantiles):
            _raise_unsupported(
                loss,
                f"needs 0.5 among its quantiles, or quantiles on both sides of it, for a point "
                f"forecast, got {quantiles}",
                "add 0.5",
            )
    if isinstance(loss, AggregationMetric) and type(loss.metric) not in (MAE, MAPE, RMSE, SMAPE):
        _raise_unsupported(
            loss,
            f"can take the mean of points only, got {_loss_name(loss.metric)}",
            "wrap MAE(), MAPE(), RMSE() or SMAPE()",
        )
    for kind, transformations, center in _REQUIREMENTS:
        if not isinstance(loss, kind):
            continue
        transformation = getattr(normalizer, "transformation", None)
        if transformation not in transformations:
            _raise_unsupported(
                loss,
                f"needs a target_normalizer with transformation "
                f"{' or '.join(map(repr, transformations))}, got {transformation!r}",
                "make the dataset with one",
            )
        if center is not None and getattr(normalizer, "center", True) != center:
            _raise_unsupported(
                loss,
                f"needs a target_normalizer with center={center}, got center={not center}",
                "make the dataset with one",
            )


def _is_minimized(metric: Metric) -> bool:
    """Return whether a metric can be minimized.

    Its ``higher_is_better`` may be None: then a metric of torchmetrics has no best value, and any
    other metric does not define it.
    """
    from_torchmetrics = type(metric).__module__.startswith("torchmetrics.")
    return metric.higher_is_better is False or (
        metric.higher_is_better is None and not from_torchmetrics
    )


def _check_steps(loss: Any, normalizer: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if the dataset has weights or padding that the loss cannot handle."""
    shortest, longest = dataset.min_prediction_length, dataset.max_prediction_length
    if dataset.weight is not None and isinstance(loss, _WITHOUT_WEIGHTS):
        _raise_unsupported(
            loss,
            f"cannot weight steps, got a dataset with weight={dataset.weight!r}",
            "make the dataset without weight, or pass another loss",
        )
    if isinstance(loss, MQF2DistributionLoss) and loss.prediction_length != longest:
        _raise_unsupported(
            loss,
            f"needs prediction_length={longest}, the dataset's max_prediction_length, got "
            f"{loss.prediction_length}",
            f"make it with prediction_length={longest}",
        )
    if isinstance(loss, MASE) and dataset.min_encoder_length + shortest < 2:
        _raise_unsupported(
            loss,
            "compares with the change from step to step, got a dataset with windows of one step",
            "make the dataset with min_encoder_length=1 or more",
        )
    if shortest == longest:
        return
    padding = torch.zeros(())  # pytorch-forecasting pads short horizons with 0
    clamped = isinstance(loss, LogNormalDistributionLoss | BetaDistributionLoss)
    if isinstance(loss, WITHOUT_STEPS) or not (clamped or _in_support(loss, normalizer, padding)):
        _raise_unsupported(
            loss,
            f"cannot leave out the padding of short horizons, got a dataset with "
            f"min_prediction_length={shortest} and max_prediction_length={longest}",
            "make these equal, or pass another loss",
        )


def _check_observed(loss: Any, name: str, values: Tensor) -> None:
    """Raise if the target is missing in some rows, which the loss cannot skip."""
    missing = int(values.isnan().sum())
    if missing and isinstance(loss, WITHOUT_STEPS):
        _raise_unsupported(
            loss,
            f"cannot skip missing values, got a target {name!r} that is NaN in {missing} of "
            f"{len(values)} rows",
            "fill them in, or pass a loss of single steps, for example NormalDistributionLoss()",
        )


def _check_values(loss: Any, normalizer: Any, name: str, values: Tensor) -> None:
    """Raise if the target has values outside of the support of the loss."""
    supported = _in_support(loss, normalizer, values)
    if not supported.all():
        unsupported = values[~supported]
        _raise_unsupported(
            loss,
            f"does not support the values of target {name!r}, such as {unsupported[0].item():g} "
            f"({len(unsupported)} of {len(values)} rows)",
            f"pass {_ALTERNATIVES[type(loss)]}"
            if type(loss) in _ALTERNATIVES
            else "pass another loss, or make the dataset with another target_normalizer",
        )


def _check_fill_value(loss: Any, normalizer: Any, name: str, fill: float) -> None:
    """Raise if gaps of the target are filled with a value outside of the support of the loss."""
    if not _in_support(loss, normalizer, torch.tensor(fill)):
        _raise_unsupported(
            loss,
            f"does not support {fill:g} in target {name!r}, which constant_fill_strategy puts into "
            f"its gaps",
            f"leave {name!r} out of constant_fill_strategy, or pass another loss",
        )


def _in_support(loss: Any, normalizer: Any, values: Tensor) -> Tensor:
    """Return a mask of the values that have a probability, or a finite loss.

    pytorch-forecasting moves a target of 0 or 1 into the support of a log-normal or a beta
    distribution, by 1e-12 or 1e-4. The loss is then finite, and the forecasts are useless.
    """
    if isinstance(loss, NegativeBinomialDistributionLoss):
        return constraints.nonnegative_integer.check(values)
    if isinstance(loss, LogNormalDistributionLoss):
        return constraints.positive.check(values)
    if isinstance(loss, BetaDistributionLoss):
        return (values > 0) & (values < 1)
    if isinstance(loss, _NONNEGATIVE_LOSSES):
        return constraints.nonnegative.check(values)
    transformation = getattr(normalizer, "transformation", None)
    if isinstance(loss, _TRANSFORMED_DISTRIBUTIONS) and transformation is not None:
        inverse = TorchNormalizer.get_transform(transformation).get("inverse_torch")
        if inverse is None:
            _raise_unsupported(
                loss,
                "needs a target_normalizer whose transformation has an 'inverse_torch', a "
                "torch.distributions.Transform",
                "add it to the transformation, or name one of pytorch-forecasting's",
            )
        return inverse.codomain.check(values)
    return torch.ones_like(values, dtype=torch.bool)


def dry_run_loss(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Compute the loss of an untrained model on two windows, and raise if it cannot be trained.

    The windows are the shortest and the longest of the dataset. Neither the model nor the state of
    the random number generator is changed.

    Parameters
    ----------
    model : ForecastingModel
        Model that was made from the dataset.
    dataset : TimeSeriesDataSet
        The dataset.
    """
    lengths = dataset.index["sequence_length"].to_numpy()
    training = model.training
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y = collate_samples(dataset, [int(lengths.argmin()), int(lengths.argmax())])
        model.eval()
        try:
            value = _compute_loss(model, x, y)
        except UPSTREAM_ERRORS as error:
            from_model = str(error).startswith(type(model).__name__)
            if from_model and isinstance(error, TypeError | ValueError):
                raise
            raise _untrainable_error(model, dataset, error) from error
        finally:
            model.train(training)
    if not (isinstance(value, Tensor) and value.ndim == 0):
        raise _untrainable_error(model, dataset, "it is not a single number; use reduction='mean'")
    if not value.requires_grad:
        raise _untrainable_error(model, dataset, "it has no gradient, or is not finite")


def _compute_loss(model: Any, x: dict[str, Any], y: tuple[Any, Any]) -> Any:
    """Compute the loss as the training step of pytorch-forecasting does."""
    prediction = model(x).prediction
    loss: Metric = clone_loss(model.loss, type(model).__name__)
    y = pack_targets(y, x["decoder_lengths"])
    history = {}
    if isinstance(loss, MASE | MultiLoss):
        history = {"encoder_target": x["encoder_target"], "encoder_lengths": x["encoder_lengths"]}
    if has_missing(y[0], x["encoder_target"]):
        return observed_loss(loss, prediction, y, **history)
    return loss(prediction, y, **history)


def _untrainable_error(model: Any, dataset: TimeSeriesDataSet, problem: Any) -> ValueError:
    normalizers = " ".join(repr(dataset.target_normalizer).split())
    return ValueError(
        f"{type(model).__name__}: {model.loss!r} cannot be trained on target {dataset.target!r} "
        f"with target_normalizer {normalizers}: {problem or 'pytorch-forecasting fails on it'}; "
        f"pass another loss, or make the dataset with another target_normalizer."
    )
