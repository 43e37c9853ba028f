"""Comparison of batches: the same to the last bit."""

from typing import Any

import torch
from torch import Tensor


def assert_identical(actual: Any, expected: Any, where: str = "batch") -> None:
    """Compare nested dicts, lists and tuples of tensors: keys, order, types, layout and bits.

    Parameters
    ----------
    actual, expected : tensor, None, or dict, list or tuple of such
        what to compare
    where : str
        name of it, for messages
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
    """Turn numbers into integers that differ wherever the numbers do: 0 and -0, but not NaN."""
    if not values.is_floating_point():
        return values
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    return torch.where(values.isnan(), torch.nan, values).view(integers)
