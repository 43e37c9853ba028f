"""The index of samples, against the loop of pytorch-forecasting."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.timeseries import _find_end_indices

from helpers.batched_configurations import Configuration, panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet, sample_index
from pytorch_forecasting_mlstm.data.sample_index import find_end_indices

CLASSES = (BatchedTimeSeriesDataSet, TimeSeriesDataSet)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=4),
    st.integers(1, 10),
    st.integers(1, 10),
)
def test_find_end_indices_matches_upstream(
    series: list[list[int]], max_length: int, min_length: int
) -> None:
    diffs, max_lengths = [], []
    for steps in series:
        steps_left = np.cumsum([0, *steps[::-1]])[::-1]
        diffs += [*steps, 1]
        max_lengths += np.minimum(steps_left + 1, max_length).tolist()
    loop = getattr(_find_end_indices, "py_func", _find_end_indices)  # with numba installed
    expected = loop(np.array(diffs), np.array(max_lengths), min_length)
    actual = find_end_indices(np.array(diffs), np.array(max_lengths), min_length)
    for actual_rows, expected_rows in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(actual_rows, expected_rows, strict=True)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    gaps=st.sampled_from([0.0, 0.3, 0.6]),
    predict=st.booleans(),
    min_prediction_idx=st.sampled_from([None, 12, 20]),
    encoder=st.integers(1, 9),
    prediction=st.integers(1, 4),
    variable=st.booleans(),
    block=st.sampled_from([1, 20, 2**15]),
)
@pytest.mark.filterwarnings("ignore:Min encoder length and/or min_prediction_idx:UserWarning")
def test_sample_index_matches_upstream(
    gaps: float,
    predict: bool,
    min_prediction_idx: int | None,
    encoder: int,
    prediction: int,
    variable: bool,
    block: int,
) -> None:
    """Also if samples are found for one series at a time, or for some."""
    table = panel(gaps=gaps, lengths=(17, 9, 14))
    configuration = Configuration(
        "index",
        lambda: dict(
            max_encoder_length=encoder,
            min_encoder_length=1 if variable else None,
            max_prediction_length=prediction,
            min_prediction_length=1 if variable else None,
            min_prediction_idx=min_prediction_idx,
            predict_mode=predict,
            allow_missing_timesteps=True,
            target_normalizer=None,
        ),
        lambda: table,
    )
    results = []
    for cls in CLASSES:
        try:
            with mock.patch.object(sample_index, "_BLOCK", block):
                results.append(configuration.build(cls).index)
        except (AssertionError, IndexError, ValueError) as error:
            results.append((type(error), str(error)))
    actual, expected = results
    assert type(actual) is type(expected)
    assert actual.equals(expected) if hasattr(actual, "equals") else actual == expected


def test_two_rows_of_one_time_are_rejected() -> None:
    table = panel(lengths=(17, 9, 14))
    table["time"] -= table["time"] > 7
    configuration = Configuration(
        "index", lambda: {"allow_missing_timesteps": True, "target_normalizer": None}, lambda: table
    )
    with pytest.raises(ValueError, match=r"one row per series and time index, .* at time=7 \(and"):
        configuration.build(BatchedTimeSeriesDataSet)


def test_sample_index_warns_about_short_series_as_upstream() -> None:
    configuration = Configuration("short", lambda: dict(max_encoder_length=18))
    messages = []
    for cls in CLASSES:
        with pytest.warns(UserWarning, match="too large for 2 series/groups") as caught:
            configuration.build(cls)
        messages.append([str(warning.message) for warning in caught])
    assert messages[0] == messages[1]


def test_sample_index_rejects_series_that_are_all_too_short_as_upstream() -> None:
    configuration = Configuration("all short", lambda: dict(max_encoder_length=40))
    messages = []
    for cls in CLASSES:
        with (
            pytest.warns(UserWarning, match="too large for 4 series/groups"),
            pytest.raises(AssertionError, match="filters should not remove") as error,
        ):
            configuration.build(cls)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_sample_index_rejects_missing_steps_that_are_not_allowed_as_upstream() -> None:
    configuration = Configuration("gaps", dict, lambda: panel(gaps=0.2))
    for cls in CLASSES:
        with pytest.raises(AssertionError, match="set allow_missing_timesteps=True"):
            configuration.build(cls)
