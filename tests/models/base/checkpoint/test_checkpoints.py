"""Checkpoints are read by torch's defaults, restore everything, and run no code."""

import io
import os
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import torch
import torchmetrics
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from pytorch_forecasting import GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.data import EncoderNormalizer, TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    MASE,
    SMAPE,
    BetaDistributionLoss,
    CrossEntropy,
    ImplicitQuantileNetworkDistributionLoss,
    LogNormalDistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.utils import to_list
from torch import nn
from torch.serialization import get_safe_globals

from helpers.checkpoints import SMALL, make_model, save
from helpers.datasets import QUIET, collate, configured, fit, make_dataset, make_table, pick_samples
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm._safe_files.archive import device_of
from pytorch_forecasting_mlstm._safe_files.safe_globals import _default_globals
from pytorch_forecasting_mlstm._safe_files.serialization import deserialize, serialize


def raw_forecast(model: mLSTMTime, dataset: TimeSeriesDataSet) -> list[torch.Tensor]:
    x, _ = collate(pick_samples(dataset), torch.float32)
    return [part.detach() for part in to_list(model.eval()(x).prediction)]


def round_trip(values: dict[str, Any]) -> dict[str, Any]:
    """Serialize, save, load and deserialize objects with torch's defaults."""
    data = serialize(values)
    assert not data["unwritten"]
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    return deserialize(torch.load(file))


# Everything is restored


@pytest.mark.filterwarnings("ignore:If predicting, no randomization:UserWarning")  # of any dataset
@pytest.mark.parametrize(
    "name",
    [
        "scaled covariates",
        "scaled by group",
        "unseen classes",
        "mixed targets",
        "custom transformation",
    ],
)
def test_loaded_model_is_the_same(name: str, tmp_path: Path) -> None:
    dataset = configured(name)
    model = make_model(dataset)
    path = save(model, tmp_path / "model.ckpt")
    loaded = mLSTMTime.load_from_checkpoint(path)
    assert set(loaded.hparams) == set(model.hparams)
    for got, expected in zip(
        raw_forecast(loaded, dataset), raw_forecast(model, dataset), strict=True
    ):
        assert torch.equal(got, expected)
    table = make_table(steps=30)
    forecasts = [to_list(m.predict(table, trainer_kwargs=dict(QUIET))) for m in (loaded, model)]
    for got, expected in zip(*forecasts, strict=True):
        assert torch.equal(got, expected)


def test_a_checkpoint_contains_only_plain_data_and_tensors(tmp_path: Path) -> None:
    """torch reads these by default, and what has been allowed: here nothing that matters."""
    assert not any("pytorch_forecasting" in str(item) for item in get_safe_globals())
    model = make_model(configured("all covariates"), learning_rate=np.float64(1e-3))
    trainer = fit(model, configured("all covariates"), enable_checkpointing=False)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt")
    assert checkpoint["hyper_parameters"]["hidden_size"] == 4
    assert checkpoint["optimizer_states"]


def test_double_precision_is_restored(tmp_path: Path) -> None:
    model = make_model(loss=ImplicitQuantileNetworkDistributionLoss()).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1e-12 * torch.randn_like(weight)  # lost in single precision
    loaded = mLSTMTime.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_file_object_is_loaded(tmp_path: Path) -> None:
    model = make_model()
    file = io.BytesIO(save(model, tmp_path / "model.ckpt").read_bytes())
    loaded = mLSTMTime.load_from_checkpoint(file)
    assert torch.equal(loaded.network.position_embedding, model.network.position_embedding)


LOSSES = {
    "composite": SMAPE() + MAE(),
    "quantiles": QuantileLoss([0.2, 0.5]),
    "MASE": MASE(),
    "Poisson": PoissonLoss(),
    "Tweedie": TweedieLoss(p=1.3),
    "normal": NormalDistributionLoss(),
    "multivariate": MultivariateNormalDistributionLoss(rank=3),
    "negative binomial": NegativeBinomialDistributionLoss(),
    "log-normal": LogNormalDistributionLoss(),
    "beta": BetaDistributionLoss(),
    "implicit quantiles": ImplicitQuantileNetworkDistributionLoss(),
    "classes": CrossEntropy(),
    "two targets": MultiLoss([MAE(), QuantileLoss()], weights=[1.0, 2.5]),
    "torchmetrics": torchmetrics.MeanAbsolutePercentageError(),
    "accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=3),
}


def comparable(item: Any) -> Any:
    """Return the state of an object as values that can be compared."""
    if isinstance(item, torch.Tensor):
        return item.tolist()
    if isinstance(item, list | tuple):
        return [comparable(part) for part in item]
    if isinstance(item, dict):
        return {key: comparable(part) for key, part in item.items()}
    if isinstance(item, nn.Module):
        return type(item), comparable(item.__getstate__())
    return item


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_restored(name: str) -> None:
    loss = LOSSES[name]
    got = round_trip({"loss": loss})["loss"]
    assert comparable(got) == comparable(loss)
    assert all(p.requires_grad for p in got.parameters())


def test_mqf2_is_restored() -> None:
    pytest.importorskip("cpflows")
    from pytorch_forecasting.metrics import MQF2DistributionLoss

    loss = MQF2DistributionLoss(prediction_length=3)
    got = round_trip({"loss": loss})["loss"]
    assert got.distribution_class is loss.distribution_class
    assert comparable(got.state_dict()) == comparable(loss.state_dict())
    prediction, target = torch.randn(2, 3 * 4 + 2), torch.randn(2, 3)
    losses = []
    for part in (loss, got):
        torch.manual_seed(0)
        losses.append(part.loss(prediction, target))
    assert torch.equal(*losses)


TABLE = pd.DataFrame(
    {
        "real": [1.5, np.nan, -2.0],
        "whole": [1, 2, 3],
        "word": ["a", "b", "a"],
        "class": pd.Categorical(["x", "y", "x"]),
        "time": pd.date_range("2020-01-01", periods=3, freq="h"),
        "yes": [True, False, True],
    }
)


@pytest.mark.parametrize(
    "value",
    [
        TABLE,
        TABLE.set_index("word"),
        TABLE.set_index(["word", "whole"]),
        TABLE.set_index("time"),
        TABLE.set_index(TABLE["time"].dt.tz_localize("Europe/Berlin")),
        TABLE.set_index(TABLE["time"].dt.to_period("M")),
        TABLE.set_index(TABLE["time"] - TABLE["time"][0]),
        TABLE.set_index(pd.interval_range(0.5, 3.5)),
        TABLE.iloc[:0],
        TABLE["class"],
        pd.Series([1.0], index=["a"], name="s"),
    ],
    ids=[
        "table",
        "words",
        "levels",
        "times",
        "zoned times",
        "periods",
        "durations",
        "intervals",
        "empty",
        "classes",
        "series",
    ],
)
def test_pandas_objects_are_restored(value: Any) -> None:
    got = round_trip({"value": value})["value"]
    check = pd.testing.assert_frame_equal if value.ndim == 2 else pd.testing.assert_series_equal
    check(got, value, check_freq=False, check_index_type="equiv")


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1),
        np.int64(2**60),
        np.arange(6, dtype=np.int32).reshape(2, 3).T,
        np.array([["a", "bc"]]),
        np.array(["a", None, 1.5], dtype=object),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array(2.5),
        np.zeros((0, 3)),
        pd.Timestamp("2020-01-01 12:00:00.000000123"),
        pd.Timestamp("2020-07-01 12:00", tz="Europe/Berlin"),
        pd.Timestamp("2020-07-01 12:00", tz="UTC"),
        pd.Timestamp("2020-07-01 12:00+05:30"),
        pd.Timedelta("3h"),
        pd.Period("2020-03", freq="M"),
        pd.Interval(0.5, 1.5, closed="left"),
        date(2020, 1, 2),
        datetime(2020, 1, 2, 3, 4, 5, 6),
        datetime(2020, 7, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2020, 7, 2, tzinfo=timezone(timedelta(hours=-3))),
        timedelta(days=-1, microseconds=3),
        {"a"},
        frozenset({1}),
        {np.int64(1): "a", (np.int64(1), "b"): "c", date(2020, 1, 2): "d"},
        {"plain object": "a reserved key"},
        OrderedDict({pd.Timestamp("2020-01-01"): 1}),
        {np.datetime64("2020-01-01"): {pd.Period("2020-03", freq="M"): [1]}},
    ],
    ids=repr,
)
def test_values_of_numpy_and_python_are_restored(value: Any) -> None:
    got = round_trip({"value": value})["value"]
    assert type(got) is type(value)
    if isinstance(value, np.ndarray):
        assert got.dtype == value.dtype
        np.testing.assert_array_equal(got, value)
    else:
        assert got == value
    if isinstance(value, dict):
        assert [type(key) for key in got] == [type(key) for key in value]


@pytest.mark.filterwarnings("ignore:Found .* unknown classes:UserWarning")  # of other groups
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(pd.date_range("2020-01-01", periods=3), marks=pytest.mark.slow),
        pd.date_range("2020-01-01", periods=3, tz="Europe/Berlin"),
        pytest.param(pd.period_range("2020-01", periods=3, freq="M"), marks=pytest.mark.slow),
        pd.interval_range(0, 3),
        [date(2020, 1, number) for number in (1, 2, 3)],
        [("a", 1), ("a", 2), ("b", 1)],
        pd.CategoricalIndex(["x", "z", "y"], categories=["z", "y", "x", "w"], ordered=True),
        pytest.param(np.array([1, -1, 2**40]), marks=pytest.mark.slow),
        np.array([0.1, 0.2, 0.3], dtype=np.float32),
    ],
    ids=["times", "zoned", "periods", "intervals", "dates", "tuples", "classes", "whole", "real"],
)
def test_series_of_any_name_are_forecast_by_a_loaded_model(names: Any, tmp_path: Path) -> None:
    table = make_table()
    of_series = dict(zip(["s0", "s1", "s2"], names, strict=True))
    table["series"] = pd.Index([of_series[name] for name in table["series"]], dtype=None)
    dataset = make_dataset(table)
    model = make_model(dataset)
    loaded = mLSTMTime.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    expected = model.forecast(table, trainer_kwargs=QUIET)
    assert expected["series"].tolist() == [name for name in names for _ in range(4)]
    pd.testing.assert_frame_equal(loaded.forecast(table, trainer_kwargs=QUIET), expected)


def test_shared_objects_stay_shared_and_may_contain_themselves() -> None:
    normalizer = GroupNormalizer()
    normalizer.me = {"self": normalizer}
    got = round_trip({"direct": normalizer, "in list": [normalizer]})
    assert got["direct"] is got["in list"][0] is got["direct"].me["self"]


# Resuming, testing and tuning work with default arguments


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
def test_trainer_reads_checkpoints_by_default(tmp_path: Path) -> None:
    dataset = make_dataset(time_varying_known_reals=["price"])
    train, val = (
        dataset.to_dataloader(train=t, batch_size=16, num_workers=0) for t in (True, False)
    )
    model = make_model(dataset, loss=QuantileLoss())
    best = ModelCheckpoint(tmp_path, monitor="val_loss")
    limits = {"limit_train_batches": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = Trainer(max_epochs=1, callbacks=[best], **limits, **QUIET)
    trainer.fit(model, train, val)
    weights = model.network.residual_head.weight.detach().clone()

    with torch.no_grad():
        model.network.residual_head.weight.zero_()
    trainer.test(model, val, ckpt_path="best", verbose=False)
    assert torch.equal(model.network.residual_head.weight, weights)

    resumed = make_model(dataset, loss=QuantileLoss())
    trainer = Trainer(max_epochs=2, callbacks=[best], **limits, **QUIET)
    trainer.fit(resumed, train, val, ckpt_path=best.best_model_path)
    assert trainer.global_step == 4


class Windows(LightningDataModule):
    """A data module with hyper-parameters and a state."""

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.count = 0

    def train_dataloader(self) -> Any:
        """Return a loader of the training data."""
        dataset = configured("known real")
        return dataset.to_dataloader(batch_size=self.hparams.batch_size, num_workers=0)

    def val_dataloader(self) -> Any:
        """Return a loader of the validation data."""
        return self.train_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning writes under the name of the class."""
        return {"count": 3}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.count = state["count"]


class Diary(Callback):
    """A callback that adds an entry to the checkpoint."""

    def on_save_checkpoint(self, trainer: Any, model: Any, checkpoint: dict[str, Any]) -> None:
        """Write the entry."""
        checkpoint["diary"] = {"pages": [1, 2]}


class Annotated(mLSTMTime):
    """A model that adds an entry to the checkpoint, and whose constructor reads a tensor."""

    note = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert torch.ones(3).sum().item() == 3
        super().__init__(*args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the entry."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["note"] = "mine"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the entry."""
        super().on_load_checkpoint(checkpoint)
        self.note = checkpoint["note"]


@pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`:UserWarning")
@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning")
@pytest.mark.parametrize("weights_alone", [False, True])
def test_checkpoint_with_entries_of_other_components_is_loaded(
    weights_alone: bool, tmp_path: Path
) -> None:
    """Data modules, callbacks, averages of weights, and subclasses of the model write some."""
    model = Annotated.from_dataset(configured("known real"), **SMALL)
    average = EMAWeightAveraging()
    trainer = Trainer(
        callbacks=[Diary(), average],
        enable_checkpointing=False,
        precision="bf16-mixed",
        **{**QUIET, "max_epochs": 1},
        limit_train_batches=2,
        limit_val_batches=1,
    )
    trainer.fit(model, datamodule=Windows())
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path, weights_only=weights_alone)
    keys = torch.load(path).keys()
    assert weights_alone or {"Windows", "diary", "averaging_state"} <= keys
    assert {"datamodule_hyper_parameters", "note"} <= keys

    loaded = Annotated.load_from_checkpoint(path)
    assert loaded.note == "mine"
    stored = torch.load(path)["state_dict"]
    name = "network.position_embedding"
    assert torch.equal(loaded.network.position_embedding, stored[name])
    if weights_alone:
        return
    data, trainer = (
        Windows(),
        Trainer(
            callbacks=[EMAWeightAveraging()],
            enable_checkpointing=False,
            precision="bf16-mixed",
            **{**QUIET, "max_epochs": 2},
            limit_train_batches=2,
        ),
    )
    trainer.fit(Annotated.from_dataset(configured("known real"), **SMALL), data, ckpt_path=path)
    assert data.count == 3
    assert trainer.global_step == 4


class Narrow(mLSTMTime):
    """A model with few arguments."""

    def __init__(self, max_encoder_length: int = 8, loss: Any = None) -> None:
        super().__init__(
            max_encoder_length=max_encoder_length,
            loss=loss,
            target="y",
            output_transformer=TorchNormalizer(),
        )


def test_a_model_of_few_arguments_is_loaded(tmp_path: Path) -> None:
    loaded = Narrow.load_from_checkpoint(save(Narrow(loss=SMAPE()), tmp_path / "model.ckpt"))
    assert type(loaded.loss) is SMAPE


def test_masks_may_be_infinite(tmp_path: Path) -> None:
    """Weights must be finite; a buffer need not be."""

    class Masked(mLSTMTime):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.register_buffer("mask", torch.full((3,), -torch.inf))

    model = Masked.from_dataset(configured("known real"), **SMALL)
    loaded = Masked.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    assert loaded.mask.isinf().all()


@pytest.mark.parametrize(
    "place",
    ["cpu", torch.device("cpu"), {"cpu": "cpu"}, lambda storage, location: storage, None],
    ids=["name", "device", "dict", "function", "none"],
)
def test_map_location_selects_the_device(place: Any, tmp_path: Path) -> None:
    path = save(make_model(), tmp_path / "model.ckpt")
    assert mLSTMTime.load_from_checkpoint(path, map_location=place).device.type == "cpu"


@pytest.mark.parametrize(
    ("location", "place", "expected"),
    [
        ("cuda:1", None, "cuda:1" if torch.cuda.is_available() else "cpu"),
        ("cuda:1", {"cuda:1": "cuda:0"}, "cuda:0"),
        ("cuda:1", {"cuda:0": "cpu"}, "cuda:1"),
        ("cuda:1", lambda storage, location: None, "cuda:1"),
        ("cpu", "meta", "meta"),
    ],
)
def test_device_of_map_location(location: str, place: Any, expected: str) -> None:
    assert device_of(location, place) == torch.device(expected)


@pytest.mark.filterwarnings("ignore:.*suggestion:UserWarning")
def test_learning_rate_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = configured("known real")
    train, val = (
        dataset.to_dataloader(train=t, batch_size=16, num_workers=0) for t in (True, False)
    )
    model = make_model()
    before = model.network.residual_head.weight.detach().clone()
    trainer = Trainer(max_epochs=6, enable_checkpointing=False, **QUIET)
    # without a threshold, all rates are tried
    finder = Tuner(trainer).lr_find(model, train, val, num_training=12, early_stop_threshold=None)
    assert len(finder.results["lr"]) == 12
    assert torch.equal(model.network.residual_head.weight, before)


# No code in the file is run


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["loss", "hyper_parameters", "state_dict", "callbacks", "file"])
def test_a_malicious_file_is_rejected(place: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = make_model()
    path = save(model, tmp_path / "model.ckpt")
    checkpoint: Any = torch.load(path)
    if place == "loss":
        checkpoint["objects_of_hyper_parameters"]["values"]["loss"] = Payload(marker)
    elif place == "file":
        checkpoint = Payload(marker)
    else:
        checkpoint[place]["evil"] = Payload(marker)
    torch.save(checkpoint, path)

    trainer = Trainer(enable_checkpointing=False, **QUIET)
    loader = configured("known real").to_dataloader(train=False, batch_size=16)
    for load in (
        lambda: mLSTMTime.load_from_checkpoint(path),
        lambda: trainer.test(model, loader, ckpt_path=path),
        lambda: torch.load(path),
    ):
        with pytest.raises(pickle.UnpicklingError):
            load()
        assert not marker.exists()

    torch.load(path, weights_only=False)
    assert marker.exists()  # it would have worked


def _as_tar(evil: Payload, path: Path) -> None:
    """Write what torch wrote before 2016: an archive with several pickles."""
    entries = {"sys_info": {}, "pickle": {}, "storages": evil, "tensors": 0}
    with tarfile.open(path, "w") as archive:
        for name, entry in entries.items():
            pickled = pickle.dumps(entry, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))


def _as_pickle(evil: Payload, path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {}, "evil": evil}, protocol=2))


def _as_old_torch(evil: Payload, path: Path) -> None:
    torch.save({"state_dict": {}, "evil": evil}, path, _use_new_zipfile_serialization=False)


def _as_upstream(evil: Payload, path: Path) -> None:
    """Write the format of pytorch-forecasting, which pickles loss and dataset parameters."""
    special = {"__special_save__": {"loss": evil}, "dataset_parameters": {"scalers": evil}}
    torch.save({"state_dict": {}, "hyper_parameters": {}, **special}, path)


@pytest.mark.parametrize("write", [_as_tar, _as_pickle, _as_old_torch, _as_upstream])
def test_malicious_files_of_other_formats_are_rejected(
    write: Callable[[Payload, Path], None], tmp_path: Path
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.ckpt"
    write(Payload(marker), path)
    model, loader = make_model(), configured("known real").to_dataloader(train=False)
    for load in (
        lambda: mLSTMTime.load_from_checkpoint(path),
        lambda: Trainer(**QUIET).test(model, loader, ckpt_path=path),
    ):
        # torch raises a RuntimeError for a tar archive, which it only reads without restrictions
        with pytest.raises((pickle.UnpicklingError, RuntimeError)):
            load()
        assert not marker.exists()
    with suppress(Exception):  # it is not a valid checkpoint
        torch.load(path, weights_only=False)
    assert marker.exists()  # it would have worked


@pytest.mark.parametrize(
    "name", ["os.mkdir", "builtins.eval", "builtins.getattr", "torch.load", "os.path", "torch.nn"]
)
@pytest.mark.parametrize("as_object", [True, False])
def test_names_that_are_not_allowed_are_rejected(
    name: str, as_object: bool, tmp_path: Path
) -> None:
    """They are in the data of the objects, which torch reads as plain data."""
    path = save(make_model(), tmp_path / "model.ckpt")
    checkpoint = torch.load(path)
    objects = checkpoint["objects_of_hyper_parameters"]
    if as_object:
        objects["objects"][objects["values"]["loss"]["number"]]["class"] = name
    else:
        objects["values"]["loss"] = {"plain object": "name", "path": name}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=f"{name!r}.*add_safe_globals"):
        mLSTMTime.load_from_checkpoint(path)


@pytest.mark.parametrize("content", [None, [1, 2], torch.ones(3), {}, {"state_dict": 1}], ids=str)
def test_files_that_are_not_checkpoints_are_rejected(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    if content is None:
        path.touch()  # as a crash may leave a file
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"mLSTMTime: .*bad\.ckpt must be a checkpoint"):
        mLSTMTime.load_from_checkpoint(path)


def _self_containing_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "no path": lambda objects: objects["values"].update(loss={"plain object": "name"}),
    "path a list": lambda objects: objects["values"].update(
        loss={"plain object": "name", "path": []}
    ),
    "no such object": lambda objects: objects["values"]["loss"].update(number=9999),
    "number a word": lambda objects: objects["values"]["loss"].update(number="x"),
    "no objects": lambda objects: objects.pop("objects"),
    "no values": lambda objects: objects.pop("values"),
    "values a list": lambda objects: objects.update(values=[]),
    "a state of another kind": lambda objects: objects["objects"][0].update(state=3),
    "a list that contains itself": lambda objects: objects["values"].update(
        loss=_self_containing_list()
    ),
    "a later format": lambda objects: objects.update(format=2),
    "no format": lambda objects: objects.clear(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_objects_are_rejected(damage: Callable[[Any], Any], tmp_path: Path) -> None:
    path = save(make_model(), tmp_path / "model.ckpt")
    checkpoint = torch.load(path)
    damage(checkpoint["objects_of_hyper_parameters"])
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"mLSTMTime: .*damaged"):
        mLSTMTime.load_from_checkpoint(path)


def test_functions_are_never_called(tmp_path: Path) -> None:
    data = serialize({"value": MAE()})
    data["objects"][0]["class"] = "torch.log1p"
    with pytest.raises(ValueError, match=r"'torch.log1p'.*must be a class"):
        deserialize(data)


def test_an_importer_named_in_the_file_is_not_used(tmp_path: Path) -> None:
    """Lightning calls what ``_instantiator`` names, and before 2.6 whatever that is."""
    path = save(make_model(), tmp_path / "model.ckpt")
    checkpoint = torch.load(path)
    checkpoint["hyper_parameters"]["_instantiator"] = "os.mkdir"
    torch.save(checkpoint, path)
    assert isinstance(mLSTMTime.load_from_checkpoint(path), mLSTMTime)


def test_allowed_classes_restore_their_state_harmlessly() -> None:
    """Only these methods run, which have been reviewed. Review a new one before you add it."""
    methods = {
        getattr(item, "__setstate__", None)
        for item in _default_globals().values()
        if isinstance(item, type)
    }
    names = {m if m is None else f"{m.__module__}.{m.__qualname__}" for m in methods}
    assert names <= {
        None,  # the state goes into __dict__
        "torch.nn.modules.module.Module.__setstate__",
        # the same, in a process that has used torch.compile
        "torch._dynamo.mutation_guard.install_generation_tagging_init.<locals>.patched_setstate",
        "torch.nn.modules.conv._ConvNd.__setstate__",
        "torchmetrics.metric.Metric.__setstate__",
        "sklearn.base.BaseEstimator.__setstate__",
    }


# Classes of the user


class UserLoss(MAE):
    """A loss that is not on the list."""


class UserNormalizer(TorchNormalizer):
    """A normalizer that is not on the list."""


def test_user_classes_are_loaded_once_they_are_allowed(tmp_path: Path) -> None:
    dataset = make_dataset(target_normalizer=UserNormalizer())
    model = make_model(dataset, loss=UserLoss())
    path = save(model, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"\.User(\w+)'.*add_safe_globals\(\[User\1\]\)"):
        mLSTMTime.load_from_checkpoint(path)
    with torch.serialization.safe_globals([UserLoss, UserNormalizer]):
        loaded = mLSTMTime.load_from_checkpoint(path)
    assert type(loaded.loss) is UserLoss
    assert type(loaded.output_transformer) is UserNormalizer
    assert torch.equal(raw_forecast(loaded, dataset)[0], raw_forecast(model, dataset)[0])


def test_a_user_optimizer_must_be_passed_by_name(tmp_path: Path) -> None:
    model = mLSTMTime.from_dataset(make_dataset(), optimizer=torch.optim.RMSprop)
    path = save(model, tmp_path / "model.ckpt")
    with pytest.raises(
        ValueError, match=r"RMSprop.*load_from_checkpoint\(path, optimizer=\.\.\.\)"
    ):
        mLSTMTime.load_from_checkpoint(path)
    loaded = mLSTMTime.load_from_checkpoint(path, optimizer=torch.optim.RMSprop)
    assert torch.equal(loaded.network.position_embedding, model.network.position_embedding)


def test_a_user_loss_is_loaded_if_it_is_passed(tmp_path: Path) -> None:
    path = save(make_model(loss=UserLoss()), tmp_path / "model.ckpt")
    assert type(mLSTMTime.load_from_checkpoint(path, loss=UserLoss()).loss) is UserLoss


def test_a_model_with_a_user_loss_resumes(tmp_path: Path) -> None:
    """The model already has it: it is not read from the file."""
    model = make_model(loss=UserLoss())
    path = save(model, tmp_path / "model.ckpt")
    trainer = Trainer(enable_checkpointing=False, **QUIET)
    loader = configured("known real").to_dataloader(train=False, batch_size=16)
    trainer.validate(model, loader, ckpt_path=path, verbose=False)
    assert type(model.loss) is UserLoss


def test_unserializable_objects_are_left_out_with_a_warning(tmp_path: Path) -> None:
    """The training must not be lost because of a lambda."""
    normalizer = EncoderNormalizer(
        transformation={"forward": lambda y: torch.log(y + 1), "reverse": torch.expm1}
    )
    model = make_model(make_dataset(target="volume", target_normalizer=normalizer))
    # it is in the parameters of the dataset, too
    missing = (
        "(output_transformer and dataset_parameters|dataset_parameters and output_transformer)"
    )
    with pytest.warns(UserWarning, match=rf"without {missing}: .*'forward'.*lambda"):
        path = save(model, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"contains no output_transformer.*pass it"):
        mLSTMTime.load_from_checkpoint(path, dataset_parameters=None)
    loaded = mLSTMTime.load_from_checkpoint(
        path, output_transformer=normalizer, dataset_parameters=model.dataset_parameters
    )
    assert torch.equal(loaded.network.position_embedding, model.network.position_embedding)


def test_a_checkpoint_of_another_model_is_rejected(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="expected a checkpoint of mLSTMTime"):
        mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt")
