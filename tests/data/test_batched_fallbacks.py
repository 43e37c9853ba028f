"""Fallbacks load sample by sample, after one warning that names the reason."""

import warnings
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer, MultiNormalizer
from torch.utils.data import ConcatDataset, DataLoader

from helpers.batch_comparison import assert_batches_match, assert_identical
from helpers.batched_configurations import CONFIGURATIONS, Configuration, find_configuration
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet, fallback

pytestmark = pytest.mark.filterwarnings(
    "ignore:The given NumPy array is not writable:UserWarning",
    "ignore:X does not have valid feature names:UserWarning",
)


class CustomEncoderNormalizer(EncoderNormalizer):
    pass


class CustomMultiNormalizer(MultiNormalizer):
    pass


class CustomDataset(BatchedTimeSeriesDataSet):
    def __getitem__(self, number: int) -> Any:
        x, y = super().__getitem__(number)
        return x | dict(x_cont=x["x_cont"] * 2), y


CASES = {
    "the normalizer of 'y', CustomEncoderNormalizer, subclasses EncoderNormalizer": dict(
        target_normalizer=CustomEncoderNormalizer()
    ),
    "the normalizer of 'rain', CustomEncoderNormalizer, subclasses EncoderNormalizer": dict(
        time_varying_unknown_reals=["y", "rain"], scalers={"rain": CustomEncoderNormalizer()}
    ),
    "the target normalizer, CustomMultiNormalizer, subclasses MultiNormalizer": dict(
        target=["y"], target_normalizer=CustomMultiNormalizer([EncoderNormalizer()])
    ),
    "the scaler of 'y_scale' is an EncoderNormalizer": dict(
        target_normalizer=EncoderNormalizer(),
        add_target_scales=True,
        scalers={"y_scale": EncoderNormalizer()},
    ),
}


# With pandas 2, pytorch-forecasting cannot fit this scaler: it needs the deviation of a table.
NEEDS_PANDAS_3 = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="pytorch-forecasting needs pandas 3 for it"
)


@pytest.mark.parametrize(
    "reason",
    [pytest.param(case, marks=[NEEDS_PANDAS_3] if "y_scale" in case else []) for case in CASES],
)
def test_fallback_names_the_setting_once_and_batches_match(reason: str) -> None:
    configuration = Configuration(reason, lambda: CASES[reason])
    stock, batched = (
        configuration.build(cls) for cls in (TimeSeriesDataSet, BatchedTimeSeriesDataSet)
    )
    with pytest.warns(UserWarning) as caught:
        loader = batched.to_dataloader(train=True, batch_size=16)
        torch.manual_seed(0)
        actual = list(loader) + list(loader)
    messages = [str(warning.message) for warning in caught]
    assert [message for message in messages if "one by one" in message] == [
        "BatchedTimeSeriesDataSet loads samples one by one, at the speed of TimeSeriesDataSet: "
        + reason
    ]
    torch.manual_seed(0)
    loader = stock.to_dataloader(train=True, batch_size=16)
    assert_batches_match(actual, list(loader) + list(loader), stock)


def test_fallback_uses_getitem_of_a_subclass() -> None:
    dataset = CONFIGURATIONS[0].build(CustomDataset)
    with pytest.warns(UserWarning, match="CustomDataset has its own __getitem__"):
        actual = next(iter(dataset.to_dataloader(train=False)))
    stock = next(iter(CONFIGURATIONS[0].build(TimeSeriesDataSet).to_dataloader(train=False)))
    assert torch.equal(actual[0]["encoder_cont"], 2 * stock[0]["encoder_cont"])


def test_batches_use_calculate_decoder_length_of_a_subclass() -> None:
    class Short(BatchedTimeSeriesDataSet):
        def calculate_decoder_length(self, time_last: Any, sequence_length: Any) -> Any:
            return super().calculate_decoder_length(time_last, sequence_length).clip(max=2)

    configuration = Configuration("short", lambda: dict(min_prediction_length=1))
    x, _ = next(iter(configuration.build(Short).to_dataloader(train=False)))
    assert x["decoder_lengths"].max() == 2
    assert x["decoder_cont"].shape[1] == 2


def test_fallback_overwrites_values_at_a_slice() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    dataset.set_overwrite_values(1.0, "time")
    dataset._overwrite_values |= dict(variable="y", target=slice(-2, None))
    with pytest.warns(UserWarning, match="overwritten at a slice of positions"):
        actual = next(iter(dataset.to_dataloader(train=False)))
    assert (actual[0]["decoder_cont"][:, -2:, 0] == 1.0).all()


def test_fallback_gives_samples_to_a_collate_function_that_reads_them() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    expected = list(dataset.to_dataloader(train=False, batch_size=16))

    def first_only(samples: Any) -> Any:
        assert len(samples) <= 16
        return TimeSeriesDataSet._collate_fn(list(samples))[0]

    with pytest.warns(UserWarning, match="the collate_fn reads single"):
        actual = list(dataset.to_dataloader(train=False, batch_size=16, collate_fn=first_only))
    assert_identical(actual, [x for x, _ in expected])


def test_collate_function_around_that_of_the_dataset_needs_no_fallback() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    expected = list(dataset.to_dataloader(train=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(dataset, 64, collate_fn=lambda numbers: dataset._collate_fn(numbers)[0])
        assert_identical(list(loader), [x for x, _ in expected])


def test_fallback_in_a_concat_dataset_warns_once() -> None:
    stock, batched = (
        CONFIGURATIONS[3].build(c) for c in (TimeSeriesDataSet, BatchedTimeSeriesDataSet)
    )

    def loader(dataset: TimeSeriesDataSet) -> DataLoader:
        concatenated = ConcatDataset([dataset, dataset])
        return DataLoader(concatenated, batch_size=16, collate_fn=dataset._collate_fn)

    fallback.warn_single_samples.cache_clear()
    with pytest.warns(UserWarning) as caught:
        actual = list(loader(batched))
    assert_identical(actual, list(loader(stock)))
    (warning,) = caught
    assert "like torch's ConcatDataset" in str(warning.message)


def test_lazy_batch_raises_for_a_position_out_of_range() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet)
    lazy_batch = dataset.__getitems__([0, len(dataset)])
    with pytest.raises(IndexError):
        lazy_batch.collate()
    with pytest.warns(UserWarning, match="reads single samples"), pytest.raises(IndexError):
        list(lazy_batch)


@pytest.mark.parametrize(
    "name",
    [
        "covariates of all kinds",
        "covariates scaled by encoders, variable lengths",
        "several targets",
    ],
)
def test_getitem_matches_upstream(name: str) -> None:
    """Values are equal; the memory layout may differ."""
    configuration = find_configuration(name)
    stock, batched = (
        configuration.build(cls) for cls in (TimeSeriesDataSet, BatchedTimeSeriesDataSet)
    )

    def contiguous(sample: Any) -> Any:
        if isinstance(sample, dict):
            return {key: contiguous(value) for key, value in sample.items()}
        if isinstance(sample, (list, tuple)):
            return type(sample)(contiguous(value) for value in sample)
        return None if sample is None else torch.as_tensor(sample).contiguous()

    for number in (*range(0, len(stock), 7), -1):
        assert_batches_match([contiguous(batched[number])], [contiguous(stock[number])], stock)
    with pytest.raises(IndexError):
        batched[len(batched)]


def test_fallback_names_a_second_reason_as_well() -> None:
    dataset = CONFIGURATIONS[3].build(BatchedTimeSeriesDataSet)
    dataset.set_overwrite_values(1.0, "time")
    dataset._overwrite_values["target"] = slice(0, 1)
    with pytest.warns(UserWarning, match="at a slice of positions"):
        next(iter(dataset.to_dataloader(train=False)))
    dataset.reset_overwrite_values()
    loader = DataLoader(dataset, batch_size=4, collate_fn=lambda samples: len(list(samples)))
    with pytest.warns(UserWarning, match="the collate_fn reads single samples"):
        next(iter(loader))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(loader))
