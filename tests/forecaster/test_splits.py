"""Training, validation and test data do not overlap."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.tables import make_test_panel
from helpers.times import iso, read_times_panel, write_times
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.splits import min_rows, split_panel
from pytorch_forecasting_mlstm.forecaster.windows import cut_windows


@given(
    lengths=st.lists(st.integers(20, 400), min_size=1, max_size=4),
    horizon=st.integers(1, 30),
    history=st.none() | st.integers(1, 2),
)
def test_split_panel_parts_do_not_overlap(
    lengths: list[int], horizon: int, history: int | None
) -> None:
    lengths = [max(length, min_rows(horizon)) for length in lengths]
    panel = make_test_panel(*(np.arange(float(length)) for length in lengths))
    split = split_panel(panel, horizon, history)
    for origins, begin, end in (
        (split.validation_origins, split.validation, split.test),
        (split.test_origins, split.test, split.end),
    ):
        assert origins.min() >= begin
        assert origins.max() == end - horizon, "the latest window is missing"
        assert len(origins) * len(lengths) <= max(1000, len(lengths))
    shortest_training = min(lengths) - (split.end - split.validation)
    assert shortest_training >= split.min_history + horizon
    assert 1 <= split.min_history <= split.history
    windows = cut_windows(panel, split, split.test_origins)
    for past, actual in zip(windows.history, windows.actual, strict=True):
        assert actual.tolist() == [past[-1] + 1 + k for k in range(horizon)]


@pytest.mark.parametrize("horizon", [10**12, 10**40])
def test_split_panel_horizons_of_any_size(tmp_path: Path, horizon: int) -> None:
    """The search for a fitting horizon does not try every smaller one."""
    with pytest.raises(InputError, match="beyond 9999-12-31|too short for horizon"):
        read_times_panel(
            write_times(tmp_path / "t.csv", {"a": iso("2024-01-01", 40, 1, "D")}), horizon
        )
    panel = read_times_panel(write_times(tmp_path / "t.csv", {"a": range(40)}))
    with pytest.raises(InputError, match="choose horizon 1[12] or less"):
        split_panel(panel, 10**15)
