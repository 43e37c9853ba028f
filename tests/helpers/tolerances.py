"""Assertions on tensors and error messages, with one table of tolerances for the whole suite."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

#: Largest error, as a fraction of (1 + the largest expected magnitude).
TOLERANCE = {
    torch.float64: 1e-12,  # a few thousand roundings of 1e-16
    torch.float32: 1e-5,  # about a hundred roundings of 1e-7
    torch.bfloat16: 2e-2,  # the last of 8 bits is 4e-3; a projection rounds several times
}


def assert_close(
    actual: Any, expected: Any, tolerance: float | None = None, name: str = "result"
) -> None:
    """Assert equal structure, shape, dtype and device, and values within ``TOLERANCE``.

    Tuples and named tuples are compared element by element. NaN and infinity are never close.
    """
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple) and len(actual) == len(expected), name
        fields: Iterable[Any] = getattr(expected, "_fields", range(len(expected)))
        for field, actual_part, expected_part in zip(fields, actual, expected, strict=True):
            assert_close(actual_part, expected_part, tolerance, f"{name}.{field}")
        return
    assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
    assert actual.dtype == expected.dtype, f"{name}: {actual.dtype} is not {expected.dtype}"
    assert actual.device == expected.device, f"{name}: {actual.device} is not {expected.device}"
    assert actual.isfinite().all(), f"{name}: not finite"
    if not expected.numel():
        return
    bound = (TOLERANCE[expected.dtype] if tolerance is None else tolerance) * (
        1 + expected.abs().max().item()
    )
    error = (actual - expected).abs().max().item()
    assert error <= bound, f"{name}: error {error:.2e}, expected at most {bound:.2e}"


def assert_identical(actual: Any, expected: Any, name: str = "result") -> None:
    """Assert equality to the last bit."""
    if isinstance(expected, tuple):
        for index, parts in enumerate(zip(actual, expected, strict=True)):
            assert_identical(*parts, f"{name}[{index}]")
        return
    assert actual.dtype == expected.dtype, f"{name}: {actual.dtype} is not {expected.dtype}"
    assert torch.equal(actual, expected), f"{name}: not identical"


def assert_raises_mentioning(call: Callable[[], Any], *words: str) -> None:
    """Assert that a call raises a ValueError or TypeError whose message contains all words."""
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    message = str(raised.value)
    for word in words:
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message), f"no {word!r} in {message!r}"
