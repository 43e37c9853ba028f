"""Missing steps are filled without a change of what was observed."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.panel.missing import check_missing, fill_missing

WAYS = ["mask", "previous", "interpolate", 0, -2.5]
values_with_gaps = st.lists(
    st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=0, max_size=12
).map(lambda values: np.array(values, dtype=float))


@given(values_with_gaps, st.sampled_from(WAYS))
def test_fill_missing_agrees_with_pandas(values: np.ndarray, how: str | float) -> None:
    before = values.copy()
    series = pd.Series(values)
    expected = {
        "mask": lambda: series,
        "previous": series.ffill,
        "interpolate": lambda: series.interpolate(limit_area="inside"),
    }.get(str(how), lambda: series.fillna(how))()
    filled = fill_missing(values, how)
    np.testing.assert_allclose(filled, expected.to_numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(values, before)
    assert not np.shares_memory(filled, values)
    observed = ~np.isnan(values)
    np.testing.assert_array_equal(filled[observed], values[observed])


def test_nothing_is_made_up_outside_of_the_observations() -> None:
    values = np.array([np.nan, 1.0, np.nan, np.nan, 4.0, np.nan])
    nan = float("nan")
    for how, expected in (
        ("previous", [nan, 1.0, 1.0, 1.0, 4.0, 4.0]),
        ("interpolate", [nan, 1.0, 2.0, 3.0, 4.0, nan]),
        (7, [7.0, 1.0, 7.0, 7.0, 4.0, 7.0]),
    ):
        np.testing.assert_array_equal(fill_missing(values, how), expected)
        assert np.isnan(fill_missing(np.full(3, nan), "previous")).all()


@pytest.mark.parametrize("how", [0, 1.5, np.float32(2), np.int64(3)])
def test_check_missing_accepts_numbers(how: float) -> None:
    assert check_missing(how) == float(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("ffill", "got 'ffill' (did you mean 'previous'?)"),
        ("Interpolation", "(did you mean 'interpolate'?)"),
        ("linear", "(did you mean 'interpolate'?)"),
        ("MASK", "(did you mean 'mask'?)"),
        ("zero", "(did you mean 0?)"),
        ("xyz", "missing must be 'mask', 'previous', 'interpolate' or a finite number, got 'xyz'"),
        (None, "got None"),
        (True, "got True"),
        (float("nan"), "got nan"),
        (float("inf"), "got inf"),
        ([0], "got [0]"),
    ],
)
def test_check_missing_refuses(how: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_missing(how)
    assert message in str(caught.value)
