"""Index maths, gaps, series and labels, each against a loop that shares no code with it."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import GroupNormalizer, NaNLabelEncoder, TorchNormalizer
from pytorch_forecasting.data.timeseries import _timeseries as host

from helpers.batched_configurations import Configuration, panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.group_normalization import SeriesScales
from pytorch_forecasting_mlstm.data.label_encoding import VectorizedNaNLabelEncoder
from pytorch_forecasting_mlstm.data.missing_steps import source_of_each_step
from pytorch_forecasting_mlstm.data.sample_index import find_end_indices

series_of_diffs = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(series_of_diffs, st.integers(1, 10), st.integers(1, 10))
def test_end_indices_are_those_of_the_hosts_loop(
    series: list[list[int]], longest: int, shortest: int
) -> None:
    diffs, most = [], []
    for steps in series:
        left = np.cumsum([0, *steps[::-1]])[::-1]
        diffs += [*steps, 1]
        most += np.minimum(left + 1, longest).tolist()
    loop = getattr(host._find_end_indices, "py_func", host._find_end_indices)  # with numba
    expected = loop(np.array(diffs), np.array(most), shortest)
    actual = find_end_indices(np.array(diffs), np.array(most), shortest)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=4))
def test_each_step_is_filled_by_the_last_row_before_it(windows: list[list[int]]) -> None:
    times = [np.cumsum([3, *steps]) for steps in windows]
    ends = np.cumsum([len(each) for each in times])
    steps = max(int(each[-1] - each[0]) + 1 for each in times)
    source, missing = source_of_each_step(
        torch.from_numpy(np.concatenate(times)),
        torch.from_numpy(ends - [len(each) for each in times]).unsqueeze(1),
        torch.from_numpy(ends - 1).unsqueeze(1),
        most_rows=max(map(len, times)),
        steps=steps,
    )
    for sample, each in enumerate(times):
        for step in range(int(each[-1] - each[0]) + 1):
            time = each[0] + step
            assert source[sample, step] == max(row for row, at in enumerate(each) if at <= time)
            assert missing[sample, step] == (time not in each)


@pytest.mark.parametrize(
    "normalizer",
    [
        GroupNormalizer(groups=["shop", "product"]),
        GroupNormalizer(groups=["product", "shop"]),
        GroupNormalizer(groups=["shop", "product"], scale_by_group=True),
        GroupNormalizer(groups=["product"], scale_by_group=True),
        GroupNormalizer(groups=["product"]),
        GroupNormalizer(),
        TorchNormalizer(),
        type("Own", (GroupNormalizer,), {})(groups=["shop", "product"]),
    ],
    ids=str,
)
def test_scales_of_series_are_those_that_the_normalizer_gives(normalizer: Any) -> None:
    """Series that the normalizer has not seen included."""
    generator = np.random.default_rng(0)
    seen = pd.DataFrame(generator.integers(0, 3, size=(50, 2)), columns=["shop", "product"])
    values = pd.Series(generator.normal(5, 2, size=50))
    if isinstance(normalizer, GroupNormalizer):
        normalizer.fit(values, seen)
    else:
        normalizer.fit(values)
    series = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    groups = series.repeat_interleave(torch.arange(25) % 3 + 1, dim=0)
    scales = SeriesScales(normalizer, groups, ["shop", "product"])
    parameters = [normalizer.get_parameters(each, ["shop", "product"]) for each in groups]
    expected = (
        torch.stack(parameters)
        if isinstance(parameters[0], torch.Tensor)
        else torch.from_numpy(np.array(parameters, dtype=np.float32))
    )
    assert torch.equal(scales.of(np.arange(len(groups))), expected)
    assert scales.still_hold(normalizer, groups)
    assert not scales.still_hold(normalizer, groups.clone())


def test_many_series_each_have_their_own_scale() -> None:
    table = pd.concat([panel(lengths=(16,)).assign(shop=f"{number:03}") for number in range(150)])
    table["y"] *= table["shop"].astype(int) + 1
    configuration = Configuration(
        "many",
        lambda: dict(target_normalizer=GroupNormalizer(groups=["shop"]), group_ids=["shop"]),
        lambda: table.reset_index(drop=True),
    )
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=len(dataset))))
    means = table.groupby("shop")["y"].mean().to_numpy(dtype=np.float32)
    np.testing.assert_allclose(x["target_scale"][:, 0], means[x["groups"][:, 0]], rtol=1e-6)


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
def test_labels_are_encoded_as_the_host_does(kind: str, add_nan: bool, as_array: bool) -> None:
    labels, unknown = LABELS[kind], UNKNOWN.get(kind, pd.Series(["a", "z", "b", "y"]))
    if as_array:
        labels, unknown = labels.to_numpy(), unknown.to_numpy()
    results = []
    for cls in (VectorizedNaNLabelEncoder, NaNLabelEncoder):
        encoder = cls(add_nan=add_nan)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found: list[Any] = [encoder.fit_transform(labels)]
            for label_set, options in (
                (labels, dict(return_norm=True)),
                (unknown, dict(ignore_na=True)),
                (unknown, {}),
            ):
                try:
                    found.append(encoder.transform(label_set, **options))
                except (KeyError, StopIteration) as error:
                    found.append(str(error))
            encoder.fit(unknown)  # adds to what is known
            found += [list(encoder.classes_.items()), [type(each) for each in encoder.classes_]]
            found += [encoder.classes_vector_, [str(each.message) for each in told]]
        results.append(found)
    actual, expected = results
    np.testing.assert_equal(actual, expected)
    assert actual[0].dtype == expected[0].dtype


def test_tables_of_labels_are_refused_as_by_the_host() -> None:
    raised = []
    for cls in (VectorizedNaNLabelEncoder, NaNLabelEncoder):
        with pytest.raises(TypeError) as error:
            cls().fit(np.array([1, 2])).transform(np.array([[1, 2], [2, 1]]))
        raised.append(str(error.value))
    assert raised[0] == raised[1]


def test_lists_of_labels_are_encoded() -> None:
    encoder = VectorizedNaNLabelEncoder().fit(np.array([5, 7]))
    np.testing.assert_array_equal(encoder.transform([7, 5, 7]), [1, 0, 1])


def test_encoders_are_plain_again_even_if_building_fails() -> None:
    normalizer = NaNLabelEncoder()
    configuration = Configuration(
        "categorical target that is missing later",
        lambda: dict(
            target="state",
            target_normalizer=normalizer,
            time_varying_unknown_reals=[],
            time_varying_unknown_categoricals=["state"],
        ),
    )
    training = configuration.build(BatchedTimeSeriesDataSet)
    assert type(normalizer) is NaNLabelEncoder
    with pytest.raises(KeyError, match="Unknown category 'new' encountered") as actual:
        BatchedTimeSeriesDataSet(panel().assign(state="new"), **training.get_parameters())
    assert type(normalizer) is NaNLabelEncoder
    with pytest.raises(KeyError) as expected:
        TimeSeriesDataSet(panel().assign(state="new"), **training.get_parameters())
    assert str(actual.value) == str(expected.value)


def test_series_too_short_are_reported_as_by_the_host() -> None:
    settings_of = Configuration("short", lambda: dict(max_encoder_length=24))
    messages = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        with pytest.warns(UserWarning, match="too large for 2 series/groups") as told:
            settings_of.build(cls)
        messages.append([str(each.message) for each in told])
    assert messages[0] == messages[1]


def test_gaps_without_leave_are_refused_as_by_the_host() -> None:
    configuration = Configuration("gaps", dict, lambda: panel(gaps=0.2))
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        with pytest.raises(AssertionError, match="set allow_missing_timesteps=True"):
            configuration.build(cls)
