"""Batches match `TimeSeriesDataSet` in every configuration that it offers."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer, NaNLabelEncoder, TorchNormalizer

from helpers.batch_comparison import (
    assert_batches_match,
    assert_identical,
    assert_scales_close,
)
from helpers.batched_configurations import CONFIGURATIONS, Configuration, find_configuration, panel
from helpers.datasets import make_table
from helpers.products import spread
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

pytestmark = [
    # scikit-learn, if arrays are given to a scaler that was fitted to a table
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    # torch, on the arrays that MultiNormalizer takes from pandas
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]


def load(dataset: TimeSeriesDataSet, seed: int, train: bool, batch_size: int = 16) -> list:
    torch.manual_seed(seed)
    return list(dataset.to_dataloader(train=train, batch_size=batch_size))


def build(cls: type[TimeSeriesDataSet], name: str) -> TimeSeriesDataSet:
    return find_configuration(name).build(cls)


# Quick tests load every fourth configuration, in one of its modes; all others are slow.
MODES = [
    pytest.param(
        configuration,
        mode,
        id=f"{configuration}-{mode}",
        marks=[]
        if number % 4 == 0 and position == number // 4 % len(configuration.modes)
        else pytest.mark.slow,
    )
    for number, configuration in enumerate(CONFIGURATIONS)
    for position, mode in enumerate(configuration.modes)
]


@pytest.mark.parametrize(("configuration", "mode"), MODES)
def test_batches_match_upstream(configuration: Configuration, mode: str) -> None:
    expected_dataset = configuration.derive(configuration.build(TimeSeriesDataSet), mode)
    actual_dataset = configuration.derive(configuration.build(BatchedTimeSeriesDataSet), mode)
    # A second seed if lengths are random; otherwise it would only shuffle the same samples.
    seeds = (0, 1) if expected_dataset.randomize_length is not None else (0,)
    expected = [load(expected_dataset, seed, mode == "train") for seed in seeds]
    wrapped = BatchedTimeSeriesDataSet.wrap(expected_dataset)
    for seed, batches in zip(seeds, expected, strict=True):
        for kind, dataset in ((mode, actual_dataset), (f"{mode}, wrapped", wrapped)):
            actual = load(dataset, seed, mode == "train")
            assert_batches_match(actual, batches, expected_dataset, kind)
    # public and private state of the dataset
    assert actual_dataset.index.equals(expected_dataset.index)
    assert list(actual_dataset._categorical_encoders) == list(
        expected_dataset._categorical_encoders
    )
    for name, expected_encoder in expected_dataset._categorical_encoders.items():
        encoder = actual_dataset._categorical_encoders[name]
        assert type(encoder) is NaNLabelEncoder
        assert list(encoder.classes_.items()) == list(expected_encoder.classes_.items())
        assert [type(key) for key in encoder.classes_] == [
            type(key) for key in expected_encoder.classes_
        ]
    for name, values in expected_dataset.data.items():
        # wrap stores the tables row by row, as the batched dataset does
        assert_identical(actual_dataset.data[name], values, name)


@spread(
    "batch_size, name",
    [7, 1, 1000],
    ["everything, missing steps, random lengths", "encoders above 20 steps"],
)
def test_batches_match_upstream_at_any_batch_size(name: str, batch_size: int) -> None:
    stock = build(TimeSeriesDataSet, name)
    expected = load(stock, 3, False, batch_size)
    batched = BatchedTimeSeriesDataSet.wrap(stock)
    assert_batches_match(load(batched, 3, False, batch_size), expected, stock)


def test_batches_match_upstream_with_threads() -> None:
    """The batches are large enough for torch to use several threads."""
    stock = build(TimeSeriesDataSet, "EncoderNormalizer, custom transformation, variable lengths")
    copies = 80
    expected = stock._collate_fn([stock[number] for number in range(len(stock))] * copies)
    batched = BatchedTimeSeriesDataSet.wrap(stock)
    numbers = list(range(len(stock))) * copies
    torch.set_num_threads(2)
    try:
        actual = batched._collate_fn(batched.__getitems__(numbers))
    finally:
        torch.set_num_threads(1)
    assert expected[0]["encoder_target"].numel() > 2**15
    assert_batches_match([actual], [expected], stock)


@pytest.mark.parametrize(
    "name", ["covariates of all kinds", "variable lengths", "missing steps, filled forward"]
)
def test_batches_match_upstream_with_data_stored_by_column(name: str) -> None:
    stock, batched = (build(cls, name) for cls in (TimeSeriesDataSet, BatchedTimeSeriesDataSet))
    for key in ("reals", "categoricals"):
        batched.data[key] = batched.data[key].t().contiguous().t()
        assert not batched.data[key].is_contiguous()
    assert_identical(load(batched, 0, False), load(stock, 0, False))


@spread(
    "case, target",
    [
        ("covariates of all kinds", "price", 1.7),
        ("covariates of all kinds", "price", [1.0, 2.0, 3.0, 4.0]),
        ("covariates of all kinds", "sky", "gray"),
        ("covariates of all kinds", "size", 2.0),
        ("covariates of all kinds", "region", "north"),
        ("everything, missing steps, random lengths", "day", "tue"),
        ("random lengths", "rain", 0.3),
    ],
    ["all", "decoder", "encoder"],
)
def test_overwrite_values_match_upstream(
    case: tuple[str, str, float | str | list[float]], target: str
) -> None:
    name, variable, values = case
    stock = build(TimeSeriesDataSet, name)
    batched = BatchedTimeSeriesDataSet.wrap(stock)
    original = load(batched, 0, False)
    stock.set_overwrite_values(values, variable, target)
    batched.set_overwrite_values(values, variable, target)
    if isinstance(values, list) and target != "decoder":  # the length fits only the horizon
        with pytest.raises(RuntimeError) as expected:
            load(stock, 0, False)
        with pytest.raises(RuntimeError) as actual:
            load(batched, 0, False)
        assert str(actual.value) == str(expected.value)
        return
    expected = load(stock, 0, False)
    assert_batches_match(load(batched, 0, False), expected, stock)
    with pytest.raises(AssertionError):
        assert_batches_match(expected, original, stock)
    batched.reset_overwrite_values()
    assert_identical(load(batched, 0, False), original)


def test_overwrite_values_rejects_a_list_for_random_lengths() -> None:
    dataset = build(BatchedTimeSeriesDataSet, "random lengths")
    dataset.set_overwrite_values([1.0, 2.0, 3.0], "price")
    with pytest.raises(RuntimeError):
        load(dataset, 0, False)


def test_overwrite_values_rejects_an_unknown_variable_as_upstream() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    dataset.set_overwrite_values(1.0, "nothing")
    with pytest.raises(AssertionError, match="overwrite values variable has to be"):
        load(dataset, 0, False)


def test_index_that_contradicts_the_lengths_raises_as_upstream() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    dataset.index = dataset.index.assign(index_end=dataset.index["index_start"] + 5)
    with pytest.raises(AssertionError):
        dataset[0]
    with pytest.raises(AssertionError):
        load(dataset, 0, False)


@pytest.mark.parametrize(
    "name",
    [
        "covariates that share a normalizer",
        "covariates with equal normalizers, variable lengths",
        "several targets, one normalizer",
    ],
)
def test_normalizers_are_fitted_as_upstream_after_loading(name: str) -> None:
    parameters = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = build(cls, name)
        load(dataset, 0, False, 7)
        scalers = [*dataset.target_normalizers, *dataset._scalers.values()]
        parameters.append([x.get_parameters() for x in scalers if isinstance(x, EncoderNormalizer)])
    assert parameters[0]
    for actual, expected in zip(*parameters, strict=True):
        assert_scales_close(actual, expected)


def test_integer_targets_are_rejected_as_upstream() -> None:
    configuration = Configuration(
        "counts left as they are",
        lambda: dict(
            target="count",
            time_varying_unknown_reals=["count"],
            target_normalizer=EncoderNormalizer(method="identity"),
            min_encoder_length=3,
        ),
    )
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        with pytest.raises(TypeError, match="requires a floating point input type"):
            load(configuration.build(cls), 0, False)


@pytest.mark.parametrize("variable", ["__target__y", "rain", "sky"])
def test_fill_value_that_is_not_a_number_is_rejected_as_upstream(variable: str) -> None:
    messages = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = build(cls, "missing steps, filled forward")
        dataset.encoded_constant_fill_strategy[variable] = "none"
        with pytest.raises(TypeError) as error:
            load(dataset, 0, False)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_fill_value_of_an_unknown_variable_raises_as_upstream() -> None:
    dataset = build(BatchedTimeSeriesDataSet, "missing steps, filled forward")
    dataset.encoded_constant_fill_strategy["nothing"] = 0.0
    with pytest.raises(KeyError, match="nothing is not known and thus cannot be filled in"):
        load(dataset, 0, False)


def test_table_without_rows_is_rejected_as_upstream() -> None:
    training = CONFIGURATIONS[0].build(TimeSeriesDataSet)
    errors = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        with pytest.raises(Exception) as error:  # noqa: PT011, as pytorch-forecasting raises
            cls.from_dataset(training, panel().iloc[:0])
        errors.append((error.type, str(error.value)))
    assert errors[0] == errors[1]


# Lags of a target


@pytest.mark.parametrize("target", ["y", "whole"])
@pytest.mark.parametrize(
    "normalizer", [TorchNormalizer(), TorchNormalizer(method="robust", center=False), None], ids=str
)
def test_lags_of_a_target_with_a_normalizer_of_all_series(normalizer: Any, target: str) -> None:
    """pytorch-forecasting fails to build such a dataset: the normalizer takes no table."""
    dataset = BatchedTimeSeriesDataSet(
        make_table(),
        time_idx="t",
        target=target,
        group_ids=["series"],
        max_encoder_length=6,
        max_prediction_length=3,
        time_varying_unknown_reals=[target],
        target_normalizer=normalizer,
        lags={target: [2]},
    )
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=4)))
    column = dataset.reals.index(f"{target}_lagged_by_2")
    center, scale = x["target_scale"][:, :1], x["target_scale"][:, 1:]
    expected = (x["encoder_target"] - center) / scale
    torch.testing.assert_close(x["encoder_cont"][:, 2:, column], expected[:, :-2].float())


#: pytorch-forecasting adds it to a scale.
EPSILON = float(np.finfo(np.float16).eps)
SCALES = {
    "standard": lambda y: (y.mean(), y.std(ddof=0) + EPSILON),
    "robust": lambda y: (y.median(), (y.quantile(0.75) - y.quantile(0.25)) / 2 + EPSILON),
    "identity": lambda y: (0.0, 1.0),
}


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("transformation", [None, "log1p"])
@pytest.mark.parametrize("method", SCALES)
def test_covariate_with_a_normalizer_of_all_series(
    method: str, transformation: str | None, missing: bool
) -> None:
    table = make_table()
    if missing:
        table.loc[table["t"] % 5 == 1, "price"] = float("nan")
    dataset = BatchedTimeSeriesDataSet(
        table,
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=6,
        max_prediction_length=3,
        time_varying_unknown_reals=["y", "price"],
        scalers={"price": TorchNormalizer(method=method, transformation=transformation)},
    )
    price = table["price"] if transformation is None else np.log1p(table["price"])
    center, scale = SCALES[method](price)
    scaled = dataset.data["reals"][:, dataset.reals.index("price")]
    expected = torch.tensor(((price - center) / scale).to_numpy())
    torch.testing.assert_close(scaled, expected.float(), rtol=1e-5, atol=1e-5, equal_nan=True)
