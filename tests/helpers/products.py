"""Parameters of which the quick tests run a part: `make test-all` runs all of them."""

import math
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import pytest


def spread(
    names: str, *axes: Mapping[str, Any] | Iterable[Any], every: int = 1
) -> pytest.MarkDecorator:
    """Parametrize a test with all combinations; those that a quick run can spare are slow.

    The quick ones are as many as the first axis is long. They cover every value of every axis.

    Parameters
    ----------
    names : str
        Names of the arguments, separated by commas.
    *axes
        Values of each argument: a mapping from their names, or the values. The first axis must be
        the longest, for the others are covered along it.
    every : int, default 1
        Distance of the values of the first axis that are quick: others may be in a related test.
    """
    named = [
        list(axis.items()) if isinstance(axis, Mapping) else [(str(value), value) for value in axis]
        for axis in axes
    ]
    first, *others = map(len, named)
    assert all(first >= length for length in others), "the first axis must be the longest"
    quick = {
        (every * number, *_positions(number, others)) for number in range(math.ceil(first / every))
    }
    return pytest.mark.parametrize(
        names,
        [
            pytest.param(
                *(value for _, value in case),
                id="-".join(name for name, _ in case),
                marks=[] if positions in quick else pytest.mark.slow,
            )
            for positions, case in zip(
                product(*(range(len(axis)) for axis in named)), product(*named), strict=True
            )
        ],
    )


def alternate(
    name: str, values: Iterable[Any], first: int = 0, every: int = 2
) -> pytest.MarkDecorator:
    """Parametrize a test with values of which every second is quick, and the others are slow.

    Parameters
    ----------
    name : str
        Name of the argument.
    values : iterable
        Its values, shown as text.
    first : int, default 0
        Position of the first value that is quick. Give related tests different ones, so that each
        value is in a quick test.
    every : int, default 2
        Distance of the values that are quick.
    """
    return pytest.mark.parametrize(
        name,
        [
            pytest.param(value, marks=[] if number % every == first else pytest.mark.slow)
            for number, value in enumerate(values)
        ],
        ids=str,
    )


def _positions(number: int, lengths: list[int]) -> list[int]:
    """Return a position on each of the other axes, so that pairs vary as early as they can."""
    positions, stride = [], 1
    for length in lengths:
        shift = number // stride if stride > 1 else 0
        positions.append((number + shift) % length)
        stride *= length
    return positions
