"""Every series has a scale of its own, whatever the size of its numbers."""

import numpy as np
import pytest

from helpers.forecasters import panel_of_values
from pytorch_forecasting_mlstm.forecaster.training.scaling import Scaling, round_to_float32

NOISE = np.random.default_rng(0).normal(size=50)


@pytest.mark.parametrize(
    ("scale", "level"),
    [(1, 0), (1e-12, 0), (1e-300, 0), (3e299, 0), (1, 1e9), (50, 1e15), (1, -1e6)],
)
def test_scaled_series_are_alike_and_come_back(scale: float, level: float) -> None:
    values = scale * NOISE + level
    panel = panel_of_values(values)
    scaling = Scaling.fit(panel)
    scaled = scaling.scale(panel)
    assert abs(scaled.mean()) < 0.02 and scaled.std() == pytest.approx(1, rel=0.02)
    forecast = scaled.reshape(1, 10, 5)
    np.testing.assert_allclose(scaling.unscale(forecast, panel).ravel(), values, rtol=1e-12)
    # The model sees float32, whose error is a small part of the spread.
    seen = scaling.unscale(forecast.astype(np.float32).astype(float), panel).ravel()
    assert np.abs(seen - values).max() <= 3e-7 * scaling.spread[0] + 1e-15 * abs(level)


@pytest.mark.parametrize("level", [0.0, 7.0, -3.0, 1e15, 1e-12, 0.1 + 0.2])
def test_constant_series_have_the_scale_of_their_size(level: float) -> None:
    """Rounding errors do not count as changes."""
    values = np.full(30, level)
    values[3] = np.nextafter(level, 1e99) if level else 0.0
    scaling = Scaling.fit(panel_of_values(values))
    assert scaling.spread[0] == pytest.approx(abs(level) or 1.0)


def test_held_out_rows_and_missing_ones_decide_no_center() -> None:
    first = [1.0, np.nan, 3.0, 2, 2, 2]
    scaling = Scaling.fit(panel_of_values(first, [5.0, 9.0]), held_out=3)
    assert scaling.center.tolist() == [2.0, 7.0]  # the second is no longer: measured as a whole
    assert scaling.spread.tolist() == [1.0, 2.0]


def test_launch_in_held_out_rows_is_no_error_of_hundreds_of_spreads() -> None:
    """Its errors would be nearly all of the loss that chooses the epoch of all series."""
    launched = [0.0, 0.1, 0.0, 0.1, 50.0, 60.0, 55.0]
    scaling = Scaling.fit(panel_of_values(launched), held_out=3)
    assert scaling.center.tolist() == [pytest.approx(0.05)]
    assert scaling.spread.tolist() == [pytest.approx(np.std(launched))]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_launch_after_constant_rows_has_its_own_spread_in_any_unit(
    unit: float, level: float
) -> None:
    launched = unit * np.array([level, level, level, level, 0.5, 0.6, 0.55])
    scaling = Scaling.fit(panel_of_values(launched), held_out=3)
    assert scaling.spread.tolist() == [pytest.approx(np.std(launched))]
    constant = Scaling.fit(panel_of_values(launched[:4]), held_out=3)
    assert constant.spread.tolist() == [unit * level or 1.0]


def test_known_series_keep_their_scale_and_new_ones_are_measured() -> None:
    known = Scaling(np.array([10.0, 20.0]), np.array([1.0, 2.0]))
    here = known.match(panel_of_values([4.0, 6.0], [7.0, 9.0]), np.array([2, 1]))
    assert here.center.tolist() == [5.0, 20.0] and here.spread.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("spread", [1e-310, 1e-300, 1e-12, 0.3, 1.0, 1e6, 1e299])
def test_rounding_keeps_the_order_and_six_digits_of_the_spread(spread: float) -> None:
    values = np.sort(np.random.default_rng(0).normal(size=(1, 30))) * spread
    rounded = round_to_float32(values, np.array([spread]))
    assert np.abs(rounded - values).max() <= 1e-6 * spread
    assert (np.diff(rounded) >= 0).all()


def test_rounding_writes_short_numbers() -> None:
    assert round_to_float32(np.array([[12.0950912345]]), np.array([2.0]))[0, 0] == 12.095091
    assert round_to_float32(np.array([[123456789.4]]), np.array([5e8]))[0, 0] == 123456800
