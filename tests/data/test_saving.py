"""Saved datasets give the same batches elsewhere, and their files run no code."""

import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer, GroupNormalizer
from sklearn.preprocessing import PowerTransformer

from helpers.batch_comparison import assert_identical
from helpers.batched_configurations import CONFIGURATIONS, Configuration, find_configuration
from helpers.checkpoints import make_model, save
from helpers.products import alternate
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet, ParquetShards

pytestmark = [
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]

OBJECTS = "objects"


def assert_same_state(actual: Any, expected: Any, where: str = "state") -> None:
    """Compare nested objects: types and, to the last bit, numbers."""
    assert type(actual) is type(expected), where
    if isinstance(expected, torch.Tensor | np.ndarray):
        assert actual.dtype == expected.dtype, where
        np.testing.assert_array_equal(actual, expected, err_msg=where)
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(actual, expected, check_exact=True)
    elif isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(actual, expected, check_exact=True)
    elif isinstance(expected, pd.Index):
        pd.testing.assert_index_equal(actual, expected, exact="equiv")
    elif isinstance(expected, dict):
        assert list(actual) == list(expected), where
        for key, value in expected.items():
            assert_same_state(actual[key], value, f"{where}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for number, value in enumerate(expected):
            assert_same_state(actual[number], value, f"{where}[{number}]")
    elif hasattr(expected, "__dict__") and not isinstance(expected, type | FunctionType):
        assert_same_state(vars(actual), vars(expected), where)
    else:
        np.testing.assert_equal(actual, expected, err_msg=where)


def batches(dataset: Any) -> list[Any]:
    torch.manual_seed(0)
    return list(dataset.to_dataloader(batch_size=16))


#: Those that can be written: a lambda cannot, and functions have a test of their own below.
NAMED = [item for item in CONFIGURATIONS if "custom transformation" not in item.name]


@alternate("configuration", NAMED, every=4)
def test_loaded_dataset_is_equal(configuration: Configuration, tmp_path: Path) -> None:
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    dataset.save(tmp_path / "dataset.pt")
    loaded = BatchedTimeSeriesDataSet.load(tmp_path / "dataset.pt")
    assert type(loaded) is BatchedTimeSeriesDataSet
    assert_same_state(loaded.__getstate__(), dataset.__getstate__())
    assert_identical(batches(loaded), batches(dataset))


@pytest.mark.parametrize("name", ["missing values", "overwritten values", "a slice of them"])
def test_changed_dataset_is_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    configuration = find_configuration("covariates of all kinds")
    if name == "missing values":
        table = configuration.table().copy()
        table.loc[[3, 30, 31], ["y", "price", "rain"]] = np.nan
        defaults = {
            **{"time_idx": "time", "target": "y", "group_ids": ["shop", "product"]},
            **{"max_encoder_length": 9, "max_prediction_length": 4},
        }
        dataset = BatchedTimeSeriesDataSet(table, **(defaults | configuration.settings()))
    else:
        dataset = configuration.build(BatchedTimeSeriesDataSet)
        dataset.set_overwrite_values(2.0, "price", target="decoder")
        if name == "a slice of them":
            dataset._overwrite_values["target"] = slice(2, 4)
    dataset.save(tmp_path / "dataset.pt")
    loaded = BatchedTimeSeriesDataSet.load(tmp_path / "dataset.pt")
    assert_same_state(loaded.__getstate__(), dataset.__getstate__())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the slice requires single samples
        assert_identical(batches(loaded), batches(dataset))


@pytest.fixture(scope="module")
def built_shards(tmp_path_factory: pytest.TempPathFactory) -> ParquetShards:
    folder = tmp_path_factory.mktemp("shards")
    configuration = find_configuration("covariates of all kinds")
    table = configuration.table()
    paths = []
    for name, part in table.groupby("shop"):
        paths.append(folder / f"{name}.parquet")
        part.to_parquet(paths[-1])
    return ParquetShards(paths, configuration.build(BatchedTimeSeriesDataSet))


@pytest.fixture(params=["dataset", "shards"])
def item(request: pytest.FixtureRequest, built_shards: ParquetShards) -> Any:
    if request.param == "shards":
        return deepcopy(built_shards)
    return find_configuration("covariates of all kinds").build(BatchedTimeSeriesDataSet)


def test_loaded_shards_are_equal(built_shards: ParquetShards, tmp_path: Path) -> None:
    built_shards.save(tmp_path / "shards.pt")
    loaded = ParquetShards.load(str(tmp_path / "shards.pt"))
    assert type(loaded) is ParquetShards
    assert_same_state(vars(loaded), vars(built_shards))
    assert_identical(batches(loaded), batches(built_shards))


def test_file_is_plain_data(item: Any, tmp_path: Path) -> None:
    """torch reads it by default, and what is shared is written once."""
    item.save(tmp_path / "file.pt")
    torch.load(tmp_path / "file.pt", weights_only=True)


# Files that are refused


def assert_refused(item: Any, path: Path, match: str, error: type[Exception] = ValueError) -> str:
    """Assert that a file raises a one-line error that names the caller."""
    with pytest.raises(error, match=match) as raised:
        type(item).load(path)
    message = str(raised.value)
    assert message.startswith(f"{type(item).__name__}.load: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    return message


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("write", ["torch", "legacy", "pickle", "attribute"])
def test_pickle_is_not_executed(item: Any, write: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "file.pt"
    evil = Evil(marker)
    if write == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif write == "legacy":
        torch.save(evil, path, _use_new_zipfile_serialization=False)
    elif write == "attribute":
        item.save(path)
        content = torch.load(path)
        content[OBJECTS]["values"]["weight"] = evil
        torch.save(content, path)
    else:
        torch.save(evil, path)
    kind = {"legacy": "another format", "pickle": "another format"}.get(write, "pickle, which")
    assert_refused(item, path, f"file.pt must be a .*, got a.*{kind}", pickle.UnpicklingError)
    assert not marker.exists()
    with path.open("rb") as file:  # the trap itself works
        pickle.load(file) if write == "pickle" else torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("cls", [TimeSeriesDataSet, BatchedTimeSeriesDataSet])
def test_pickled_dataset_can_be_converted(cls: type[TimeSeriesDataSet], tmp_path: Path) -> None:
    """As the error says."""
    dataset = find_configuration("covariates of all kinds").build(cls)
    path = tmp_path / "dataset.pt"
    torch.save(dataset, path)
    message = assert_refused(
        find_configuration("covariates of all kinds").build(BatchedTimeSeriesDataSet),
        path,
        "that BatchedTimeSeriesDataSet.save has written as plain data, got a pickle, which can run",
        pickle.UnpicklingError,
    )
    code = "BatchedTimeSeriesDataSet.wrap(torch.load(path, weights_only=False))"
    assert code in message
    eval(code).save(path)
    assert_identical(batches(BatchedTimeSeriesDataSet.load(path)), batches(dataset))


def test_pickled_shards_can_be_converted(built_shards: ParquetShards, tmp_path: Path) -> None:
    path = tmp_path / "shards.pt"
    torch.save(built_shards, path)
    message = assert_refused(built_shards, path, "got a pickle", pickle.UnpicklingError)
    code = "torch.load(path, weights_only=False)"
    assert code in message
    eval(code).save(path)
    assert_same_state(vars(ParquetShards.load(path)), vars(built_shards))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(item: Any, share: float, tmp_path: Path) -> None:
    item.save(tmp_path / "file.pt")
    data = (tmp_path / "file.pt").read_bytes()
    (tmp_path / "file.pt").write_bytes(data[: int(share * len(data))])
    assert_refused(item, tmp_path / "file.pt", r"file\.pt must be a .*, got an? .*; load another")


@pytest.mark.parametrize("position", [0.2, 0.5, 0.8])
def test_damaged_file_is_refused(item: Any, position: float, tmp_path: Path) -> None:
    item.save(tmp_path / "file.pt")
    data = bytearray((tmp_path / "file.pt").read_bytes())
    place = int(position * len(data))
    data[place : place + 200] = bytes(255 - byte for byte in data[place : place + 200])
    (tmp_path / "file.pt").write_bytes(data)
    assert_refused(item, tmp_path / "file.pt", r"file\.pt must be a .*, got a .*; load another")


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda path: path.write_text("shop,y\na,1\n"), "got a file of another format; load"),
    "a list": (lambda path: torch.save([1, 2], path), "got other data; load another file"),
    "weights": (lambda path: torch.save({"w": torch.ones(2)}, path), "got other data; load"),
    "a checkpoint": (lambda path: save(make_model(), path), "got other data; load another file"),
    "a table": (lambda path: pd.DataFrame({"y": [1.0]}).to_parquet(path), "of another format"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused(item: Any, name: str, tmp_path: Path) -> None:
    write, message = FOREIGN[name]
    write(tmp_path / "file.pt")
    error = pickle.UnpicklingError if "format" in message else ValueError
    assert_refused(item, tmp_path / "file.pt", f"file.pt.* must .*{message}", error)


def test_files_of_each_other_are_refused(built_shards: ParquetShards, tmp_path: Path) -> None:
    dataset = find_configuration("covariates of all kinds").build(BatchedTimeSeriesDataSet)
    dataset.save(tmp_path / "file.pt")
    assert_refused(built_shards, tmp_path / "file.pt", "must contain a list of shards that Parquet")
    built_shards.save(tmp_path / "file.pt")
    assert_refused(dataset, tmp_path / "file.pt", "must contain a dataset that BatchedTimeSeries")


def test_missing_file_is_named(item: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        type(item).load(tmp_path / "nothing.pt")


def crafted(item: Any, path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    item.save(path)
    content = torch.load(path)
    change(content[OBJECTS])
    torch.save(content, path)
    return path


def set_value(name: Any, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda objects: objects["values"].update({name: value})


def nested(depth: int) -> list[Any]:
    value: list[Any] = [0.0] * 10
    for _ in range(depth):
        value = [value] * 10
    return value


CRAFTED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a function": (
        set_value("extra", {"plain object": "name", "path": "os.system"}),
        r"the file names 'os\.system', which is not among .*add_safe_globals\(\[system\]\) before "
        r"you load\.$",
    ),
    "a class": (
        lambda objects: (
            objects["objects"].append({"class": "subprocess.Popen", "state": None}),
            objects["values"].update(
                extra={"plain object": "object", "number": len(objects["objects"]) - 1}
            ),
        ),
        "the file names 'subprocess.Popen'",
    ),
    "a method": (
        set_value("to_dataloader", {"plain object": "name", "path": "torch.exp"}),
        "the attributes of .*, got 'to_dataloader', which is none",
    ),
    "load": (set_value("load", 1), "got 'load', which is none"),
    "a class of attributes": (set_value("__class__", "x"), "got '__class__', which is none"),
    "a number for a name": (set_value(3, 1), "got 3, which is none"),
    "nested lists": (set_value("extra", nested(8)), "must not be larger than their file"),
    "a wide tensor": (
        set_value("extra", torch.zeros(1).expand(1 << 40)),
        "must not be larger than their file|declares a storage",
    ),
    "a long text": (set_value("extra", "x" * 200_000), "texts of at most"),
    "no class": (
        lambda objects: objects["values"].pop("class of the object"),
        "of the class .*, got one of None; call load of that class",
    ),
    "a later format": (lambda objects: objects.update(format=2), "in format 1"),
    "no objects": (lambda objects: objects.pop("objects"), "damaged, KeyError"),
    "no values": (lambda objects: objects.pop("values"), "damaged, KeyError"),
    "no state": (
        lambda objects: [entry.update(state=None) for entry in objects["objects"]],
        "the objects in the file are damaged",
    ),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_file_is_refused(item: Any, name: str, tmp_path: Path) -> None:
    change, message = CRAFTED[name]
    assert_refused(item, crafted(item, tmp_path / "file.pt", change), message)


@pytest.mark.parametrize("attribute", ["data", "index", "max_encoder_length", "scalers"])
def test_dataset_without_an_attribute_is_refused(attribute: str, tmp_path: Path) -> None:
    dataset = find_configuration("covariates of all kinds").build(BatchedTimeSeriesDataSet)
    path = crafted(dataset, tmp_path / "file.pt", lambda x: x["values"].pop(attribute))
    assert_refused(dataset, path, f"got none named '{attribute}'; it is damaged or of another ")


# Classes of the user


class OwnNormalizer(GroupNormalizer):
    """A normalizer of the user."""


class OwnDataset(BatchedTimeSeriesDataSet):
    """A dataset of the user."""

    note = "none"


def double(x: Any) -> Any:
    return 2 * x


def halve(x: Any) -> Any:
    return x / 2


def build(cls: type[Any] = BatchedTimeSeriesDataSet, **settings: Any) -> Any:
    return cls(
        find_configuration("covariates of all kinds").table(),
        **{
            **{"time_idx": "time", "target": "y", "group_ids": ["shop", "product"]},
            **{"max_encoder_length": 9, "max_prediction_length": 4},
            **{"time_varying_unknown_reals": ["y"]},
        },
        **settings,
    )


def test_normalizer_of_the_user_must_be_allowed(tmp_path: Path) -> None:
    dataset = build(target_normalizer=OwnNormalizer(groups=["shop"]))
    dataset.save(tmp_path / "file.pt")
    assert_refused(
        dataset,
        tmp_path / "file.pt",
        r"the file names '.*\.OwnNormalizer', which .* allow it with "
        r"torch\.serialization\.add_safe_globals\(\[OwnNormalizer\]\) before you load\.",
    )
    with torch.serialization.safe_globals([OwnNormalizer]):
        loaded = BatchedTimeSeriesDataSet.load(tmp_path / "file.pt")
    assert_identical(batches(loaded), batches(dataset))


def test_transformation_of_the_user_must_be_allowed(tmp_path: Path) -> None:
    transformation = {"forward": double, "reverse": halve}
    dataset = build(target_normalizer=EncoderNormalizer(transformation=transformation))
    dataset.save(tmp_path / "file.pt")
    assert_refused(dataset, tmp_path / "file.pt", r"the file names '.*\.double', which is not ")
    with torch.serialization.safe_globals([double, halve]):
        loaded = BatchedTimeSeriesDataSet.load(tmp_path / "file.pt")
    assert_identical(batches(loaded), batches(dataset))


def test_scaler_of_the_user_must_be_allowed(tmp_path: Path) -> None:
    dataset = build(time_varying_known_reals=["price"], scalers={"price": PowerTransformer()})
    dataset.save(tmp_path / "file.pt")
    assert_refused(dataset, tmp_path / "file.pt", r"names '.*\.PowerTransformer', which is not ")
    with torch.serialization.safe_globals([PowerTransformer]):
        loaded = BatchedTimeSeriesDataSet.load(tmp_path / "file.pt")
    assert_identical(batches(loaded), batches(dataset))


def test_lambda_cannot_be_written(tmp_path: Path) -> None:
    """The file that it would replace stays."""
    path = tmp_path / "file.pt"
    build().save(path)
    before = path.read_bytes()
    transformation = {"forward": lambda x: 2 * x, "reverse": halve}
    dataset = build(target_normalizer=EncoderNormalizer(transformation=transformation))
    with pytest.raises(
        TypeError,
        match=r"^BatchedTimeSeriesDataSet\.save: cannot write this as plain data, because "
        r"target_normalizer.*<lambda>', which cannot be imported by that name; define it at the "
        r"top level of a module\.$",
    ):
        dataset.save(path)
    assert path.read_bytes() == before


def test_subclass_is_loaded_by_its_own_load(tmp_path: Path) -> None:
    dataset = build(OwnDataset)
    dataset.note = "mine"
    dataset.save(tmp_path / "own.pt")
    loaded = OwnDataset.load(tmp_path / "own.pt")
    assert type(loaded) is OwnDataset
    assert loaded.note == "mine"
    assert_refused(build(), tmp_path / "own.pt", r"class Batched.*\.OwnDataset'; call load of that")
    build().save(tmp_path / "base.pt")
    assert type(OwnDataset.load(tmp_path / "base.pt")) is OwnDataset


# Writing


def test_failed_write_leaves_the_old_file(
    item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.pt"
    item.save(path)
    before = path.read_bytes()

    def fail(content: Any, file: io.BufferedWriter) -> None:
        file.write(b"PK, half of it")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("basic_ios::clear: iostream error")  # noqa: B904 (torch)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match=r"\.save cannot write the file, No space .*file\.pt'"):
            item.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match=r"\.save cannot write the file, No such file"):
        item.save(tmp_path / "no folder" / "file.pt")


def test_link_is_followed(item: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.pt"
    link.symlink_to(tmp_path / "data" / "file.pt")
    item.save(link)
    assert link.is_symlink()
    type(item).load(link)


def test_ordered_dict_and_labels_of_many_types_are_kept(tmp_path: Path) -> None:
    dataset = build(time_varying_known_categoricals=["day"])
    dataset.extra = OrderedDict(a=np.int64(3), b=np.str_("x"), c=pd.Timestamp("2024-01-01"))
    dataset.save(tmp_path / "file.pt")
    loaded = BatchedTimeSeriesDataSet.load(tmp_path / "file.pt")
    assert_same_state(loaded.extra, dataset.extra)
