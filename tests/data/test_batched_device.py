"""Batches gathered on another device: shapes there, values as far as a CPU can tell."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.batched_configurations import CONFIGURATIONS, Configuration
from helpers.batch_comparison import assert_identical
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet, encoder_normalization

pytestmark = [
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]

NAMES = [
    "defaults",
    "covariates of all kinds",
    "variable lengths",
    "weights, variable lengths",
    "lags of variables scaled by encoders",
    "several targets",
    "mixed targets",
    "EncoderNormalizer, robust with max_length, variable lengths",
    "EncoderNormalizer, max_length longer for the center, variable lengths",
    "EncoderNormalizer, max_length, variable lengths",
    "EncoderNormalizer, uncentered, variable lengths",
    "EncoderNormalizer, identity, variable lengths",
    "EncoderNormalizer, log1p, variable lengths",
    "GroupNormalizer, by all groups",
    "TorchNormalizer",
    "covariates scaled by encoders, variable lengths",
    "missing steps, filled with constants",
    "missing steps, scaled by encoders",
    "random lengths, missing steps",
    "encoders down to nothing",
]
CASES = [next(each for each in CONFIGURATIONS if each.name == name) for name in NAMES]
# A last bit of the mean of float32 numbers, 1e-7 of them, after division by a scale that can be a
# hundredth of the mean or less.
ROUNDING: dict[str, Any] = dict(rtol=1e-5, atol=1e-4, equal_nan=True)


def tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, dict):
        batch = list(batch.values())
    return [each for part in batch or [] for each in tensors(part)]


def batches(dataset: TimeSeriesDataSet, train: bool = True) -> list[Any]:
    torch.manual_seed(0)
    return list(dataset.to_dataloader(train=train, batch_size=16))


@pytest.mark.parametrize("configuration", CASES, ids=str)
def test_everything_is_on_the_device_and_nothing_changes_shape(
    configuration: Configuration,
) -> None:
    """The meta device refuses to mix with the CPU, as an accelerator does, and has no values."""
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    expected, actual = batches(dataset), batches(dataset.to("meta"))
    for one, other in zip(tensors(actual), tensors(expected), strict=True):
        assert one.device.type == "meta"
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
    assert [list(x) for x, _ in actual] == [list(x) for x, _ in expected]


@pytest.mark.parametrize("configuration", CASES, ids=str)
def test_scales_computed_at_once_are_those_of_the_host(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an accelerator computes, on the CPU: other sums, so other last bits."""
    expected = batches(configuration.build(TimeSeriesDataSet))
    monkeypatch.setattr(encoder_normalization, "_rounds_as_the_host", lambda values: False)
    actual = batches(configuration.build(BatchedTimeSeriesDataSet))
    for one, other in zip(tensors(actual), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)
    for (x, _), (y, _) in zip(actual, expected, strict=True):
        for one, other in zip(tensors(x["target_scale"]), tensors(y["target_scale"]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize(
    "normalizer",
    [
        EncoderNormalizer(),
        EncoderNormalizer(max_length=4),
        EncoderNormalizer(max_length=[3, 6]),
        EncoderNormalizer(max_length=[6, 3], transformation="log"),
        EncoderNormalizer(method="robust", max_length=[6, 3]),
        EncoderNormalizer(method="robust", method_kwargs=dict(lower=0.1, center=0.3, upper=0.7)),
    ],
    ids=str,
)
@pytest.mark.parametrize("exact", [True, False])
def test_masked_formulas_in_float64(
    normalizer: EncoderNormalizer, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_normalization, "_rounds_as_the_host", lambda values: exact)
    values = torch.rand(7, 12, dtype=torch.float64) + 0.1
    lengths = np.array([2, 11, 7, 7, 3, 10, 5])
    actual = encoder_normalization._masked_scales(normalizer, values, lengths)
    for sample, length in enumerate(lengths.tolist()):
        expected = normalizer.fit(values[sample, :length]).get_parameters()
        torch.testing.assert_close(actual[sample], expected, rtol=1e-12, atol=1e-14)


def test_dataset_is_moved_as_a_tensor_is() -> None:
    dataset = CONFIGURATIONS[3].build(BatchedTimeSeriesDataSet)
    moved = dataset.to("meta")
    assert (dataset.device.type, moved.device.type) == ("cpu", "meta")
    dataset.set_overwrite_values(1.0, "time")
    overwritten = dataset._overwrite_values["values"]
    also_moved = dataset.to("meta")
    also_moved.set_overwrite_values(2.0, "time")
    assert dataset._overwrite_values["values"] is overwritten
    dataset.reset_overwrite_values()
    assert moved.filter(lambda index: index["shop"] == "shop 1").device.type == "meta"
    assert copy.copy(moved).device.type == "meta"
    assert len(moved.decoded_index) == len(dataset)
    expected = batches(dataset)
    assert_identical(batches(dataset), expected)
    for back in (moved.to("cpu"), pickle.loads(pickle.dumps(moved)), copy.deepcopy(moved)):
        assert back.device.type == "cpu"
        assert_identical(batches(back), expected)


def test_synchronized_sampler_works_there() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet).to("meta")
    loader = dataset.to_dataloader(train=False, batch_sampler="synchronized")
    assert next(iter(loader))[0]["encoder_cont"].device.type == "meta"


@pytest.mark.parametrize(("option", "value"), [("num_workers", 2), ("pin_memory", True)])
def test_options_that_only_the_cpu_has_are_refused(option: str, value: int | bool) -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet).to("meta")
    with pytest.raises(ValueError, match=f"expects {option}=.* for data on meta, got {value}"):
        dataset.to_dataloader(**{option: value})
    dataset.to_dataloader(**{option: type(value)()})


def test_workers_of_a_loader_by_hand_are_refused() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet).to("meta")
    loader = DataLoader(dataset, 16, collate_fn=dataset._collate_fn, num_workers=1)
    with pytest.raises(ValueError, match="expects a DataLoader with num_workers=0"):
        next(iter(loader))


def test_stock_path_ends_on_the_device_too() -> None:
    class Own(EncoderNormalizer):
        pass

    dataset = Configuration("own", lambda: dict(target_normalizer=Own())).build(
        BatchedTimeSeriesDataSet
    )
    with pytest.warns(UserWarning, match="one by one"):
        batch = next(iter(dataset.to("meta").to_dataloader()))
    assert {each.device.type for each in tensors(batch)} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("configuration", CASES, ids=str)
def test_cuda_gives_the_same(configuration: Configuration) -> None:
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    expected = batches(dataset)
    for one, other in zip(tensors(batches(dataset.to("cuda"))), tensors(expected), strict=True):
        assert one.is_cuda
        if "ncoder" in configuration.name or "everything" in configuration.name:
            torch.testing.assert_close(one.cpu(), other, **ROUNDING)
        else:
            assert_identical(one.cpu(), other)
