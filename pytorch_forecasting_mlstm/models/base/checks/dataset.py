"""Check that a dataset, a batch or a table suits the model that is going to read it."""

from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from pytorch_forecasting import EncoderNormalizer, NaNLabelEncoder, TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from ....data import BatchedTimeSeriesDataSet
from ....data.table_checks import check_duplicates, check_index
from ..errors import UPSTREAM_ERRORS
from ..forecast.schema import is_real
from ..losses.link import is_joint_over_horizon, primary_metrics, target_normalizers
from .samples import collate_samples

__all__ = [
    "check_batch",
    "check_dataset",
    "check_sample_construction",
    "dataset_from_frame",
    "require_batch",
]

#: What the model reads of a batch of a TimeSeriesDataSet.
_BATCH_KEYS = (
    *(f"{part}_{kind}" for part in ("encoder", "decoder") for kind in ("cat", "cont", "lengths")),
    "encoder_target",
    "groups",
    "target_scale",
)
_HINT = "make the dataset with TimeSeriesDataSet.from_dataset(training_dataset, ...)"


def check_dataset(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if columns, labels, lengths or targets of a dataset differ from those of the model.

    Parameters
    ----------
    model : ForecastingModel
        Model that is going to read the dataset.
    dataset : TimeSeriesDataSet
        Dataset to train, test or predict on.

    Raises
    ------
    ValueError
        If they differ; the message names the difference.
    """
    caller, hparams = type(model).__name__, model.hparams
    _check_target(model, dataset)
    _check_real_targets(dataset, caller)
    _check_fill_values(dataset, caller)
    for kind, expected, got in (
        ("real", hparams.x_reals, dataset.reals),
        ("categorical", hparams.x_categoricals, dataset.flat_categoricals),
    ):
        if list(expected) != list(got):
            raise ValueError(
                f"{caller}: the model was made for the {kind} variables {list(expected)}, in this "
                f"order, got a dataset with {list(got)}{_difference(expected, got)}; {_HINT}."
            )
    for part in ("encoder", "prediction"):
        name = f"max_{part}_length"
        if getattr(dataset, name) > hparams[name]:
            raise ValueError(
                f"{caller}: the model was made for a {name} of {hparams[name]}, got a dataset "
                f"with {getattr(dataset, name)}; {_HINT}, or a model from this dataset."
            )
    for name, labels in hparams.embedding_labels.items():
        encoder = dataset._categorical_encoders.get(name)
        got_labels = getattr(encoder, "classes_", labels)
        if list(labels) != list(got_labels):
            raise ValueError(
                f"{caller}: the model was made for the labels {list(labels)} of {name!r}, in this "
                f"order, got a dataset with {list(got_labels)}{_difference(labels, got_labels)}; "
                f"{_HINT}; to allow for labels that appear after training, make the training "
                f"dataset with categorical_encoders={{{name!r}: NaNLabelEncoder(add_nan=True)}}."
            )


def _check_target(model: Any, dataset: TimeSeriesDataSet) -> None:
    caller, expected, got = type(model).__name__, model.hparams.target, dataset.target
    if expected != got:
        raise ValueError(
            f"{caller}: the model was made for the target {expected!r}, got a dataset with the "
            f"target {got!r}; {_HINT}, or a model from this dataset."
        )
    for name, *normalizers in zip(
        to_list(expected),
        target_normalizers(model.output_transformer),
        target_normalizers(dataset.target_normalizer),
        strict=True,
    ):
        transformations = [getattr(part, "transformation", None) for part in normalizers]
        # two transformations that the user defined are assumed to be the same
        names = [part if isinstance(part, str | None) else "custom" for part in transformations]
        labels = [getattr(part, "classes_", None) for part in normalizers]
        if names[0] != names[1] or labels[0] != labels[1]:
            expected_text, got_text = map(_format_normalization, transformations, labels)
            raise ValueError(
                f"{caller}: the model was made for a target_normalizer of {name!r} with "
                f"{expected_text}, got a dataset with {got_text}; {_HINT}."
            )


def _format_normalization(transformation: Any, labels: dict[Any, int] | None) -> str:
    if labels is not None:
        return f"the labels {list(labels)}"
    return f"transformation {transformation!r}"


def _difference(expected: Any, got: Any) -> str:
    missing = [name for name in expected if name not in got]
    added = [name for name in got if name not in expected]
    parts = [f"{what} {names}" for what, names in (("without", missing), ("new", added)) if names]
    return f" ({', '.join(parts)})" if parts else ""


def check_batch(model: Any, x: dict[str, Any]) -> None:
    """Raise if columns of a batch differ from those of the model, or if it has more steps.

    Parameters
    ----------
    model : ForecastingModel
        Model that is going to read the batch.
    x : dict
        Batch of a dataset.

    Raises
    ------
    TypeError, ValueError
        If so; the message names the expected and the actual numbers.
    """
    caller, hparams = type(model).__name__, model.hparams
    require_batch(x, caller)
    for kind, names in (("cont", hparams.x_reals), ("cat", hparams.x_categoricals)):
        for part in ("encoder", "decoder"):
            columns = x[f"{part}_{kind}"].shape[-1]
            if columns != len(names):
                raise ValueError(
                    f"{caller}: {part}_{kind} must have {len(names)} columns, {names}, got "
                    f"{columns}; {_HINT}."
                )
    history, horizon = x["encoder_cont"].shape[1], x["decoder_cont"].shape[1]
    for part, steps in (("encoder", history), ("prediction", horizon)):
        max_steps = hparams[f"max_{part}_length"]
        if steps > max_steps:
            raise ValueError(
                f"{caller}: the model was made for a max_{part}_length of {max_steps}, got a batch "
                f"of {steps} steps; {_HINT}, or a model from this dataset."
            )
    max_horizon = hparams.max_prediction_length
    if horizon < max_horizon and any(map(is_joint_over_horizon, primary_metrics(model.loss))):
        raise ValueError(
            f"{caller}: {model.loss!r} forecasts all {max_horizon} steps of the horizon jointly, "
            f"got a batch of {horizon} steps; make the dataset with "
            f"min_prediction_length={max_horizon}."
        )


def require_batch(x: Any, caller: str) -> None:
    """Raise unless x is the inputs of a batch, as a loader of a dataset yields them."""
    missing = [key for key in _BATCH_KEYS if not isinstance(x, dict) or key not in x]
    if missing:
        raise TypeError(
            f"{caller}: a batch must come from a loader of a TimeSeriesDataSet, got "
            f"{sorted(x) if isinstance(x, dict) else type(x).__name__}; pass "
            f"dataset.to_dataloader(batch_size=64) instead of the dataset, or of the data module "
            f"and the TimeSeries of pytorch-forecasting's v2, which this model does not support."
        )


def dataset_from_frame(model: Any, data: pd.DataFrame) -> TimeSeriesDataSet:
    """Make the dataset to predict from a table, with errors that name the problem.

    Parameters
    ----------
    model : ForecastingModel
        Model that is going to predict.
    data : pandas.DataFrame
        Table with all columns of the dataset that the model was made from.

    Returns
    -------
    TimeSeriesDataSet
        The last window of every series.

    Raises
    ------
    TypeError, ValueError
        If the model was not made from a dataset, or the table lacks a column, or has a label that
        the model does not know.
    """
    caller, parameters = type(model).__name__, getattr(model, "dataset_parameters", None)
    if parameters is None:
        raise ValueError(
            f"{caller}: to predict a table, the model must know its dataset, got one that was not "
            f"made from a dataset; make it with {caller}.from_dataset, or pass a "
            f"TimeSeriesDataSet."
        )
    _check_frame(data, parameters, caller)
    names = to_list(parameters["target"])
    for name, normalizer in zip(names, target_normalizers(model.output_transformer), strict=True):
        if not isinstance(normalizer, NaNLabelEncoder) and not is_real(data[name]):
            raise TypeError(
                f"{caller}: column {name!r} of the table to predict must hold numbers, got "
                f"{data[name].dtype}; convert it."
            )
        if isinstance(normalizer, EncoderNormalizer) and data[name].dtype.kind in "iu":
            data = data.assign(**{name: data[name].astype(float)})  # it scales floats only
    try:
        return BatchedTimeSeriesDataSet.from_parameters(parameters, data, predict=True)
    except UPSTREAM_ERRORS as error:
        unknown_label = isinstance(error, KeyError) and "Unknown category" in str(error)
        hint = (
            "train with categorical_encoders={'<variable>': NaNLabelEncoder(add_nan=True)}"
            if unknown_label
            else "give every series the steps and columns that the training data have"
        )
        raise ValueError(
            f"{caller}: no dataset can be made from the table to predict: {_reason(error)}; "
            f"leave out such rows, or {hint}."
        ) from error


def _check_frame(data: pd.DataFrame, parameters: dict[str, Any], caller: str) -> None:
    """Raise if a table lacks columns or rows, or its time index is not of integers."""
    targets, time = to_list(parameters["target"]), parameters["time_idx"]
    required = [time, *targets, *parameters["group_ids"]]
    groups = parameters["variable_groups"] or {}
    for kind in ("static", "time_varying_known", "time_varying_unknown"):
        for names in (parameters[f"{kind}_categoricals"], parameters[f"{kind}_reals"]):
            for name in names or ():
                required.extend(groups.get(name, [name]))
    computed = {"relative_time_idx", "encoder_length"}
    for target in targets:
        computed |= {f"{target}_center", f"{target}_scale"}
    for name, lags in (parameters["lags"] or {}).items():
        computed |= {f"{name}_lagged_by_{lag}" for lag in lags}
    if parameters["weight"] is not None:
        required.append(parameters["weight"])
    columns = dict.fromkeys(required)
    missing = [name for name in columns if name not in data and name not in computed]
    if missing:
        raise ValueError(
            f"{caller}: the table to predict must have the columns of the model's dataset, got "
            f"one without {missing}; add these."
        )
    if data.empty:
        raise ValueError(f"{caller}: the table to predict must have rows, got none; add some.")
    check_index(data, f"{caller}: the table to predict")
    check_duplicates(
        data, to_list(parameters["group_ids"]), time, f"{caller}: the table to predict"
    )
    if not types.is_integer_dtype(data[time]):
        raise TypeError(
            f"{caller}: column {time!r} of the table to predict must hold integers, got "
            f"{data[time].dtype}; number the steps."
        )
    _check_horizon(data, parameters, caller)


def _check_horizon(data: pd.DataFrame, parameters: dict[str, Any], caller: str) -> None:
    """Raise if the target is missing in the whole horizon of a series: ``forecast`` needs no rows.

    Elsewhere it may be missing: the model masks it.
    """
    groups, time = to_list(parameters["group_ids"]), parameters["time_idx"]
    horizon = data.sort_values(time).groupby(groups, observed=True, sort=False)
    for name in to_list(parameters["target"]):
        last = horizon[name].tail(parameters["max_prediction_length"]).isna()
        keys = [data.loc[last.index, group] for group in groups]
        empty = last.groupby(keys, observed=True).transform("all")
        if empty.any():
            raise ValueError(
                f"{caller}: the table to predict must have a value of target {name!r} in the "
                f"horizon, the last steps of every series, got {int(empty.sum())} rows of horizons "
                f"without one; to forecast these rows, pass the others to forecast(), and what is "
                f"known of these as future=."
            )


def check_sample_construction(dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if a dataset cannot make its samples, for example scale each by its own history.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that a model is made from.
    caller : str
        Name to begin the message with.

    Raises
    ------
    ValueError
        If it cannot; the message names the variable.
    """
    _check_real_targets(dataset, caller)
    _check_fill_values(dataset, caller)
    covariates = [
        name
        for name in dataset.reals
        if name not in dataset.target_names and name not in dataset.lagged_variables
    ]
    scalers = {f"variable {name!r}": dataset.get_transformer(name) for name in covariates}
    # pytorch-forecasting itself checks the normalizer of a single target
    for name, normalizer in zip(
        dataset.target_names, target_normalizers(dataset.target_normalizer), strict=True
    ):
        scalers[f"target {name!r}"] = normalizer
    for label, scaler in scalers.items():
        if isinstance(scaler, EncoderNormalizer) and scaler.min_length > dataset.min_encoder_length:
            raise ValueError(
                f"{caller}: an EncoderNormalizer needs {scaler.min_length} steps of history to "
                f"scale {label}, got a dataset with min_encoder_length="
                f"{dataset.min_encoder_length}; make the dataset with a larger one, or with "
                f"another scaler or target_normalizer for it."
            )
    lengths = dataset.index["sequence_length"].to_numpy()
    try:
        for number in (int(lengths.argmin()), int(lengths.argmax())):
            collate_samples(dataset, [number])
    except UPSTREAM_ERRORS as error:
        raise ValueError(
            f"{caller}: the dataset cannot make its samples: {_reason(error)}; make it with other "
            f"lags, scalers or another target_normalizer."
        ) from error


def _check_real_targets(dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if the dtype of a target does not suit its normalizer."""
    targets = zip(dataset.target_names, target_normalizers(dataset.target_normalizer), strict=True)
    for (name, normalizer), values in zip(targets, dataset.data["target"], strict=True):
        if isinstance(normalizer, NaNLabelEncoder) and name in dataset.reals:
            raise ValueError(
                f"{caller}: target {name!r} must not be among the real variables while its "
                f"target_normalizer is a NaNLabelEncoder, for labels; if it is a number, make the "
                f"dataset with data[{name!r}].astype(float)."
            )
        if isinstance(normalizer, EncoderNormalizer) and not values.is_floating_point():
            raise ValueError(
                f"{caller}: target {name!r} must be of real numbers for an EncoderNormalizer, got "
                f"{values.dtype}; make the dataset with data[{name!r}].astype(float)."
            )


def _check_fill_values(dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if a fill value cannot be used, which otherwise fails only at the first gap."""
    for name, value in dataset.encoded_constant_fill_strategy.items():
        if np.ndim(value) > 0:
            raise ValueError(
                f"{caller}: the value that constant_fill_strategy has for {name!r} must be a "
                f"single number after scaling, got {len(value)} from its "
                f"{type(dataset.get_transformer(name)).__name__}; leave it out, or make the "
                f"dataset with another scaler for {name!r}, such as GroupNormalizer()."
            )


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
