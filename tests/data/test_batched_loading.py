"""Samplers, workers, filters, files and models work as with `TimeSeriesDataSet`."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from pytorch_forecasting.data import MultiNormalizer, TimeSeriesDataSet, TorchNormalizer
from pytorch_forecasting.models import DecoderMLP
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    Subset,
    WeightedRandomSampler,
)

from helpers.batch_comparison import assert_batches_match, assert_identical
from helpers.batched_configurations import Configuration, find_configuration, panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

# scikit-learn, if arrays are given to a scaler that was fitted to a table
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")


def build(cls: type[TimeSeriesDataSet], name: str = "variable lengths") -> TimeSeriesDataSet:
    return find_configuration(name).build(cls)


@pytest.fixture
def stock() -> TimeSeriesDataSet:
    return build(TimeSeriesDataSet)


@pytest.fixture
def batched() -> BatchedTimeSeriesDataSet:
    return build(BatchedTimeSeriesDataSet)


def assert_same_loaders(
    actual: BatchedTimeSeriesDataSet, expected: TimeSeriesDataSet, **options: Any
) -> None:
    loaded = []
    for dataset in (actual, expected):
        torch.manual_seed(0)
        np.random.seed(0)  # the synchronized sampler shuffles with it
        loaded.append(list(dataset.to_dataloader(batch_size=8, **options)))
    assert len(loaded[1]) > 1
    assert_identical(*loaded)


def test_batched_dataset_works_in_inference_mode() -> None:
    """Tensors of inference mode have no version counter."""
    configuration = Configuration("inference mode", dict)
    with torch.inference_mode():
        batched, stock = map(configuration.build, (BatchedTimeSeriesDataSet, TimeSeriesDataSet))
        assert batched.data["groups"].is_inference()
        assert_same_loaders(batched, stock)


@pytest.mark.filterwarnings("ignore:Less than 8 samples available:UserWarning")
@pytest.mark.parametrize("train", [True, False])
def test_loader_with_a_synchronized_sampler(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, train: bool
) -> None:
    assert_same_loaders(batched, stock, train=train, batch_sampler="synchronized")


def test_loader_with_other_samplers(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    weights = torch.linspace(0.1, 1.0, len(stock)).tolist()
    for sampler in (
        WeightedRandomSampler(weights, 30),
        DistributedSampler(stock, num_replicas=2, rank=1, shuffle=True),
    ):
        assert_same_loaders(batched, stock, train=False, sampler=sampler, shuffle=False)
    by_hand = BatchSampler(range(5, 25), batch_size=6, drop_last=False)
    assert_same_loaders(batched, stock, train=False, batch_sampler=by_hand)


def test_loader_with_the_sampler_of_lightning(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    """On several devices, Lightning rebuilds the loader with a distributed sampler."""
    update = pl.utilities.data._update_dataloader
    loaded = []
    for dataset in (batched, stock):
        loader = dataset.to_dataloader(train=True, batch_size=8)
        torch.manual_seed(0)
        sampler = DistributedSampler(dataset, num_replicas=3, rank=1, seed=5)
        loaded.append(list(update(loader, sampler)))
    assert_identical(*loaded)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_with_workers(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    options = dict(num_workers=1, multiprocessing_context=method)
    torch.manual_seed(0)
    actual = list(batched.to_dataloader(train=True, batch_size=32, **options))
    torch.manual_seed(0)
    expected = list(stock.to_dataloader(train=True, batch_size=32, num_workers=0))
    assert_identical(actual, expected)


# torch warns if this process may use a single processor only
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")
def test_loader_with_workers_draws_lengths_as_upstream() -> None:
    loaded = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = build(cls, "random lengths")
        torch.manual_seed(0)
        loaded.append(list(dataset.to_dataloader(train=True, batch_size=16, num_workers=2)))
    assert_identical(*loaded)


def test_loader_of_a_subset(stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet) -> None:
    actual, expected = (
        list(
            DataLoader(Subset(dataset, [3, 1, 4, 1, 5, 9, 2, 6]), 4, collate_fn=dataset._collate_fn)
        )
        for dataset in (batched, stock)
    )
    assert_identical(actual, expected)


@pytest.mark.parametrize("in_place", [True, False])
def test_filter_matches_upstream(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, in_place: bool
) -> None:
    next(iter(batched.to_dataloader(batch_size=8)))  # fills the caches, if there are any

    def is_later(index: Any) -> Any:
        return (index["time_idx_first_prediction"] > 15) & (index["shop"] == "shop 1")

    length = len(batched)
    filtered = batched.filter(is_later, copy=not in_place)
    assert isinstance(filtered, BatchedTimeSeriesDataSet)
    assert len(filtered) < length
    assert len(batched) == (len(filtered) if in_place else length)
    assert_same_loaders(filtered, stock.filter(is_later), train=True)
    assert_same_loaders(batched, stock.filter(is_later) if in_place else stock, train=True)


def test_changes_of_the_index_take_effect_at_once(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    for change in (
        lambda index: index.drop(index.index[::2], inplace=True),
        lambda index: index.sort_values("time", inplace=True),
        lambda index: index.insert(0, "note", "not an integer"),
    ):
        change(stock.index)
        change(batched.index)
        assert_same_loaders(batched, stock, train=False)


def test_refitted_group_normalizer_takes_effect_at_once() -> None:
    loaded = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = build(cls, "GroupNormalizer, by all groups")
        before = list(dataset.to_dataloader(train=False, batch_size=8))
        codes = panel().groupby(["shop", "product"]).ngroup()
        groups = panel().assign(shop=codes // 2, product=codes % 2)
        dataset.target_normalizer.fit(panel()["signed"], groups)
        loaded.append(list(dataset.to_dataloader(train=False, batch_size=8)))
    assert_identical(*loaded)
    assert not torch.equal(before[0][0]["target_scale"], loaded[0][0][0]["target_scale"])


def refit(normalizer: TorchNormalizer) -> None:
    normalizer.fit(np.array(panel()["signed"] * 3 + 100))


def assign(normalizer: TorchNormalizer) -> None:
    normalizer.center_, normalizer.scale_ = torch.tensor(7.0), torch.tensor(99.0)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize("change", [refit, assign])
@pytest.mark.parametrize("is_list", [False, True], ids=["one", "several"])
def test_changed_torch_normalizer_takes_effect_at_once(
    change: Callable[[TorchNormalizer], None], is_list: bool
) -> None:
    loaded = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = Configuration(
            "one scale for all series",
            lambda: dict(
                target=["signed"] if is_list else "signed",
                target_normalizer=MultiNormalizer([TorchNormalizer()])
                if is_list
                else TorchNormalizer(),
            ),
        ).build(cls)
        before = next(iter(dataset.to_dataloader(train=False)))[0]["target_scale"]
        change(dataset.target_normalizers[0])
        loaded.append(list(dataset.to_dataloader(train=False, batch_size=8)))
    assert_identical(*loaded)
    after = loaded[0][0][0]["target_scale"]
    old, new = (x[0] if is_list else x for x in (before, after))
    assert not torch.equal(old[0], new[0])


def test_groups_changed_in_place_take_effect_at_once() -> None:
    loaded = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = build(cls, "GroupNormalizer, by all groups")
        next(iter(dataset.to_dataloader(train=False)))
        dataset.data["groups"][:] = 0
        loaded.append(list(dataset.to_dataloader(train=False, batch_size=8)))
    assert_identical(*loaded)


@pytest.mark.parametrize(
    "name", ["variable lengths", "covariates scaled by encoders, variable lengths"]
)
def test_wrap_shares_data_without_changing_the_wrapped_dataset(name: str) -> None:
    stock = build(TimeSeriesDataSet, name)
    stock.set_overwrite_values(2.0, "size")
    before = list(stock.to_dataloader(train=False))
    wrapped = BatchedTimeSeriesDataSet.wrap(stock)
    for key, values in stock.data.items():
        assert wrapped.data[key] is values
    wrapped.set_overwrite_values(1.0, "size")
    wrapped.filter(lambda index: index["shop"] == "shop 1", copy=False)
    # Sums over data that are stored by row have another order.
    assert_batches_match(list(stock.to_dataloader(train=False)), before, stock)
    wrapped_twice = BatchedTimeSeriesDataSet.wrap(wrapped)
    assert_same_loaders(wrapped_twice, wrapped, train=False)


def test_wrapped_and_built_data_take_as_much_memory_as_upstream(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    def size(data: Any) -> int:
        if isinstance(data, torch.Tensor):
            return data.untyped_storage().nbytes()
        parts = data.values() if isinstance(data, dict) else data or []
        return sum(size(part) for part in parts)

    expected = size(build(TimeSeriesDataSet).data)
    for dataset in (batched, BatchedTimeSeriesDataSet.wrap(stock), stock):
        next(iter(dataset.to_dataloader()))
        assert size(dataset.data) == expected


def test_wrap_of_a_subclass_accepts_its_base_classes(stock: TimeSeriesDataSet) -> None:
    class Subclass(BatchedTimeSeriesDataSet):
        pass

    wrapped = Subclass.wrap(BatchedTimeSeriesDataSet.wrap(stock))
    assert type(wrapped) is Subclass
    assert type(Subclass.wrap(wrapped)) is Subclass
    assert_same_loaders(wrapped, stock, train=True)
    with pytest.raises(TypeError, match="got Subclass, a subclass whose own methods"):
        BatchedTimeSeriesDataSet.wrap(wrapped)


def test_wrap_rejects_subclasses_and_other_objects(stock: TimeSeriesDataSet) -> None:
    class Subclass(TimeSeriesDataSet):
        pass

    dataset = copy.copy(stock)
    dataset.__class__ = Subclass
    with pytest.raises(TypeError, match="got Subclass, a subclass whose.*derive that class from"):
        BatchedTimeSeriesDataSet.wrap(dataset)
    with pytest.raises(TypeError, match="wrap expects a TimeSeriesDataSet, got DataFrame"):
        BatchedTimeSeriesDataSet.wrap(panel())


def test_get_parameters_matches_upstream(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    expected, actual = stock.get_parameters(), batched.get_parameters()
    assert list(actual) == list(expected)
    assert type(actual["target_normalizer"]) is type(expected["target_normalizer"])
    for dataset in (
        BatchedTimeSeriesDataSet.from_parameters(expected, panel()),
        BatchedTimeSeriesDataSet.from_dataset(stock, panel()),
    ):
        assert isinstance(dataset, BatchedTimeSeriesDataSet)
        assert_same_loaders(dataset, TimeSeriesDataSet.from_dataset(batched, panel()), train=True)
    assert repr(batched) == repr(stock).replace("TimeSeriesDataSet", "BatchedTimeSeriesDataSet", 1)


def test_pickled_parameters_need_no_class_of_this_package(
    batched: BatchedTimeSeriesDataSet,
) -> None:
    """Checkpoints of upstream models contain them, and must load without this package."""
    assert b"pytorch_forecasting_mlstm" not in pickle.dumps(batched.get_parameters())


@pytest.mark.parametrize("method", ["save", "pickle", "deepcopy", "copy"])
def test_copies_and_files_load_the_same_batches(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, method: str, tmp_path: Path
) -> None:
    next(iter(batched.to_dataloader()))
    if method == "save":
        batched.save(tmp_path / "dataset")
        restored = BatchedTimeSeriesDataSet.load(tmp_path / "dataset")
    elif method == "pickle":
        restored = pickle.loads(pickle.dumps(batched))
    else:
        restored = getattr(copy, method)(batched)
    assert type(restored) is BatchedTimeSeriesDataSet
    assert_same_loaders(restored, stock, train=True)


def train(dataset: TimeSeriesDataSet) -> tuple[list[Any], DecoderMLP]:
    pl.seed_everything(0, verbose=False)
    model = DecoderMLP.from_dataset(dataset, hidden_size=8, n_hidden_layers=1, log_interval=-1)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        model,
        dataset.to_dataloader(train=True, batch_size=16),
        dataset.to_dataloader(train=False, batch_size=16),
    )
    return list(model.parameters()), model


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
def test_decoder_mlp_learns_and_predicts_as_upstream(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    expected, _ = train(stock)
    actual, model = train(batched)
    for parameter, expected_parameter in zip(actual, expected, strict=True):
        assert torch.equal(parameter, expected_parameter)
    options = dict(
        mode="prediction",
        return_index=True,
        return_x=True,
        trainer_kwargs=dict(accelerator="cpu", logger=False),
    )
    expected_result = model.predict(stock, **copy.deepcopy(options))
    result = model.predict(batched, **copy.deepcopy(options))
    assert_identical(result.output, expected_result.output)
    assert_identical(result.x, expected_result.x)
    assert result.index.equals(expected_result.index)
    values = [1.0, 2.0]
    dependency = [
        model.predict_dependency(
            dataset,
            "price",
            values,
            mode="raw",
            trainer_kwargs=dict(accelerator="cpu", logger=False),
        )
        for dataset in (batched, stock)
    ]
    assert_identical(*dependency)
    assert not torch.equal(dependency[0][0], dependency[0][1])
