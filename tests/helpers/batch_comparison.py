"""Comparison of batches with those of pytorch-forecasting: bit by bit, or up to rounding."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer
from torch import Tensor

EPS = torch.finfo(torch.float32).eps
#: Error of a center or scale, relative to |center| + scale. The same float32 numbers are added in
#: different orders, and each sum is rounded: a few eps. The largest observed error is 2 eps.
SCALE_TOLERANCE = 4 * EPS
#: Error of a scaled value z = (x - center) / scale, relative to (1 + |z|) (1 + |center| / scale):
#: the rounding errors of x and of the center are divided by the scale.
SCALED_VALUE_TOLERANCE = 8 * EPS
#: |center| / scale of covariates, which batches do not contain. In the tables of these tests, a
#: history of two or three numbers can have a scale of a few hundredths of its center.
COVARIATE_CONDITION = 64


def assert_batches_match(
    actual: Any,
    expected: Any,
    dataset: TimeSeriesDataSet,
    where: str = "batches",
    *,
    other_device: bool = False,
) -> None:
    """Compare batches: up to rounding where an `EncoderNormalizer` adds numbers, else bit by bit.

    Keys, order, types, shapes and memory layout must always be the same.

    Parameters
    ----------
    actual, expected : sequence of tuple
        Batches or single samples ``x, (target, weight)``.
    dataset : TimeSeriesDataSet
        Dataset of the expected batches. Its normalizers determine what may be rounded.
    where : str
        Name of the batches in messages.
    other_device : bool
        Whether the actual batches were computed on another device, where all results of an
        `EncoderNormalizer` may be rounded.
    """
    rounds = partial(_rounds, other_device=other_device)
    assert len(actual) == len(expected), where
    exact = [
        (_with_exact_parts(x, expected_x, dataset, rounds, f"{where}[{number}]"), y)
        for number, ((x, y), (expected_x, _)) in enumerate(zip(actual, expected, strict=True))
    ]
    assert_identical(exact, list(expected), where)


def assert_scales_close(actual: Tensor, expected: Tensor, where: str = "scales") -> None:
    """Compare centers and scales, shape ``(B, 2)``, up to rounding; NaN equals NaN."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), where
    finite = expected.isfinite()
    assert_identical(actual[~finite], expected[~finite], where)
    eps = torch.finfo(expected.dtype).eps
    bound = SCALE_TOLERANCE / EPS * eps * (expected[..., :1].abs() + expected[..., 1:])
    assert (((actual - expected).abs() <= bound) | ~finite).all(), where


def _with_exact_parts(
    x: Any,
    expected: Any,
    dataset: TimeSeriesDataSet,
    rounds: Callable[[Any], bool],
    where: str,
) -> Any:
    """Compare values that may be rounded, and return ``x`` with the expected ones instead."""
    x = dict(x)
    scales, condition = _compare_scales(x, expected, dataset, rounds, where)
    x["target_scale"] = scales
    columns = _rounded_columns(dataset, rounds)
    for key in ("encoder_cont", "decoder_cont", "x_cont"):
        if key in x and columns:
            values, expected_values = x[key][..., columns], expected[key][..., columns]
            assert torch.equal(values.isnan(), expected_values.isnan()), f"{where}[{key!r}]"
            bound = SCALED_VALUE_TOLERANCE * (1 + expected_values.abs()) * (1 + condition)
            close = ((values - expected_values).abs() <= bound) | values.isnan()
            assert close.all(), f"{where}[{key!r}] differs at {(~close).nonzero()[:5].tolist()}"
            x[key] = x[key].clone()  # keeps the layout in memory
            x[key][..., columns] = expected_values
    return x


def _compare_scales(
    x: Any,
    expected: Any,
    dataset: TimeSeriesDataSet,
    rounds: Callable[[Any], bool],
    where: str,
) -> tuple[Any, Tensor]:
    """Compare target scales that may be rounded.

    Returns
    -------
    scales
        ``x["target_scale"]``, with the expected values for those that may be rounded.
    condition : Tensor
        Largest |center| / scale of each sample, shape ``(B, 1, 1)``.
    """
    multi = dataset.multi_target
    scales = [*x["target_scale"]] if multi else [x["target_scale"]]
    expected_scales = expected["target_scale"] if multi else [expected["target_scale"]]
    condition = torch.tensor(float(COVARIATE_CONDITION))
    for position, normalizer in enumerate(dataset.target_normalizers):
        if rounds(normalizer):
            scale = expected_scales[position]
            assert_scales_close(scales[position], scale, where)
            scales[position] = scale
            ratio = (scale[..., 0] / scale[..., 1]).abs().nan_to_num(0)
            condition = torch.maximum(condition, ratio[..., None, None])
    return scales if multi else scales[0], condition


def _rounded_columns(dataset: TimeSeriesDataSet, rounds: Callable[[Any], bool]) -> list[int]:
    """List the columns of reals that are scaled by a mean or a deviation of their history."""
    scale_features = {
        f"{target}_{part}"
        for target, normalizer in zip(dataset.target_names, dataset.target_normalizers, strict=True)
        if rounds(normalizer)
        for part in ("center", "scale")
    }
    return [
        column
        for column, name in enumerate(dataset.reals)
        if name in scale_features or rounds(dataset.get_transformer(name))
    ]


def _rounds(normalizer: Any, other_device: bool) -> bool:
    """Return whether a batch and a single sample may differ in their last bits.

    Quantiles do not differ. A custom transformation can contain operations that torch rounds
    differently in vector registers.
    """
    return isinstance(normalizer, EncoderNormalizer) and (
        other_device
        or normalizer.method == "standard"
        or isinstance(normalizer.transformation, dict)
    )


def assert_identical(actual: Any, expected: Any, where: str = "batch") -> None:
    """Compare nested dicts, lists and tuples of tensors: keys, order, types, layout and bits.

    Parameters
    ----------
    actual, expected : tensor, None, or dict, list or tuple of such
        Values to compare.
    where : str
        Name of the values in messages.
    """
    assert type(actual) is type(expected), where
    if isinstance(expected, dict):
        assert list(actual) == list(expected), where
        for name in expected:
            assert_identical(actual[name], expected[name], f"{where}[{name!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), where
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            assert_identical(*pair, f"{where}[{number}]")
    elif isinstance(expected, Tensor):
        assert actual.dtype == expected.dtype, where
        assert actual.shape == expected.shape, where
        assert actual.stride() == expected.stride(), where
        different = bits(actual) != bits(expected)
        assert not different.any(), (
            f"{where} differs at {different.nonzero()[:5].tolist()}: "
            f"{actual[different][:5].tolist()} instead of {expected[different][:5].tolist()}"
        )
    else:
        assert expected is None, where


def bits(values: Tensor) -> Tensor:
    """Return integers that differ where the bits differ, as for 0 and -0; all NaNs are equal."""
    if not values.is_floating_point():
        return values
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    return torch.where(values.isnan(), torch.nan, values).view(integers)
