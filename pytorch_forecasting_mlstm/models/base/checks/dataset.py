"""Whether a dataset gives the batches that a model was made to read."""

from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from pytorch_forecasting import EncoderNormalizer, NaNLabelEncoder, TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from ....data import BatchedTimeSeriesDataSet
from ..forecast.schema import is_real
from ..losses.factory import normalizers_of

__all__ = [
    "HOST_ERRORS",
    "check_batch",
    "check_dataset",
    "check_samples",
    "make_dataset",
    "require_batch",
]

_CURE = "make the dataset with TimeSeriesDataSet.from_dataset(training_dataset, ...)"
#: What the host raises on data that it was not made for.
HOST_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def check_dataset(model: Any, dataset: TimeSeriesDataSet) -> None:
    """Raise if a dataset has other columns, labels, lengths or targets than the model was made for.

    Parameters
    ----------
    model : mLSTMTime
        Model that is going to read the dataset.
    dataset : TimeSeriesDataSet
        Dataset to train, test or predict on.

    Raises
    ------
    ValueError
        With what differs.
    """
    hparams = model.hparams
    _check_target(model, dataset)
    _check_real(dataset)
    _check_fills(dataset)
    for kind, expected, got in (
        ("real", hparams.x_reals, dataset.reals),
        ("categorical", hparams.x_categoricals, dataset.flat_categoricals),
    ):
        if list(expected) != list(got):
            raise ValueError(
                f"mLSTMTime: the model was made for the {kind} variables {list(expected)}, in this "
                f"order, got a dataset with {list(got)}{_difference(expected, got)}; {_CURE}."
            )
    for part in ("encoder", "prediction"):
        name = f"max_{part}_length"
        if getattr(dataset, name) > hparams[name]:
            raise ValueError(
                f"mLSTMTime: the model was made for a {name} of {hparams[name]}, got a dataset "
                f"with {getattr(dataset, name)}; {_CURE}, or a model from this dataset."
            )
    for name, labels in hparams.embedding_labels.items():
        encoder = dataset._categorical_encoders.get(name)
        got_labels = getattr(encoder, "classes_", labels)
        if list(labels) != list(got_labels):
            raise ValueError(
                f"mLSTMTime: the model was made for the labels {list(labels)} of {name!r}, in this "
                f"order, got a dataset with {list(got_labels)}{_difference(labels, got_labels)}; "
                f"{_CURE}, for labels to come after training with categorical_encoders="
                f"{{{name!r}: NaNLabelEncoder(add_nan=True)}}."
            )


def _check_target(model: Any, dataset: TimeSeriesDataSet) -> None:
    expected, got = model.hparams.target, dataset.target
    if expected != got:
        raise ValueError(
            f"mLSTMTime: the model was made for the target {expected!r}, got a dataset with the "
            f"target {got!r}; {_CURE}, or a model from this dataset."
        )
    for name, own, other in zip(
        to_list(expected),
        normalizers_of(model.output_transformer),
        normalizers_of(dataset.target_normalizer),
        strict=True,
    ):
        kinds = [getattr(normalizer, "transformation", None) for normalizer in (own, other)]
        named = [kind if isinstance(kind, str | None) else "own" for kind in kinds]
        labels = [getattr(normalizer, "classes_", None) for normalizer in (own, other)]
        if named[0] != named[1] or labels[0] != labels[1]:
            raise ValueError(
                f"mLSTMTime: the model was made for a target_normalizer of {name!r} with "
                f"{_normalization(kinds[0], labels[0])}, got a dataset with "
                f"{_normalization(kinds[1], labels[1])}; {_CURE}."
            )


def _normalization(transformation: Any, labels: dict[Any, int] | None) -> str:
    if labels is not None:
        return f"the labels {list(labels)}"
    return f"transformation {transformation!r}"


def _difference(expected: Any, got: Any) -> str:
    missing = [name for name in expected if name not in got]
    added = [name for name in got if name not in expected]
    parts = [f"{what} {names}" for what, names in (("without", missing), ("new", added)) if names]
    return f" ({', '.join(parts)})" if parts else ""


def check_batch(model: Any, x: dict[str, Any]) -> None:
    """Raise if a batch has other numbers of columns than the model was made for.

    Parameters
    ----------
    model : mLSTMTime
        Model that is going to read the batch.
    x : dict
        Batch of the host.

    Raises
    ------
    ValueError
        With the numbers.
    """
    require_batch(x)
    for part, names in (("cont", model.hparams.x_reals), ("cat", model.hparams.x_categoricals)):
        for end in ("encoder", "decoder"):
            got = x[f"{end}_{part}"].shape[-1]
            if got != len(names):
                raise ValueError(
                    f"mLSTMTime: {end}_{part} must have {len(names)} columns, {names}, got {got}; "
                    f"{_CURE}."
                )


def require_batch(x: Any) -> None:
    """Raise unless this is what a loader of a dataset gives as x."""
    if not isinstance(x, dict) or "decoder_lengths" not in x:
        raise TypeError(
            f"mLSTMTime: a batch must come from a loader of a TimeSeriesDataSet, got "
            f"{sorted(x) if isinstance(x, dict) else type(x).__name__}; pass "
            f"dataset.to_dataloader(batch_size=64) instead of the dataset."
        )


def make_dataset(model: Any, data: pd.DataFrame) -> TimeSeriesDataSet:
    """Make the dataset of a table to predict, as the host does it.

    Parameters
    ----------
    model : mLSTMTime
        Model that is going to predict.
    data : pandas.DataFrame
        Table with all columns of the dataset that the model was made from.

    Returns
    -------
    TimeSeriesDataSet
        The last window of every series.

    Raises
    ------
    ValueError
        If the model was not made from a dataset, or the table lacks a column, or has a label that
        the model does not know.
    """
    parameters = getattr(model, "dataset_parameters", None)
    if parameters is None:
        raise ValueError(
            "mLSTMTime: to predict a table, the model must know its dataset, got one that was not "
            "made from any; make it with mLSTMTime.from_dataset, or pass a TimeSeriesDataSet."
        )
    wanted = [parameters["time_idx"], *to_list(parameters["target"]), *parameters["group_ids"]]
    groups = parameters["variable_groups"] or {}
    for kind in ("static", "time_varying_known", "time_varying_unknown"):
        for names in (parameters[f"{kind}_categoricals"], parameters[f"{kind}_reals"]):
            for name in names or ():
                wanted.extend(groups.get(name, [name]))
    made = {"relative_time_idx", "encoder_length"}
    for target in to_list(parameters["target"]):
        made |= {f"{target}_center", f"{target}_scale"}
    for name, lags in (parameters["lags"] or {}).items():
        made |= {f"{name}_lagged_by_{lag}" for lag in lags}
    if parameters["weight"] is not None:
        wanted.append(parameters["weight"])
    missing = [name for name in dict.fromkeys(wanted) if name not in data and name not in made]
    if missing:
        raise ValueError(
            f"mLSTMTime: the table to predict must have the columns that the model was made with, "
            f"got none of {missing}; add these."
        )
    if data.empty:
        raise ValueError("mLSTMTime: the table to predict must have rows, got none.")
    time = parameters["time_idx"]
    if not types.is_integer_dtype(data[time]):
        raise TypeError(
            f"mLSTMTime: column {time!r} of the table to predict must hold integers, got "
            f"{data[time].dtype}; number the steps."
        )
    names = to_list(parameters["target"])
    for name, normalizer in zip(names, normalizers_of(model.output_transformer), strict=True):
        if not isinstance(normalizer, NaNLabelEncoder) and not is_real(data[name]):
            raise TypeError(
                f"mLSTMTime: column {name!r} of the table to predict must hold numbers, got "
                f"{data[name].dtype}; convert it."
            )
        if isinstance(normalizer, EncoderNormalizer) and data[name].dtype.kind in "iu":
            data = data.assign(**{name: data[name].astype(float)})  # it measures real ones only
    try:
        return BatchedTimeSeriesDataSet.from_parameters(parameters, data, predict=True)
    except HOST_ERRORS as error:
        unknown = isinstance(error, KeyError) and "Unknown category" in str(error)
        cure = (
            "train with categorical_encoders={'<variable>': NaNLabelEncoder(add_nan=True)}"
            if unknown
            else "give every series the steps and columns that the training data have"
        )
        raise ValueError(
            f"mLSTMTime: no dataset can be made of the table to predict: {_reason(error)}; "
            f"leave out such rows, or {cure}."
        ) from error


def check_samples(dataset: TimeSeriesDataSet) -> None:
    """Raise if the scales that the host measures in the history of a sample cannot be measured.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that a model is made from.

    Raises
    ------
    ValueError
        With the variable.
    """
    _check_real(dataset)
    _check_fills(dataset)
    covariates = [
        name
        for name in dataset.reals
        if name not in dataset.target_names and name not in dataset.lagged_variables
    ]
    scalers = {f"variable {name!r}": dataset.get_transformer(name) for name in covariates}
    # the host asks so much of a single target's itself
    for name, normalizer in zip(
        dataset.target_names, normalizers_of(dataset.target_normalizer), strict=True
    ):
        scalers[f"target {name!r}"] = normalizer
    for what, scaler in scalers.items():
        if isinstance(scaler, EncoderNormalizer) and scaler.min_length > dataset.min_encoder_length:
            raise ValueError(
                f"mLSTMTime: an EncoderNormalizer needs {scaler.min_length} steps of history to "
                f"scale {what}, got a dataset with min_encoder_length="
                f"{dataset.min_encoder_length}; make it longer, or give scalers, or "
                f"target_normalizer, another for it."
            )
    lengths = dataset.index["sequence_length"].to_numpy()
    try:
        for number in (int(lengths.argmin()), int(lengths.argmax())):
            dataset[number]
    except HOST_ERRORS as error:
        raise ValueError(
            f"mLSTMTime: the dataset cannot make its samples: {_reason(error)}; make it with other "
            f"lags, scalers or a target_normalizer."
        ) from error


def _check_real(dataset: TimeSeriesDataSet) -> None:
    """Raise if a target is no real one to its normalizer, but has to be."""
    targets = zip(dataset.target_names, normalizers_of(dataset.target_normalizer), strict=True)
    for (name, normalizer), values in zip(targets, dataset.data["target"], strict=True):
        if isinstance(normalizer, NaNLabelEncoder) and name in dataset.reals:
            raise ValueError(
                f"mLSTMTime: target {name!r} must not be among the real variables while its "
                f"target_normalizer is a NaNLabelEncoder, for labels; if it is a number, make the "
                f"dataset with data[{name!r}].astype(float)."
            )
        if isinstance(normalizer, EncoderNormalizer) and not values.is_floating_point():
            raise ValueError(
                f"mLSTMTime: target {name!r} must be of real numbers for an EncoderNormalizer, got "
                f"{values.dtype}; make the dataset with data[{name!r}].astype(float)."
            )


def _check_fills(dataset: TimeSeriesDataSet) -> None:
    """Raise if the host cannot fill in a value, which it would tell only where a gap comes up."""
    for name, value in dataset.encoded_constant_fill_strategy.items():
        if np.ndim(value) > 0:
            raise ValueError(
                f"mLSTMTime: the value that constant_fill_strategy has for {name!r} must be a "
                f"single number once it is scaled, got {len(value)} from its "
                f"{type(dataset.get_transformer(name)).__name__}; leave it out, or give scalers "
                f"another for {name!r}, such as GroupNormalizer()."
            )


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
