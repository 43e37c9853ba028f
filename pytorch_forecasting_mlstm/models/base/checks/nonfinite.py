"""Numbers that are not finite: which column and which series have them, before they are used."""

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import GroupNormalizer, NaNLabelEncoder
from pytorch_forecasting.utils import to_list
from torch import Tensor

from ..losses.factory import normalizers_of
from ..padding import valid_steps
from .fills import target_fills

__all__ = ["check_centers", "check_finite", "check_transformations"]

_GIVEN = "correct the table, or what was changed after the dataset was made of it"
_SCALED = "correct the table, or give the dataset another scaler for it"
_NORMALIZED = "make the dataset with another target_normalizer"


class _Part(NamedTuple):
    """A part of a batch that is read, (B, T), with its valid steps and the time of its first."""

    what: str
    values: Tensor
    valid: Tensor
    start: Tensor
    cure: str


def check_finite(model: Any, x: dict[str, Any], y: tuple[Any, Any] | None = None) -> None:
    """Raise if a batch has a number that is not finite, where the model or its loss reads it.

    As long as there is none, this costs one sum of each tensor and a single look at the result,
    which for a batch that is on an accelerator waits for it.

    Parameters
    ----------
    model : mLSTMTime
        Model that is going to read the batch.
    x : dict
        Batch of the host.
    y : tuple, optional
        Targets and weight, where a loss is going to read them.

    Raises
    ------
    ValueError
        With column, series and time of the first such number.
    """
    histories, scales = to_list(x["encoder_target"]), to_list(x["target_scale"])
    targets = [] if y is None else to_list(y[0])
    weights = [] if y is None or y[1] is None else [y[1]]
    normalizers = normalizers_of(model.output_transformer)
    read = [x["encoder_cont"], x["decoder_cont"], *histories, *scales, *targets, *weights]
    for normalizer, history, scale in zip(normalizers, histories, scales, strict=True):
        if not isinstance(normalizer, NaNLabelEncoder):
            read.append(scale[:, 1].reciprocal())
            if _transforms(normalizer):
                read.append(_transformed(normalizer, history))
    if torch.isfinite(sum(map(_total, read), torch.zeros(()))):
        return  # NaN and inf stay what they are in a sum
    for part in _parts(model, x, targets, weights):
        wrong = part.valid & ~torch.isfinite(part.values)
        if wrong.any():
            _raise(model, x, part, wrong)


def check_transformations(dataset: TimeSeriesDataSet) -> None:
    """Raise if a target has values that its normalizer's transformation is not defined for.

    What the host fills its gaps with is among them.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that a model is made from.
    """
    fills = target_fills(dataset)
    for name, normalizer, values in zip(
        dataset.target_names,
        normalizers_of(dataset.target_normalizer),
        dataset.data["target"],
        strict=True,
    ):
        if not _transforms(normalizer):
            continue
        if name in fills and not _transformed(normalizer, torch.tensor(fills[name])).isfinite():
            raise ValueError(
                f"mLSTMTime: transformation {normalizer.transformation!r} must be defined for all "
                f"values of target {name!r}, got {fills[name]:g}, which constant_fill_strategy "
                f"puts into its gaps; leave {name!r} out of constant_fill_strategy, or "
                f"{_NORMALIZED}."
            )
        wrong = ~torch.isfinite(_transformed(normalizer, values))
        if wrong.any():
            first = int(wrong.int().argmax())
            codes = dataset.data["groups"][first]
            time = f"{dataset.time_idx}={int(dataset.data['time'][first])}"
            raise ValueError(
                f"mLSTMTime: transformation {normalizer.transformation!r} must be defined for all "
                f"values of target {name!r}, got {values[first].item():g} for "
                f"{_series(dataset.get_parameters(), codes)} at {time} ({int(wrong.sum())} of "
                f"{len(values)} values); {_NORMALIZED}, 'log1p' in the place of 'log' for example."
            )


def check_centers(dataset: TimeSeriesDataSet) -> None:
    """Raise if the host has the wrong center for a target, or none.

    With ``scale_by_group`` it takes the geometric mean of a series' centers over its groups: of -5
    and -5 that is 5, and of -5 and 5 NaN.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that a model is made from.
    """
    for name, normalizer in zip(
        dataset.target_names, normalizers_of(dataset.target_normalizer), strict=True
    ):
        several = isinstance(normalizer, GroupNormalizer) and len(normalizer._groups) > 1
        if not (several and normalizer.scale_by_group and normalizer.center):
            continue
        lowest = min(float(own["center"].min()) for own in normalizer.norm_.values())
        if lowest < 0:
            raise ValueError(
                f"mLSTMTime: a GroupNormalizer with scale_by_group=True needs centers above 0 of "
                f"all groups of target {name!r}, got {lowest:g}: the host takes their geometric "
                f"mean; make the dataset with scale_by_group=False."
            )


def _total(values: Tensor) -> Tensor:
    """Sum up; a sum of finite numbers that overflows only asks for a closer look."""
    if values.is_floating_point():
        wide = torch.promote_types(values.dtype, torch.float32)
        return values.detach().sum(dtype=wide)
    return values.new_zeros((), dtype=torch.float32)


def _transforms(normalizer: Any) -> bool:
    return (
        not isinstance(normalizer, NaNLabelEncoder)
        and getattr(normalizer, "transformation", None) is not None
    )


def _transformed(normalizer: Any, values: Tensor) -> Tensor:
    """Transform a target as the host does, but for what it puts numbers for that mean nothing.

    For the logarithm of 0 it takes -8388608, which makes a scale of millions, and exp(millions) of
    it; for the logit of any number outside of 0 to 1 that of the nearer end.
    """
    if not values.is_floating_point():
        values = values.to(torch.get_default_dtype())
    transformed = normalizer.preprocess(values.detach())
    if normalizer.transformation == "log":
        transformed = transformed.masked_fill(values == 0, -torch.inf)
    if normalizer.transformation == "logit":
        transformed = transformed.masked_fill((values < 0) | (values > 1), torch.nan)
    return transformed


def _parts(
    model: Any, x: dict[str, Any], targets: list[Tensor], weights: list[Tensor]
) -> Iterator[_Part]:
    """Take a batch apart, into what is read of it."""
    hparams = model.hparams
    lengths, horizon = x["encoder_lengths"], x["decoder_lengths"]
    ahead = x["decoder_time_idx"][:, 0]
    past = valid_steps(lengths, x["encoder_cont"].shape[1]), ahead - lengths
    future = valid_steps(horizon, x["decoder_cont"].shape[1]), ahead
    names = to_list(hparams.target)
    normalizers = normalizers_of(model.output_transformer)
    for name, history in zip(names, to_list(x["encoder_target"]), strict=True):
        yield _Part(f"target {name!r}", history, *past, _GIVEN)
    for name, target in zip(names, targets, strict=False):
        yield _Part(f"target {name!r}", target, *future, _GIVEN)
    for name, normalizer, history in zip(
        names, normalizers, to_list(x["encoder_target"]), strict=True
    ):
        if _transforms(normalizer):
            what = f"transformation {normalizer.transformation!r} of target {name!r}"
            yield _Part(what, _transformed(normalizer, history), *past, _NORMALIZED)
    for name, normalizer, scale in zip(names, normalizers, to_list(x["target_scale"]), strict=True):
        if not isinstance(normalizer, NaNLabelEncoder):
            one = torch.ones_like(scale[:, :1], dtype=torch.bool), ahead
            yield _Part(f"center of target {name!r}", scale[:, :1], *one, _NORMALIZED)
            inverse = scale[:, 1:].reciprocal() + scale[:, 1:]
            yield _Part(f"scale and 1 / scale of target {name!r}", inverse, *one, _NORMALIZED)
    read = {name for name in hparams.time_varying_reals_encoder if name not in names}
    for part, steps, own in (
        ("encoder_cont", past, read),
        ("decoder_cont", future, {*hparams.time_varying_reals_decoder, *hparams.static_reals}),
    ):
        for column, name in enumerate(hparams.x_reals):
            if name in own:
                yield _Part(f"variable {name!r}", x[part][..., column], *steps, _SCALED)
    for weight in weights:
        yield _Part("weight", weight, *future, _GIVEN)


def _raise(model: Any, x: dict[str, Any], part: _Part, wrong: Tensor) -> NoReturn:
    parameters = getattr(model, "dataset_parameters", None) or {}
    sample, step = (int(index) for index in wrong.nonzero()[0])
    time = f"{parameters.get('time_idx', 'time index')}={int(part.start[sample]) + step}"
    series = _series(parameters, x["groups"][sample]) if parameters else f"sample {sample}"
    value = part.values[sample, step].item()
    cure = part.cure
    if part.values.dtype in (torch.float16, torch.bfloat16):
        cure = f"{cure}, or train with precision='16-mixed', which leaves the data as they are"
    raise ValueError(
        f"mLSTMTime: {part.what} must be finite, got {value} for {series} at {time} "
        f"({int(wrong.sum())} values in {int(wrong.any(1).sum())} of {len(wrong)} samples of this "
        f"batch); {cure}."
    )


def _series(parameters: dict[str, Any], codes: Tensor) -> str:
    """Name a series by the labels of its groups."""
    encoders = parameters["categorical_encoders"]
    labels = []
    for name, code in zip(parameters["group_ids"], codes.tolist(), strict=True):
        classes = getattr(encoders.get(f"__group_id__{name}"), "classes_", {})
        label = next((label for label, number in classes.items() if number == code), code)
        labels.append(f"{name}={label!r}")
    return ", ".join(labels)
