"""Defaults that follow from the length of the history."""

import pytest

from pytorch_forecasting_mlstm.models.mlstm_time.defaults import (
    default_moving_averages,
    default_patch_length,
)


@pytest.mark.parametrize("steps", [*range(1, 600, 7), 63, 64, 511, 512, 4096])
def test_default_patch_length_leaves_enough_tokens(steps: int) -> None:
    allowed = [patch for patch in (2, 4, 8, 16) if steps // patch >= 32]
    assert default_patch_length(steps) == max(allowed, default=1)


@pytest.mark.parametrize("steps", range(1, 600, 7))
def test_default_moving_averages_leave_three_components(steps: int) -> None:
    trend, smooth = default_moving_averages(steps)
    assert trend > smooth > 1
    assert trend % 2 == smooth % 2 == 1
    assert trend <= max(steps / 2, 5)
