"""Check numbers that a model reads, and report where they are not finite."""

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import GroupNormalizer, NaNLabelEncoder
from pytorch_forecasting.utils import to_list
from torch import Tensor

from ...._messages import format_series
from ..losses.link import target_normalizers
from ..padding import valid_steps
from .missing import masks_missing, may_be_missing_in_horizon

__all__ = [
    "check_centers",
    "check_finite",
    "check_transformations",
    "format_codes",
    "target_fill_values",
]

_TABLE_HINT = "correct the table, or what was changed after the dataset was made from it"
_SCALER_HINT = "correct the table, or give the dataset another scaler for it"
_NORMALIZER_HINT = "make the dataset with another target_normalizer"
_OTHER_TRANSFORMATIONS = {
    "log": "with transformation 'log1p' for zeros, or without transformation for negative values",
    "logit": "without transformation, or scale the target to values between 0 and 1",
}
#: Their inverses return no negative values, although they take them.
_WITHOUT_NEGATIVES = ("relu", "count")
_GROUP_HINT = (
    "a GroupNormalizer needs at least two rows of each group: drop groups with fewer, or make the "
    "dataset with another target_normalizer"
)


class _BatchValues(NamedTuple):
    """Values of a batch, (B, T), a mask of those that are read, and the time of the first step."""

    label: str
    values: Tensor
    valid: Tensor
    start: Tensor
    hint: str
    optional: bool = False  # whether NaN stands for a missing value, which may be


def check_finite(model: Any, x: dict[str, Any], y: tuple[Any, Any] | None = None) -> None:
    """Raise if the model or its loss reads a number in a batch that is not finite.

    NaN stands for a missing value in targets and in real variables of the history, and in those of
    the horizon that were missing in the training data as well.

    A finite batch costs one sum per tensor and one inspection of the result, which forces a
    synchronization if the batch is on an accelerator.

    Parameters
    ----------
    model : ForecastingModel
        Model that is going to read the batch.
    x : dict
        Batch of a dataset.
    y : tuple, optional
        Targets and weight, if a loss is going to read them.

    Raises
    ------
    ValueError
        With column, series and time of the first such number.
    """
    histories, scales = to_list(x["encoder_target"]), to_list(x["target_scale"])
    targets = [] if y is None else to_list(y[0])
    weights = [] if y is None or y[1] is None else [y[1]]
    normalizers = target_normalizers(model.output_transformer)
    history, horizon_reals = [x["encoder_cont"], *histories], x["decoder_cont"]
    optional, required = [horizon_reals, *targets], [*scales, *weights]
    (optional if masks_missing(model) else required).extend(history)
    required += [horizon_reals[..., column] for column in _required_columns(model)]
    for normalizer, history, scale in zip(normalizers, histories, scales, strict=True):
        if not isinstance(normalizer, NaNLabelEncoder):
            required.append(scale[:, 1].reciprocal())
            if _has_transformation(normalizer):
                required.append(_transform_observed(normalizer, history))
    total = sum(map(_float_sum, required), torch.zeros(()))
    # a sum with NaN or inf in it is not finite; without missing values, a plain sum is the fastest
    if torch.isfinite(sum(map(_float_sum, optional), total)):
        return
    if torch.isfinite(sum(map(_observed_sum, optional), total)):
        return
    for checked in _checked_values(model, x, targets, weights):
        finite = ~checked.values.isinf() if checked.optional else torch.isfinite(checked.values)
        nonfinite = checked.valid & ~finite
        if nonfinite.any():
            _raise_nonfinite(model, x, checked, nonfinite)


def _required_columns(model: Any) -> list[int]:
    """Return the columns of the horizon in which no value may be missing."""
    hparams = model.hparams
    read = {
        name
        for name in hparams.time_varying_reals_decoder
        if not may_be_missing_in_horizon(model, name)
    }
    read.update(hparams.static_reals)
    return [column for column, name in enumerate(hparams.x_reals) if name in read]


def check_transformations(dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if the transformation of a normalizer does not support all values of its target.

    Among these is the value that pytorch-forecasting fills gaps with.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that a model is made from.
    caller : str
        Name to begin the message with.
    """
    fills = target_fill_values(dataset)
    for name, normalizer, values in zip(
        dataset.target_names,
        target_normalizers(dataset.target_normalizer),
        dataset.data["target"],
        strict=True,
    ):
        if not _has_transformation(normalizer):
            continue
        rule = (
            f"{caller}: transformation {normalizer.transformation!r} must support all values of "
            f"target {name!r}"
        )
        if (
            name in fills
            and not _transform_observed(normalizer, torch.tensor(fills[name])).isfinite()
        ):
            raise ValueError(
                f"{rule}, got {fills[name]:g}, which constant_fill_strategy puts into its gaps; "
                f"leave {name!r} out of constant_fill_strategy, or {_NORMALIZER_HINT}."
            )
        undefined = ~torch.isfinite(_transform_observed(normalizer, values))
        if undefined.any():
            first = int(undefined.int().argmax())
            codes = dataset.data["groups"][first]
            time = f"{dataset.time_idx}={int(dataset.data['time'][first])}"
            hint = _OTHER_TRANSFORMATIONS.get(normalizer.transformation, "without transformation")
            raise ValueError(
                f"{rule}, got {values[first].item():g} for "
                f"{format_codes(dataset.get_parameters(), codes)} at {time} "
                f"({int(undefined.sum())} of {len(values)} values); {_NORMALIZER_HINT}, "
                f"{hint}."
            )


def check_centers(dataset: TimeSeriesDataSet, caller: str) -> None:
    """Raise if pytorch-forecasting computes a wrong center for a target.

    With ``scale_by_group`` it takes the geometric mean of the centers of a series' groups: for -5
    and -5 that is 5, and for -5 and 5 it is NaN.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that a model is made from.
    caller : str
        Name to begin the message with.
    """
    for name, normalizer in zip(
        dataset.target_names, target_normalizers(dataset.target_normalizer), strict=True
    ):
        several = isinstance(normalizer, GroupNormalizer) and len(normalizer._groups) > 1
        if not (several and normalizer.scale_by_group and normalizer.center):
            continue
        lowest = min(float(norms["center"].min()) for norms in normalizer.norm_.values())
        if lowest < 0:
            raise ValueError(
                f"{caller}: a GroupNormalizer with scale_by_group=True needs centers above 0 for "
                f"all groups of target {name!r}, got {lowest:g}: pytorch-forecasting takes their "
                f"geometric mean; make the dataset with scale_by_group=False."
            )


def target_fill_values(dataset: TimeSeriesDataSet) -> dict[str, float]:
    """Return what ``constant_fill_strategy`` puts into the gaps of real targets, by name.

    No column of the table shows these values. Without any gap there are none. Labels are checked
    by pytorch-forecasting.
    """
    windows = dataset.index
    rows = windows["index_end"] - windows["index_start"] + 1
    if not (rows < windows["sequence_length"]).any():
        return {}
    fills = dataset.encoded_constant_fill_strategy
    return {
        name: float(fills[f"__target__{name}"])
        for name in dataset.target_names
        if f"__target__{name}" in fills and name not in dataset.flat_categoricals
    }


def _float_sum(values: Tensor) -> Tensor:
    """Sum in float32 or wider. An overflow of finite numbers only leads to the detailed check."""
    if values.is_floating_point():
        wide = torch.promote_types(values.dtype, torch.float32)
        return values.detach().sum(dtype=wide)
    return values.new_zeros((), dtype=torch.float32)


def _observed_sum(values: Tensor) -> Tensor:
    """Sum as :func:`_float_sum`, without missing values."""
    if values.is_floating_point():
        wide = torch.promote_types(values.dtype, torch.float32)
        return values.detach().nansum(dtype=wide)
    return values.new_zeros((), dtype=torch.float32)


def _has_transformation(normalizer: Any) -> bool:
    return (
        not isinstance(normalizer, NaNLabelEncoder)
        and getattr(normalizer, "transformation", None) is not None
    )


def _transform(normalizer: Any, values: Tensor) -> Tensor:
    """Transform a target like pytorch-forecasting, but to inf or NaN where it is not supported.

    For the logarithm of 0, pytorch-forecasting returns -8388608, which leads to a scale in the
    millions and to its exponential. Outside of 0 to 1, it returns the logit of the nearer end.
    """
    if not values.is_floating_point():
        values = values.to(torch.get_default_dtype())
    transformed = normalizer.preprocess(values.detach())
    if normalizer.transformation == "log":
        transformed = transformed.masked_fill(values == 0, -torch.inf)
    if normalizer.transformation == "logit":
        transformed = transformed.masked_fill((values < 0) | (values > 1), torch.nan)
    if normalizer.transformation in _WITHOUT_NEGATIVES:
        transformed = transformed.masked_fill(values < 0, torch.nan)
    return transformed


def _transform_observed(normalizer: Any, values: Tensor) -> Tensor:
    """Transform a target, and return 0 where it is missing."""
    return _transform(normalizer, values).masked_fill(values.isnan(), 0)


def _checked_values(
    model: Any, x: dict[str, Any], targets: list[Tensor], weights: list[Tensor]
) -> Iterator[_BatchValues]:
    """Yield all values of a batch that the model or its loss reads."""
    hparams = model.hparams
    lengths, horizon_lengths = x["encoder_lengths"], x["decoder_lengths"]
    start = x["decoder_time_idx"][:, 0]
    history_steps = valid_steps(lengths, x["encoder_cont"].shape[1]), start - lengths
    horizon_steps = valid_steps(horizon_lengths, x["decoder_cont"].shape[1]), start
    names = to_list(hparams.target)
    normalizers = target_normalizers(model.output_transformer)
    for name, history in zip(names, to_list(x["encoder_target"]), strict=True):
        yield _BatchValues(
            f"target {name!r}", history, *history_steps, _TABLE_HINT, masks_missing(model)
        )
    for name, target in zip(names, targets, strict=False):
        yield _BatchValues(f"target {name!r}", target, *horizon_steps, _TABLE_HINT, True)
    for name, normalizer, history in zip(
        names, normalizers, to_list(x["encoder_target"]), strict=True
    ):
        if _has_transformation(normalizer):
            label = f"transformation {normalizer.transformation!r} of target {name!r}"
            yield _BatchValues(
                label, _transform_observed(normalizer, history), *history_steps, _NORMALIZER_HINT
            )
    for name, normalizer, scale in zip(names, normalizers, to_list(x["target_scale"]), strict=True):
        if not isinstance(normalizer, NaNLabelEncoder):
            first_step = torch.ones_like(scale[:, :1], dtype=torch.bool), start
            label = f"center of target {name!r}"
            yield _BatchValues(label, scale[:, :1], *first_step, _NORMALIZER_HINT)
            label = f"scale and 1 / scale of target {name!r}"
            values = scale[:, 1:].reciprocal() + scale[:, 1:]
            hint = _GROUP_HINT if isinstance(normalizer, GroupNormalizer) else _NORMALIZER_HINT
            yield _BatchValues(label, values, *first_step, hint)
    history_reals = {name for name in hparams.time_varying_reals_encoder if name not in names}
    horizon_reals = {*hparams.time_varying_reals_decoder, *hparams.static_reals}
    for key, steps, read in (
        ("encoder_cont", history_steps, history_reals),
        ("decoder_cont", horizon_steps, horizon_reals),
    ):
        for column, name in enumerate(hparams.x_reals):
            if name in read:
                optional = masks_missing(model) and (
                    key == "encoder_cont"
                    or name not in hparams.static_reals
                    and may_be_missing_in_horizon(model, name)
                )
                hint = _SCALER_HINT if optional else _known_hint(name, hparams)
                values = x[key][..., column]
                yield _BatchValues(f"variable {name!r}", values, *steps, hint, optional)
    for weight in weights:
        yield _BatchValues("weight", weight, *horizon_steps, _TABLE_HINT)


def _known_hint(name: str, hparams: Any) -> str:
    if name in hparams.static_reals:
        return _SCALER_HINT
    return f"{_SCALER_HINT}, or make the model with missing_values=[{name!r}], which masks NaN"


def _raise_nonfinite(
    model: Any, x: dict[str, Any], checked: _BatchValues, nonfinite: Tensor
) -> NoReturn:
    parameters = getattr(model, "dataset_parameters", None) or {}
    sample, step = (int(index) for index in nonfinite.nonzero()[0])
    time = f"{parameters.get('time_idx', 'time index')}={int(checked.start[sample]) + step}"
    series = format_codes(parameters, x["groups"][sample]) if parameters else f"sample {sample}"
    value = checked.values[sample, step].item()
    hint = checked.hint
    if checked.values.dtype in (torch.float16, torch.bfloat16):
        hint = f"{hint}, or train with precision='16-mixed', which leaves the data as they are"
    count, samples = int(nonfinite.sum()), int(nonfinite.any(1).sum())
    raise ValueError(
        f"{type(model).__name__}: {checked.label} must be finite, got {value} for {series} at "
        f"{time} ({count} values in {samples} of {len(nonfinite)} samples of this batch); {hint}."
    )


def format_codes(parameters: dict[str, Any], codes: Tensor) -> str:
    """Name a series by the labels of its groups.

    Parameters
    ----------
    parameters : dict
        Parameters of its dataset.
    codes : Tensor
        Codes of its groups.
    """
    encoders = parameters["categorical_encoders"]
    labels = []
    for name, code in zip(parameters["group_ids"], codes.tolist(), strict=True):
        classes = getattr(encoders.get(f"__group_id__{name}"), "classes_", {})
        labels.append(next((label for label, number in classes.items() if number == code), code))
    return format_series(parameters["group_ids"], labels)
