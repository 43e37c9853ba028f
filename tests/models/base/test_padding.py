"""Masks and alignment, against computations sample by sample."""

import numpy as np
import pytest
import torch

from helpers.ragged import LENGTHS, ragged
from pytorch_forecasting_mlstm.models.base.padding import (
    align_right,
    valid_steps,
)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("size", [5, 8])
def test_valid_steps_marks_as_many_steps_as_the_length(size: int, right: bool) -> None:
    _, _, expected = ragged(size, right)
    assert torch.equal(valid_steps(LENGTHS, size, right=right), expected)


@pytest.mark.parametrize("size", [5, 7, 9])
@pytest.mark.parametrize("steps", [5, 6])
@pytest.mark.parametrize("features", [(), (2,), (2, 3)])
def test_align_right_moves_valid_steps_to_the_end(
    features: tuple[int, ...], steps: int, size: int
) -> None:
    x = torch.arange(len(LENGTHS) * steps * int(np.prod(features))).view(-1, steps, *features)
    aligned = align_right(x, LENGTHS, size)
    assert aligned.shape == (len(LENGTHS), size, *features)
    for row, length in enumerate(LENGTHS):
        assert torch.equal(aligned[row, size - length :], x[row, :length])


def test_align_right_pads_an_empty_history() -> None:
    aligned = align_right(torch.ones(2, 0, 3), torch.zeros(2, dtype=torch.long), 4)
    assert aligned.shape == (2, 4, 3)
