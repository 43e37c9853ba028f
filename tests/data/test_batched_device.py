"""Batches on another device: shapes on the meta device, and values if there is CUDA."""

import copy
import pickle
from typing import Any

import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.batch_comparison import assert_batches_match, assert_identical
from helpers.batched_configurations import CONFIGURATIONS, Configuration, find_configuration
from helpers.products import alternate
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

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
CASES = [find_configuration(name) for name in NAMES]


def tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, dict):
        batch = list(batch.values())
    return [tensor for part in batch or [] for tensor in tensors(part)]


def load(dataset: TimeSeriesDataSet, train: bool = True) -> list[Any]:
    torch.manual_seed(0)
    return list(dataset.to_dataloader(train=train, batch_size=16))


@alternate("configuration", CASES, first=1)
def test_batches_on_a_device_have_the_same_shapes(configuration: Configuration) -> None:
    """Like an accelerator, the meta device cannot be mixed with the CPU; it has no values."""
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    expected, actual = load(dataset), load(dataset.to("meta"))
    for moved, tensor in zip(tensors(actual), tensors(expected), strict=True):
        assert moved.device.type == "meta"
        assert moved.dtype == tensor.dtype
        assert moved.shape == tensor.shape
        assert moved.stride() == tensor.stride()
    assert [list(x) for x, _ in actual] == [list(x) for x, _ in expected]


def test_to_does_not_change_the_dataset_and_is_reversible() -> None:
    dataset = CONFIGURATIONS[3].build(BatchedTimeSeriesDataSet)
    moved = dataset.to("meta")
    assert (dataset.device.type, moved.device.type) == ("cpu", "meta")
    dataset.set_overwrite_values(1.0, "time")
    values = dataset._overwrite_values["values"]
    dataset.to("meta").set_overwrite_values(2.0, "time")
    assert dataset._overwrite_values["values"] is values
    dataset.reset_overwrite_values()
    assert moved.filter(lambda index: index["shop"] == "shop 1").device.type == "meta"
    assert copy.copy(moved).device.type == "meta"
    assert len(moved.decoded_index) == len(dataset)
    expected = load(dataset)
    assert_identical(load(dataset), expected)
    for restored in (moved.to("cpu"), pickle.loads(pickle.dumps(moved)), copy.deepcopy(moved)):
        assert restored.device.type == "cpu"
        assert_identical(load(restored), expected)


def test_synchronized_sampler_works_on_a_device() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet).to("meta")
    loader = dataset.to_dataloader(train=False, batch_sampler="synchronized")
    assert next(iter(loader))[0]["encoder_cont"].device.type == "meta"


@pytest.mark.parametrize(("option", "value"), [("num_workers", 2), ("pin_memory", True)])
def test_to_dataloader_rejects_cpu_options_on_a_device(option: str, value: int | bool) -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet).to("meta")
    with pytest.raises(ValueError, match=f"expects {option}=.* for data on meta, got {value}"):
        dataset.to_dataloader(**{option: value})
    dataset.to_dataloader(**{option: type(value)()})


def test_workers_of_a_custom_loader_are_rejected_on_a_device() -> None:
    dataset = CONFIGURATIONS[0].build(BatchedTimeSeriesDataSet).to("meta")
    loader = DataLoader(dataset, 16, collate_fn=dataset._collate_fn, num_workers=1)
    batches = iter(loader)
    with pytest.raises(ValueError, match="expects a DataLoader with num_workers=0"):
        next(batches)
    batches._shutdown_workers()  # the garbage collector would need five seconds


def test_fallback_moves_batches_to_the_device() -> None:
    class CustomNormalizer(EncoderNormalizer):
        pass

    dataset = Configuration(
        "custom normalizer", lambda: dict(target_normalizer=CustomNormalizer())
    ).build(BatchedTimeSeriesDataSet)
    with pytest.warns(UserWarning, match="one by one"):
        batch = next(iter(dataset.to("meta").to_dataloader()))
    assert {tensor.device.type for tensor in tensors(batch)} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("configuration", CASES, ids=str)
def test_batches_on_cuda_match_those_on_the_cpu(configuration: Configuration) -> None:
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    actual = load(dataset.to("cuda"))
    assert all(tensor.is_cuda for tensor in tensors(actual))
    actual_on_cpu = [(_to_cpu(x), _to_cpu(y)) for x, y in actual]
    assert_batches_match(actual_on_cpu, load(dataset), dataset, other_device=True)


def _to_cpu(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.cpu()
    if isinstance(values, dict):
        return {name: _to_cpu(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_to_cpu(value) for value in values)
    return values
