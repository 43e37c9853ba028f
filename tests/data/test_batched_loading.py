"""Everything around the batches stays the host's: samplers, workers, filters, files, models."""

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

from helpers.batched_configurations import CONFIGURATIONS, Configuration, panel
from helpers.batch_comparison import assert_identical
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

# scikit-learn, whenever the host hands arrays to a scaler that was fitted to a table
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")


def build(cls: type[TimeSeriesDataSet], name: str = "variable lengths") -> TimeSeriesDataSet:
    return next(each for each in CONFIGURATIONS if each.name == name).build(cls)


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


def test_inference_mode() -> None:
    """Whose tensors count no changes."""
    with torch.inference_mode():
        assert_same_loaders(build(BatchedTimeSeriesDataSet), build(TimeSeriesDataSet))


@pytest.mark.filterwarnings("ignore:Less than 8 samples available:UserWarning")
@pytest.mark.parametrize("train", [True, False])
def test_synchronized_sampler(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, train: bool
) -> None:
    assert_same_loaders(batched, stock, train=train, batch_sampler="synchronized")


def test_other_samplers(stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet) -> None:
    weights = torch.linspace(0.1, 1.0, len(stock)).tolist()
    for sampler in (
        WeightedRandomSampler(weights, 30),
        DistributedSampler(stock, num_replicas=2, rank=1, shuffle=True),
    ):
        assert_same_loaders(batched, stock, train=False, sampler=sampler, shuffle=False)
    by_hand = BatchSampler(range(5, 25), batch_size=6, drop_last=False)
    assert_same_loaders(batched, stock, train=False, batch_sampler=by_hand)


def test_sampler_that_lightning_puts_in(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    """A run on several devices makes the loader anew, with a sampler for each of them."""
    update = pl.utilities.data._update_dataloader
    loaded = []
    for dataset in (batched, stock):
        loader = dataset.to_dataloader(train=True, batch_size=8)
        torch.manual_seed(0)
        sampler = DistributedSampler(dataset, num_replicas=3, rank=1, seed=5)
        loaded.append(list(update(loader, sampler)))
    assert_identical(*loaded)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers(stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    options = dict(num_workers=1, multiprocessing_context=method)
    torch.manual_seed(0)
    actual = list(batched.to_dataloader(train=True, batch_size=32, **options))
    torch.manual_seed(0)
    expected = list(stock.to_dataloader(train=True, batch_size=32, num_workers=0))
    assert_identical(actual, expected)


# torch, where the system gives this process a single processor
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")
def test_random_lengths_in_workers_are_the_stock_ones() -> None:
    loaded = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        dataset = build(cls, "random lengths")
        torch.manual_seed(0)
        loaded.append(list(dataset.to_dataloader(train=True, batch_size=16, num_workers=2)))
    assert_identical(*loaded)


def test_subset_of_samples(stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet) -> None:
    actual, expected = (
        list(
            DataLoader(Subset(dataset, [3, 1, 4, 1, 5, 9, 2, 6]), 4, collate_fn=dataset._collate_fn)
        )
        for dataset in (batched, stock)
    )
    assert_identical(actual, expected)


@pytest.mark.parametrize("in_place", [True, False])
def test_filter(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, in_place: bool
) -> None:
    next(iter(batched.to_dataloader(batch_size=8)))  # whatever it may keep, it keeps

    def later(index: Any) -> Any:
        return (index["time_idx_first_prediction"] > 15) & (index["shop"] == "shop 1")

    whole = len(batched)
    fewer = batched.filter(later, copy=not in_place)
    assert isinstance(fewer, BatchedTimeSeriesDataSet)
    assert len(fewer) < whole
    assert len(batched) == (len(fewer) if in_place else whole)
    assert_same_loaders(fewer, stock.filter(later), train=True)
    assert_same_loaders(batched, stock.filter(later) if in_place else stock, train=True)


def test_changes_of_the_index_act_at_once(
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


def test_normalizer_that_is_fitted_again_acts_at_once() -> None:
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


def _fit_again(normalizer: TorchNormalizer) -> None:
    normalizer.fit(np.array(panel()["signed"] * 3 + 100))


def _assign(normalizer: TorchNormalizer) -> None:
    normalizer.center_, normalizer.scale_ = torch.tensor(7.0), torch.tensor(99.0)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize("change", [_fit_again, _assign])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_change_of_one_scale_for_all_acts_at_once(
    change: Callable[[TorchNormalizer], None], several: bool
) -> None:
    loaded = []
    for cls in (BatchedTimeSeriesDataSet, TimeSeriesDataSet):
        normalizer = TorchNormalizer()
        dataset = Configuration(
            "one scale for all series",
            lambda normalizer=normalizer: dict(
                target=["signed"] if several else "signed",
                target_normalizer=MultiNormalizer([normalizer]) if several else normalizer,
            ),
        ).build(cls)
        before = next(iter(dataset.to_dataloader(train=False)))[0]["target_scale"]
        change(normalizer)
        loaded.append(list(dataset.to_dataloader(train=False, batch_size=8)))
    assert_identical(*loaded)
    after = loaded[0][0][0]["target_scale"]
    old, new = (x[0] if several else x for x in (before, after))
    assert not torch.equal(old[0], new[0])


def test_change_of_the_groups_in_place_acts_at_once() -> None:
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
def test_wrap_shares_data_and_changes_nothing_in_the_stock_dataset(name: str) -> None:
    stock = build(TimeSeriesDataSet, name)
    stock.set_overwrite_values(2.0, "size")
    before = list(stock.to_dataloader(train=False))
    wrapped = BatchedTimeSeriesDataSet.wrap(stock)
    for key, values in stock.data.items():
        assert wrapped.data[key] is values
    wrapped.set_overwrite_values(1.0, "size")
    wrapped.filter(lambda index: index["shop"] == "shop 1", copy=False)
    assert_identical(list(stock.to_dataloader(train=False)), before)
    again = BatchedTimeSeriesDataSet.wrap(wrapped)
    assert_same_loaders(again, wrapped, train=False)


def test_wrapped_and_built_data_take_the_memory_of_stock_data(
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


def test_derived_class_wraps_what_has_nothing_to_lose(stock: TimeSeriesDataSet) -> None:
    class Own(BatchedTimeSeriesDataSet):
        pass

    own = Own.wrap(BatchedTimeSeriesDataSet.wrap(stock))
    assert type(own) is Own
    assert type(Own.wrap(own)) is Own
    assert_same_loaders(own, stock, train=True)
    with pytest.raises(TypeError, match="got Own, a class derived from it"):
        BatchedTimeSeriesDataSet.wrap(own)


def test_wrap_refuses_what_it_cannot_wrap(stock: TimeSeriesDataSet) -> None:
    class Own(TimeSeriesDataSet):
        pass

    own = copy.copy(stock)
    own.__class__ = Own
    with pytest.raises(TypeError, match="got Own, a class derived from it.*derive that class from"):
        BatchedTimeSeriesDataSet.wrap(own)
    with pytest.raises(TypeError, match="wrap expects a TimeSeriesDataSet, got DataFrame"):
        BatchedTimeSeriesDataSet.wrap(panel())


def test_parameters_are_those_of_the_host(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    expected, actual = stock.get_parameters(), batched.get_parameters()
    assert list(actual) == list(expected)
    assert type(actual["target_normalizer"]) is type(expected["target_normalizer"])
    for swap in (
        BatchedTimeSeriesDataSet.from_parameters(expected, panel()),
        BatchedTimeSeriesDataSet.from_dataset(stock, panel()),
    ):
        assert isinstance(swap, BatchedTimeSeriesDataSet)
        assert_same_loaders(swap, TimeSeriesDataSet.from_dataset(batched, panel()), train=True)
    assert repr(batched) == repr(stock).replace("TimeSeriesDataSet", "BatchedTimeSeriesDataSet", 1)


def test_what_is_saved_of_a_batched_dataset_needs_no_class_of_this_package(
    batched: BatchedTimeSeriesDataSet,
) -> None:
    """Its parameters go into checkpoints of models, which others load without it."""
    assert b"pytorch_forecasting_mlstm" not in pickle.dumps(batched.get_parameters())


@pytest.mark.parametrize("way", ["save", "pickle", "deepcopy", "copy"])
def test_copies_and_files(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet, way: str, tmp_path: Path
) -> None:
    next(iter(batched.to_dataloader()))
    if way == "save":
        batched.save(tmp_path / "dataset")
        restored = BatchedTimeSeriesDataSet.load(tmp_path / "dataset")
    elif way == "pickle":
        restored = pickle.loads(pickle.dumps(batched))
    else:
        restored = getattr(copy, way)(batched)
    assert type(restored) is BatchedTimeSeriesDataSet
    assert_same_loaders(restored, stock, train=True)


def test_load_takes_stock_files_and_refuses_others(
    stock: TimeSeriesDataSet, tmp_path: Path
) -> None:
    stock.save(tmp_path / "stock")
    loaded = BatchedTimeSeriesDataSet.load(tmp_path / "stock")
    assert isinstance(loaded, BatchedTimeSeriesDataSet)
    assert_same_loaders(loaded, stock, train=True)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(TypeError, match="expects a TimeSeriesDataSet, got list"):
        BatchedTimeSeriesDataSet.load(tmp_path / "list")


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
def test_model_of_the_host_learns_and_predicts_the_same(
    stock: TimeSeriesDataSet, batched: BatchedTimeSeriesDataSet
) -> None:
    expected, _ = train(stock)
    actual, model = train(batched)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)
    options = dict(
        mode="prediction",
        return_index=True,
        return_x=True,
        trainer_kwargs=dict(accelerator="cpu", logger=False),
    )
    by_stock = model.predict(stock, **copy.deepcopy(options))
    by_batched = model.predict(batched, **copy.deepcopy(options))
    assert_identical(by_batched.output, by_stock.output)
    assert_identical(by_batched.x, by_stock.x)
    assert by_batched.index.equals(by_stock.index)
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
