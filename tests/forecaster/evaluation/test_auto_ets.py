"""AutoETS as a baseline; most tests need statsforecast, which is an extra."""

import numpy as np
import pytest

from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.evaluation import auto_ets
from pytorch_forecasting_mlstm.forecaster.evaluation.auto_ets import ets_forecast, has_statsforecast

LEVELS = [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.6]
needs_statsforecast = pytest.mark.skipif(
    not has_statsforecast(), reason="needs statsforecast: pip install .[baselines]"
)


def seasonal(length: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 20 + 5 * np.sin(np.arange(length) * np.pi / 6) + rng.normal(size=length)


def test_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_ets, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"statsforecast.*pip install .*\[baselines\]"):
        ets_forecast(seasonal(50), 3, [12], LEVELS)


@needs_statsforecast
def test_forecast_equals_that_of_statsforecast() -> None:
    from statsforecast.models import AutoETS

    values = seasonal(120)
    point, quantiles = ets_forecast(values, 6, [364, 12, 1], LEVELS)
    expected = AutoETS(season_length=12).forecast(values, 6, level=[20.0, 80.0])
    assert np.allclose(point, expected["mean"]) and np.ptp(point) > 3, "12 is its season"
    assert np.allclose(quantiles[:, 3], point)
    assert np.allclose(quantiles[:, 1], expected["lo-80.0"])
    assert np.allclose(quantiles[:, 5], expected["hi-80.0"])
    assert np.allclose(quantiles[:, 7], expected["hi-20.0"])
    order = np.argsort(LEVELS)
    assert (np.diff(quantiles[:, order]) > 0).all()


@needs_statsforecast
def test_missing_values_are_interpolated() -> None:
    values = seasonal(80)
    gaps = values.copy()
    gaps[[0, 40, 79]] = np.nan
    filled = values[1:].copy()
    filled[39], filled[78] = (values[39] + values[41]) / 2, values[78]
    for result, expected in zip(
        ets_forecast(gaps, 3, [12], LEVELS), ets_forecast(filled, 3, [12], LEVELS), strict=True
    ):
        assert np.array_equal(result, expected)


@needs_statsforecast
@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_too_short_histories_have_no_forecast(length: int) -> None:
    point, quantiles = ets_forecast(seasonal(length), 3, [12], LEVELS)
    assert point.shape == (3,) and quantiles.shape == (3, 8)
    assert np.isnan(point).all() and np.isnan(quantiles).all()
    assert np.isnan(ets_forecast(np.full(40, np.nan), 3, [12], LEVELS)[0]).all()


@needs_statsforecast
@pytest.mark.parametrize("factor", [0.0, -1.0, 1e9, 1e-9])
def test_extreme_values(factor: float) -> None:
    point, quantiles = ets_forecast(factor * seasonal(60), 3, [12], LEVELS)
    assert np.isfinite(point).all() and np.isfinite(quantiles).all()
    assert np.allclose(point, factor * ets_forecast(seasonal(60), 3, [12], LEVELS)[0], rtol=0.1)


@needs_statsforecast
def test_only_the_last_values_of_a_long_history_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_ets, "_MAX_VALUES", 60)
    values = seasonal(100)
    long = np.concatenate([[np.nan, 1e6, -1e6], values])
    for result, expected in zip(
        ets_forecast(long, 3, [12], LEVELS),
        ets_forecast(values[-60:], 3, [12], LEVELS),
        strict=True,
    ):
        assert np.array_equal(result, expected)
