"""Labels are encoded as by `NaNLabelEncoder`, and datasets keep plain encoders."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pytorch_forecasting.data import MultiNormalizer, TimeSeriesDataSet, TorchNormalizer
from pytorch_forecasting.data.encoders import NaNLabelEncoder

from helpers.batched_configurations import panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.label_encoding import DistinctLabelEncoder

LABELS = {
    "strings": pd.Series(["b", "a", "c", "a", "b"] * 3),
    "objects": pd.Series(["b", "a", "c", "a"] * 3, dtype=object),
    "categories": pd.Series(["b", "a", "c", "a"] * 3, dtype="category"),
    "unused categories": pd.Series(["b", "a"] * 3).astype(pd.CategoricalDtype(list("dcba"))),
    "integers": pd.Series([30, 10, 20, 10] * 3),
    "booleans": pd.Series([True, False, True]),
    "numbers": pd.Series([0.5, 0.1, 0.5]),
    "integer categories": pd.Series([3, 1, 3], dtype="category"),
    "one": pd.Series(["a"]),
    "none": pd.Series([], dtype=object),
}
UNKNOWN = {"numbers": pd.Series([0.5, 7.5, 0.1, np.nan]), "integers": pd.Series([10, 99, 30, 98])}


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("add_nan", [False, True])
@pytest.mark.parametrize("kind", LABELS)
def test_distinct_label_encoder_matches_upstream(kind: str, add_nan: bool, as_array: bool) -> None:
    labels, unknown = LABELS[kind], UNKNOWN.get(kind, pd.Series(["a", "z", "b", "y"]))
    if as_array:
        labels, unknown = labels.to_numpy(), unknown.to_numpy()
    results = []
    for adapted in (True, False):
        fitted = NaNLabelEncoder(add_nan=add_nan)
        encoder = DistinctLabelEncoder(fitted) if adapted else fitted
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result: list[Any] = [encoder.fit_transform(labels)]
            for label_set, options in (
                (labels, dict(return_norm=True)),
                (unknown, dict(ignore_na=True)),
                (unknown, {}),
            ):
                try:
                    result.append(encoder.transform(label_set, **options))
                except (KeyError, StopIteration) as error:
                    result.append(str(error))
            encoder.fit(unknown)  # adds to the known labels
            result += [list(fitted.classes_.items()), [type(key) for key in fitted.classes_]]
            result += [fitted.classes_vector_, [str(warning.message) for warning in caught]]
        results.append(result)
    actual, expected = results
    np.testing.assert_equal(actual, expected)
    assert actual[0].dtype == expected[0].dtype


def test_distinct_label_encoder_rejects_tables_as_upstream() -> None:
    messages = []
    for encoder in (DistinctLabelEncoder(NaNLabelEncoder()), NaNLabelEncoder()):
        with pytest.raises(TypeError) as error:
            encoder.fit(np.array([1, 2])).transform(np.array([[1, 2], [2, 1]]))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_distinct_label_encoder_accepts_lists() -> None:
    encoder = DistinctLabelEncoder(NaNLabelEncoder()).fit(np.array([5, 7]))
    np.testing.assert_array_equal(encoder.transform([7, 5, 7]), [1, 0, 1])


@pytest.mark.parametrize("is_list", [False, True], ids=["one", "several"])
def test_target_encoder_remains_plain_even_if_building_fails(is_list: bool) -> None:
    encoder = NaNLabelEncoder()
    normalizer = MultiNormalizer([encoder, TorchNormalizer()]) if is_list else encoder
    normalizers = normalizer.normalizers if is_list else None
    settings = dict(
        time_idx="time",
        target=["state", "signed"] if is_list else "state",
        target_normalizer=normalizer,
        group_ids=["shop", "product"],
        max_encoder_length=9,
        time_varying_unknown_categoricals=["state"],
    )

    def check(dataset: TimeSeriesDataSet | None) -> None:
        assert type(encoder) is NaNLabelEncoder
        assert dataset is None or dataset.target_normalizer is normalizer
        assert not is_list or normalizer.normalizers is normalizers
        assert not is_list or normalizers[0] is encoder

    check(BatchedTimeSeriesDataSet(panel(), **settings))
    assert list(encoder.classes_) == ["high", "low", "mid"]
    with pytest.raises(KeyError, match="Unknown category 'new' encountered") as actual:
        BatchedTimeSeriesDataSet(panel().assign(state="new"), **settings)
    check(None)
    with pytest.raises(KeyError) as expected:
        TimeSeriesDataSet(panel().assign(state="new"), **settings)
    assert str(actual.value) == str(expected.value)
