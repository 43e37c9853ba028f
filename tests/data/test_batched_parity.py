"""Batches are those of the stock dataset, to the last bit, in every configuration of the host."""

import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer, NaNLabelEncoder

from helpers.batched_configurations import CONFIGURATIONS, Configuration, panel
from helpers.batch_comparison import assert_identical
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

pytestmark = [
    # scikit-learn, whenever the host hands arrays to a scaler that was fitted to a table
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    # torch, on what the host's MultiNormalizer takes from pandas
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]


def batches(dataset: TimeSeriesDataSet, seed: int, train: bool, batch_size: int = 16) -> list:
    torch.manual_seed(seed)
    return list(dataset.to_dataloader(train=train, batch_size=batch_size))


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_loaders_agree_to_the_last_bit(configuration: Configuration) -> None:
    stock = configuration.build(TimeSeriesDataSet)
    batched = configuration.build(BatchedTimeSeriesDataSet)
    for mode in configuration.modes:
        expected_from = configuration.derive(stock, mode)
        actual_from = configuration.derive(batched, mode)
        wrapped = BatchedTimeSeriesDataSet.wrap(expected_from)
        for seed in (0, 1) if mode == "train" else (0,):
            expected = batches(expected_from, seed, mode == "train")
            assert_identical(batches(actual_from, seed, mode == "train"), expected, mode)
            assert_identical(batches(wrapped, seed, mode == "train"), expected, f"{mode}, wrapped")
    # What else a user may look at.
    assert actual_from.index.equals(expected_from.index)
    assert list(actual_from._categorical_encoders) == list(expected_from._categorical_encoders)
    for name, encoder in expected_from._categorical_encoders.items():
        same = actual_from._categorical_encoders[name]
        assert type(same) is NaNLabelEncoder
        assert list(same.classes_.items()) == list(encoder.classes_.items())
        assert [type(key) for key in same.classes_] == [type(key) for key in encoder.classes_]
    for name, values in expected_from.data.items():
        # Stored row by row, whatever pandas hands over.
        plain, actual = (
            each.contiguous() if name in ("reals", "categoricals") else each
            for each in (values, actual_from.data[name])
        )
        assert_identical(actual, plain, name)


@pytest.mark.parametrize(
    "name", ["everything, missing steps, random lengths", "encoders above 20 steps"]
)
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_any_batch_size_gives_the_same(name: str, batch_size: int) -> None:
    stock = next(c for c in CONFIGURATIONS if c.name == name).build(TimeSeriesDataSet)
    batched = BatchedTimeSeriesDataSet.wrap(stock)
    expected = batches(stock, 3, False, batch_size)
    assert_identical(batches(batched, 3, False, batch_size), expected)


def test_threads_do_not_matter() -> None:
    """Batches above torch's threshold for sharing work among threads."""
    configuration = next(c for c in CONFIGURATIONS if "own transformation, var" in c.name)
    stock = configuration.build(TimeSeriesDataSet)
    times = 80
    expected = stock._collate_fn([stock[number] for number in range(len(stock))] * times)
    batched = BatchedTimeSeriesDataSet.wrap(stock)
    numbers = list(range(len(stock))) * times
    torch.set_num_threads(2)
    try:
        actual = batched._collate_fn(batched.__getitems__(numbers))
    finally:
        torch.set_num_threads(1)
    assert expected[0]["encoder_target"].numel() > 2**15
    assert_identical(actual, expected)


@pytest.mark.parametrize("target", ["all", "encoder", "decoder"])
@pytest.mark.parametrize(
    ("name", "variable", "values"),
    [
        ("covariates of all kinds", "price", 1.7),
        ("covariates of all kinds", "price", [1.0, 2.0, 3.0, 4.0]),
        ("covariates of all kinds", "sky", "gray"),
        ("covariates of all kinds", "size", 2.0),
        ("covariates of all kinds", "region", "north"),
        ("everything, missing steps, random lengths", "day", "tue"),
        ("random lengths", "rain", 0.3),
    ],
)
def test_overwritten_values_are_the_same(
    name: str, variable: str, values: float | str | list[float], target: str
) -> None:
    stock = next(c for c in CONFIGURATIONS if c.name == name).build(TimeSeriesDataSet)
    batched = BatchedTimeSeriesDataSet.wrap(stock)
    untouched = batches(batched, 0, False)
    stock.set_overwrite_values(values, variable, target)
    batched.set_overwrite_values(values, variable, target)
    if isinstance(values, list) and target != "decoder":  # as many as decoders have steps
        with pytest.raises(RuntimeError) as expected:
            batches(stock, 0, False)
        with pytest.raises(RuntimeError) as actual:
            batches(batched, 0, False)
        assert str(actual.value) == str(expected.value)
        return
    expected = batches(stock, 0, False)
    assert_identical(batches(batched, 0, False), expected)
    with pytest.raises(AssertionError):
        assert_identical(expected, untouched)
    batched.reset_overwrite_values()
    assert_identical(batches(batched, 0, False), untouched)


def test_values_that_do_not_fit_random_lengths_are_refused() -> None:
    configuration = next(c for c in CONFIGURATIONS if c.name == "random lengths")
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    dataset.set_overwrite_values([1.0, 2.0, 3.0], "price")
    with pytest.raises(RuntimeError):
        batches(dataset, 0, False)


def test_unknown_overwritten_variable_raises_as_in_the_host() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    dataset.set_overwrite_values(1.0, "nothing")
    with pytest.raises(AssertionError, match="overwrite values variable has to be"):
        batches(dataset, 0, False)


def test_index_that_the_lengths_rule_out_raises_as_in_the_host() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    dataset.index = dataset.index.assign(index_end=dataset.index["index_start"] + 5)
    with pytest.raises(AssertionError):
        dataset[0]
    with pytest.raises(AssertionError):
        batches(dataset, 0, False)


@pytest.mark.parametrize(
    "name",
    [
        "covariates that share a normalizer",
        "covariates scaled alike, each by its own normalizer, variable lengths",
        "several targets, one normalizer",
    ],
)
def test_normalizers_are_left_fitted_as_the_host_leaves_them(name: str) -> None:
    configuration = next(c for c in CONFIGURATIONS if c.name == name)
    left = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = configuration.build(cls)
        batches(dataset, 0, False, 7)
        scalers = [*dataset.target_normalizers, *dataset._scalers.values()]
        left.append([x.get_parameters() for x in scalers if isinstance(x, EncoderNormalizer)])
    assert_identical(*left)


def test_integers_are_refused_as_by_the_host() -> None:
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
            batches(configuration.build(cls), 0, False)


@pytest.mark.parametrize("variable", ["__target__y", "rain", "sky"])
def test_fill_that_is_no_number_is_refused_as_by_the_host(variable: str) -> None:
    configuration = next(c for c in CONFIGURATIONS if c.name == "missing steps, filled forward")
    raised = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = configuration.build(cls)
        dataset.encoded_constant_fill_strategy[variable] = "none"
        with pytest.raises(TypeError) as error:
            batches(dataset, 0, False)
        raised.append(str(error.value))
    assert raised[0] == raised[1]


def test_table_without_rows_is_refused_as_by_the_host() -> None:
    training = CONFIGURATIONS[0].build(TimeSeriesDataSet)
    raised = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        with pytest.raises(Exception) as error:  # noqa: PT011, whatever the host raises
            cls.from_dataset(training, panel().iloc[:0])
        raised.append((error.type, str(error.value)))
    assert raised[0] == raised[1]


def test_unknown_variable_to_fill_raises_as_in_the_host() -> None:
    configuration = next(c for c in CONFIGURATIONS if c.name == "missing steps, filled forward")
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    dataset.encoded_constant_fill_strategy["nothing"] = 0.0
    with pytest.raises(KeyError, match="nothing is not known and thus cannot be filled in"):
        batches(dataset, 0, False)
