"""The forecaster passes the tests that sktime has for all forecasters."""

from typing import Any

import pytest

from helpers.sktime_data import use_naive_forecaster

pytest.importorskip("sktime.forecasting", reason="needs the extra 'sktime'")

from sktime.utils.estimator_checks import check_estimator  # noqa: E402

from pytorch_forecasting_mlstm.sktime import MLSTMForecaster  # noqa: E402

# Those of sktime's own code, of pandas there, and of data that sktime draws.
pytestmark = pytest.mark.filterwarnings("ignore")

#: About the class, and a few of each kind about an instance, without training.
QUICK = [
    "test_constructor",
    "test_get_test_params",
    "test_get_test_params_coverage",
    "test_has_common_interface",
    "test_inheritance",
    "test_object_tags",
    "test_obj_vs_cls_signature",
    "test_set_params",
    "test_valid_object_class_tags",
    "test_valid_object_tags",
    "test_categorical_y_raises_error",
    "test_fh_not_passed_error_handling",
    "test_fit_predict",
    "test_deepcopy_fitted",
    "test_hierarchical_with_exogenous",
    "test_predict_series_name_preserved",
    "test_raises_not_fitted_error",
    "test_unequal_length_hierarchical_fit_predict",
    "test_update_with_exogenous_variables",
    "test_X_invalid_type_raises_error",
    "test__y_remember_data",
]


def check(forecaster: Any, **options: Any) -> dict[str, str]:
    """Return the results of sktime's tests; the message of a failure has those that failed."""
    results = check_estimator(forecaster, raise_exceptions=False, verbose=0, **options)
    assert {test: result for test, result in results.items() if result != "PASSED"} == {}
    return results


def test_quick_checks_of_sktime_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    use_naive_forecaster(monkeypatch)
    results = check(MLSTMForecaster(**MLSTMForecaster.get_test_params()[0]), tests_to_run=QUICK)
    assert {name.split("[")[0] for name in results} == set(QUICK)


@pytest.mark.slow
def test_all_checks_of_sktime_pass() -> None:
    results = check(MLSTMForecaster)
    assert len(results) > 800
