"""A model forecasts with the statistics of the dataset that it was last fitted to."""

import warnings
from copy import deepcopy
from typing import Any

from pytorch_forecasting import TimeSeriesDataSet

from ....data import ParquetShards
from ..scales.measure import adopt_scales, adopt_shard_scales, measure_model_scales
from .dataset import check_dataset
from .loss import check_losses
from .statistics import compare_scalers, compare_series, compare_targets, describe

__all__ = ["adopt_shards", "adopt_statistics", "check_statistics"]

#: What a model takes over. Lengths, lags and columns stay those that it was made for.
_ADOPTED = (
    "scalers",
    "target_normalizer",
    "categorical_encoders",
    "constant_fill_strategy",
)


def adopt_statistics(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Take over the statistics of the dataset that a model is going to be fitted to.

    ``forecast``, ``predict`` of a table and checkpoints use them from then on.

    Parameters
    ----------
    model : ForecastingModel
        The model. One that was not made from a dataset is left as it is.
    dataset : TimeSeriesDataSet
        A dataset with the columns, labels and transformations of the model.

    Raises
    ------
    ValueError
        If the loss of the model does not suit the dataset.
    """
    if getattr(model, "dataset_parameters", None) is None:
        return
    adopt_scales(model, dataset)
    _adopt_parameters(model, dataset)


def _adopt_parameters(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Take over what a model made from a dataset scales and encodes by."""
    expected, got = model.dataset_parameters, dataset.get_parameters()
    if not any(
        compare(expected, got) for compare in (compare_scalers, compare_targets, compare_series)
    ):
        return
    check_losses(model.loss, dataset, type(model).__name__)
    taken = {name: deepcopy(got[name]) for name in _ADOPTED}
    model.dataset_parameters = {**expected, **taken}
    model.output_transformer = model.dataset_parameters["target_normalizer"]
    for name in ("dataset_parameters", "output_transformer"):
        if name in model.hparams:
            model.hparams[name] = getattr(model, name)


def adopt_shards(model: Any, shards: ParquetShards) -> None:
    """Check the shards that a model is going to be fitted to, and take over their statistics.

    Parameters
    ----------
    model : ForecastingModel
        The model. One that was not made from a dataset takes over nothing.
    shards : ParquetShards
        The shards.

    Raises
    ------
    ValueError
        If columns, labels, lengths or targets differ from those of the model.
    """
    first = shards[0]
    check_dataset(model, first)
    if getattr(model, "dataset_parameters", None) is None:
        return
    _adopt_parameters(model, first)
    scales = measure_model_scales(model, first)
    del first  # one shard is in memory at a time
    adopt_shard_scales(model, shards, scales)


def check_statistics(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if a dataset scales its covariates otherwise than the dataset of the model.

    Targets come with their scale, so that forecasts are in the units of the dataset: if theirs
    differs, a warning says so; without instance normalization, it is an error, too.

    Parameters
    ----------
    model : ForecastingModel
        The model. One that was not made from a dataset has nothing to compare.
    dataset : TimeSeriesDataSet
        A dataset with the columns of the model, to validate, test or predict.

    Raises
    ------
    ValueError
        With the numbers that differ.
    """
    expected = getattr(model, "dataset_parameters", None)
    if expected is None:
        return
    caller, got = type(model).__name__, dataset.get_parameters()
    hint = "make the dataset with TimeSeriesDataSet.from_dataset(training_dataset, table)"
    scalers = compare_scalers(expected, got)
    if scalers:
        raise ValueError(
            f"{caller}: the dataset must scale as that of the model, {describe(scalers)}; {hint}."
        )
    targets = compare_targets(expected, got)
    if not targets:
        _warn_of_other_codes(caller, expected, got, hint)
        return
    message = f"{caller}: the dataset must normalize as that of the model, {describe(targets)}"
    if not model.hparams.get("instance_normalization", False):
        raise ValueError(f"{message}; {hint}.")
    warnings.warn(
        f"{message}; its forecasts are in its own units, but not quite those of the model's "
        f"dataset: {hint}.",
        UserWarning,
        stacklevel=2,
    )


def _warn_of_other_codes(
    caller: str, expected: dict[str, Any], got: dict[str, Any], hint: str
) -> None:
    codes = compare_series(expected, got)
    if codes:
        warnings.warn(
            f"{caller}: the dataset must number series as that of the model, {describe(codes)}; "
            f"constant histories get the scale of another series: {hint}.",
            UserWarning,
            stacklevel=3,
        )
