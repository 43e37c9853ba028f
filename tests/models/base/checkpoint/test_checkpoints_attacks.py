"""Crafted checkpoints run no code, and need no more memory than their file."""

import io
import resource
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer
from lightning.pytorch.core.saving import _load_from_checkpoint, save_hparams_to_tags_csv
from pytorch_forecasting.metrics import QuantileLoss

from helpers.checkpoints import make_model, save
from helpers.datasets import QUIET, configured
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime

OBJECTS, PARAMETERS = "objects_of_hyper_parameters", "hyper_parameters"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model with a serialized loss, and with scalers and encoders that contain arrays."""
    model = make_model(configured("all covariates"), loss=QuantileLoss())
    return save(model, tmp_path_factory.mktemp("honest") / "model.ckpt")


def assert_rejected(load: Callable[[], Any]) -> None:
    """Assert that loading raises a one-line error that names the caller."""
    with pytest.raises((TypeError, ValueError)) as raised:
        load()
    message = str(raised.value)
    assert message.startswith("mLSTMTime: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 1000


# Nothing is imported or called


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make an importable module that leaves a file when it is imported or called."""
    marker = tmp_path / "marker"
    body = f"open({str(marker)!r}, 'w').close()"
    (tmp_path / "trap.py").write_text(f"{body}\n\n\ndef run(*args, **kwargs):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("trap", None)


IMPORTERS = [
    "lightning.pytorch.cli.instantiate_module",
    "pytorch_lightning.cli.instantiate_module",
    "trap.run",
    "os.system",
]
PLACES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "hparams": lambda checkpoint, evil: checkpoint.update(hparams=evil),
    "module_arguments": lambda checkpoint, evil: checkpoint.update(module_arguments=evil),
    "hyper_parameters": lambda checkpoint, evil: checkpoint[PARAMETERS].update(evil),
    "values of objects": lambda checkpoint, evil: checkpoint[OBJECTS]["values"].update(evil),
    "names of objects": lambda checkpoint, evil: checkpoint[OBJECTS]["values"].update(
        evil, _instantiator={"plain object": "name", "path": evil["_instantiator"]}
    ),
    "numbers of objects": lambda checkpoint, evil: (
        checkpoint[OBJECTS]["objects"].append({"class": evil["_instantiator"], "state": None}),
        checkpoint[OBJECTS]["values"].update(
            _instantiator={
                "plain object": "object",
                "number": len(checkpoint[OBJECTS]["objects"]) - 1,
            }
        ),
    ),
}


@pytest.mark.filterwarnings("ignore")  # of jsonargparse, if it were called
@spread(
    "call, place",
    [(importer, "loss") for importer in IMPORTERS]
    + [
        (IMPORTERS[0], argument)
        for argument in ("logging_metrics", "output_transformer", "optimizer")
    ],
    PLACES.keys(),
)
def test_no_importer_is_called(
    call: tuple[str, str], place: str, honest: Path, trap: Path, tmp_path: Path
) -> None:
    """Lightning calls what ``_instantiator`` names, which calls what a ``class_path`` names.

    This requires jsonargparse, which Lightning's command line installs.
    """
    pytest.importorskip("jsonargparse")
    importer, argument = call
    checkpoint = torch.load(honest)
    checkpoint[OBJECTS]["values"].pop(argument, None)
    checkpoint[PARAMETERS].pop(argument, None)
    # pytorch-forecasting passes another type than annotated, which jsonargparse rejects
    checkpoint[PARAMETERS]["embedding_labels"] = {}
    call = {"class_path": "trap.run", "init_args": {}}
    known = {"class_path": "os.mkdir", "init_args": {"path": str(trap)}}
    for evil in (call, known):
        crafted = {**checkpoint, PARAMETERS: {**checkpoint[PARAMETERS], argument: evil}}
        crafted[OBJECTS] = {
            **checkpoint[OBJECTS],
            "objects": list(checkpoint[OBJECTS]["objects"]),
            "values": dict(checkpoint[OBJECTS]["values"]),
        }
        PLACES[place](crafted, {"_instantiator": importer, argument: evil})
        torch.save(crafted, tmp_path / "model.ckpt")
        with suppress(TypeError, ValueError):
            mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt")
        assert not trap.exists()


@pytest.mark.filterwarnings("ignore")  # of jsonargparse
def test_lightning_alone_calls_an_importer(honest: Path, trap: Path, tmp_path: Path) -> None:
    """Lightning alone calls what such a file names."""
    pytest.importorskip("jsonargparse")

    call = {"class_path": "os.mkdir", "init_args": {"path": str(trap)}}
    checkpoint = torch.load(honest)
    checkpoint[PARAMETERS].update(loss=call, embedding_labels={})
    checkpoint["hparams"] = {"_instantiator": IMPORTERS[0]}
    torch.save(checkpoint, tmp_path / "model.ckpt")
    _load_from_checkpoint(mLSTMTime, tmp_path / "model.ckpt", weights_only=True)
    assert trap.exists()


@pytest.mark.parametrize("key", ["hparams", "module_arguments", "hparams_type"])
def test_keys_that_checkpoints_never_have_are_rejected(
    key: str, honest: Path, tmp_path: Path
) -> None:
    torch.save({**torch.load(honest), key: {}}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=f"entry '{key}', which those never have"):
        mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("name", ["hparams.yaml", "hparams.yml", "hparams.csv"])
def test_a_file_of_hyper_parameters_is_read(name: str, honest: Path, tmp_path: Path) -> None:
    """Loggers write it with tuples, which plain YAML does not have."""
    plain = {k: v for k, v in torch.load(honest)[PARAMETERS].items() if k != "learning_rate"}
    plain["learning_rate"] = 0.25
    if name.endswith("csv"):
        known = {k: v for k, v in plain.items() if v is not None}  # not representable
        save_hparams_to_tags_csv(tmp_path / name, known)
    else:
        (tmp_path / name).write_text(yaml.dump(plain))
    loaded = mLSTMTime.load_from_checkpoint(honest, hparams_file=tmp_path / name)
    assert loaded.hparams.learning_rate == 0.25
    assert loaded.hparams.moving_averages == (5, 3)


HPARAMS_FILES = {
    "importer": "_instantiator: trap.run\nloss: {class_path: trap.run, init_args: {}}",
    "importer of Lightning": (
        "_instantiator: lightning.pytorch.cli.instantiate_module\n"
        "optimizer: {class_path: trap.run, init_args: {}}"
    ),
    "name": "optimizer: !!python/name:trap.run",
    "module": "optimizer: !!python/module:trap",
    "call": "optimizer: !!python/object/apply:trap.run []",
    "object": "optimizer: !!python/object/new:trap.run []",
    "name of an existing function": "optimizer: !!python/name:os.system",
    "list": "[1, 2]",
    "no YAML": "a: [",
    "aliases": "a0: &a0 [1, 1]\n"
    + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(28)),
    "a list that contains itself": "target: &a [*a]",
    "deep": "target: " + "[" * 3000 + "]" * 3000,
    "layers": "num_layers: 10000000",
    "width": "hidden_size: 1000000",
    "digits": f"hidden_size: {'9' * 4000}",
    "unknown": "whatever: 1",
    "sexagesimal": "log_interval: 1:1:1",
    "sexagesimal real": "log_interval: 1:1.5",
    "merged": "embedding_labels:\n  <<: {a: {}}",
    "keys of one hash": "embedding_labels: {region: {"
    + ", ".join(f"{number * (2**61 - 1)}: 0" for number in range(1, 100))
    + "}}",
}


@pytest.mark.parametrize("name", HPARAMS_FILES)
def test_files_of_hyper_parameters_run_no_code(
    name: str, honest: Path, trap: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hparams.yaml"
    path.write_text(HPARAMS_FILES[name])
    assert_rejected(lambda: mLSTMTime.load_from_checkpoint(honest, hparams_file=path))
    assert not trap.exists()


def test_a_file_of_hyper_parameters_has_a_known_ending(honest: Path, tmp_path: Path) -> None:
    (tmp_path / "hparams.txt").write_text("num_layers: 1")
    with pytest.raises(ValueError, match="must be a .yaml, .yml or .csv file"):
        mLSTMTime.load_from_checkpoint(honest, hparams_file=tmp_path / "hparams.txt")


# Loading needs no more memory than the file


def _nested(depth: int = 28, kind: type = list) -> Any:
    """Nest a list twice in a list, 28 times: 2^28 lists once expanded."""
    value: Any = kind([1, 1])
    for _ in range(depth):
        value = kind([value, value])
    return value


def _nested_dict(depth: int = 28) -> Any:
    value: Any = {"a": 1}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


def _deep(depth: int = 400) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _self_containing_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _wide(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Make a tensor of any shape from a single number."""
    return torch.zeros((), dtype=dtype).expand(shape)


def _argument(name: str, value: Any) -> Callable[[Any], None]:
    def craft(checkpoint: Any) -> None:
        checkpoint[OBJECTS]["values"].pop(name, None)
        checkpoint[PARAMETERS][name] = value

    return craft


def _value(value: Any) -> Callable[[Any], None]:
    """Put a value to deserialize into the parameters of the dataset."""
    return lambda checkpoint: checkpoint[OBJECTS]["values"].update(dataset_parameters=value)


def _object(kind: str, state: Any) -> Callable[[Any], None]:
    def craft(checkpoint: Any) -> None:
        objects = checkpoint[OBJECTS]
        objects["objects"].append({"class": kind, "state": state})
        number = len(objects["objects"]) - 1
        objects["values"]["dataset_parameters"] = {"plain object": "object", "number": number}

    return craft


def _refer(number: int) -> dict[str, Any]:
    return {"plain object": "object", "number": number}


def _chain(kind: str, state: Callable[[dict[str, Any]], Any], last: Any) -> Callable[[Any], None]:
    """Chain objects, each of which contains the next one twice."""

    def craft(checkpoint: Any) -> None:
        objects = checkpoint[OBJECTS]
        objects["objects"].append({"class": kind, "state": last})
        for _ in range(28):
            inner = _refer(len(objects["objects"]) - 1)
            objects["objects"].append({"class": kind, "state": state(inner)})
        objects["values"]["dataset_parameters"] = _refer(len(objects["objects"]) - 1)

    return craft


def _columns(checkpoint: Any) -> None:
    """Refer to one column of a megabyte ten thousand times."""
    objects = checkpoint[OBJECTS]["objects"]
    first = len(objects)
    data = torch.zeros(1 << 17, dtype=torch.float64)
    array = {"dtype": "float64", "shape": (len(data),), "data": data}
    objects.append({"class": "ndarray", "state": array})
    index = {"data": _refer(first), "dtype": "float64", "name": None}
    objects.append({"class": "Index", "state": index})
    columns = [_refer(first + 1)] * 10_000
    table = {"columns": _refer(first + 1), "index": _refer(first + 1), "data": columns}
    objects.append({"class": "DataFrame", "state": table})
    checkpoint[OBJECTS]["values"]["dataset_parameters"] = _refer(first + 2)


def _arrays(checkpoint: Any) -> None:
    """Refer to one list of a hundred thousand elements in a thousand arrays."""
    objects = checkpoint[OBJECTS]["objects"]
    first, data = len(objects), [None] * 100_000
    for _ in range(1000):
        array = {"dtype": "object", "shape": (len(data),), "data": data}
        objects.append({"class": "ndarray", "state": array})
    checkpoint[OBJECTS]["values"]["dataset_parameters"] = [_refer(first + i) for i in range(1000)]


def _array(dtype: str, shape: Any, data: Any) -> Callable[[Any], None]:
    return _object("ndarray", {"dtype": dtype, "shape": shape, "data": data})


def _index(dtype: str, data: Any = None) -> Callable[[Any], None]:
    return _object(
        "Index", {"data": ["2020-01-01"] if data is None else data, "dtype": dtype, "name": None}
    )


def _weight(value: Any, name: str = "network.position_embedding") -> Callable[[Any], None]:
    return lambda checkpoint: checkpoint["state_dict"].update({name: value})


def _quantized(checkpoint: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        weight = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    checkpoint["state_dict"]["network.position_embedding"] = weight


BOMBS: dict[str, Callable[[Any], None]] = {
    "a list in an argument": _argument("target", _nested()),
    "a tuple in an argument": _argument("moving_averages", _nested(kind=tuple)),
    "a dict in an argument": _argument("embedding_labels", _nested_dict()),
    "a list in a value": _value(_nested(20)),
    "a tuple in a value": _value(_nested(kind=tuple)),
    "a dict in a value": _value(_nested_dict()),
    "a list in a state": _object("set", [_nested()]),
    "a list in the objects": lambda c: c[OBJECTS]["objects"].extend([_nested(), _nested_dict()]),
    "a list in the weights": _weight(_nested()),
    "a chain of dicts": _chain("dict", lambda inner: [("a", inner), ("b", inner)], []),
    "a chain of sets": _chain("frozenset", lambda inner: [inner, (inner, 1)], [1]),
    "a chain of losses": _chain(
        "pytorch_forecasting.metrics.point.MAE", lambda inner: {"a": inner, "b": inner}, {}
    ),
    "one column ten thousand times": _columns,
    "one list a thousand times": _arrays,
    "a list that contains itself in an argument": _argument("target", _self_containing_list()),
    "a list that contains itself in a value": _value(_self_containing_list()),
    "a list that contains itself in the weights": _weight(_self_containing_list()),
    "a deep argument": _argument("target", _deep()),
    "a deep value": _value(_deep()),
    "a long text": _argument("target", "y" * 2_000_000),
    "a long text in a value": _value("y" * 2_000_000),
    "a large number": _argument("log_interval", 10**500),
    "texts of wide type": _array("U200000000", (1,), ["a"]),
    "many texts of wide type": _array("<U100000", (20_000,), ["a"] * 20_000),
    "bytes of wide type": _array("S1000000000", (1,), ["a"]),
    "records": _array("(100000,100000)i8", (1,), ["a"]),
    "a long type": _array("i8," * 100_000, (1,), ["a"]),
    "a large shape": _array("float64", (10**12,), torch.zeros(1, dtype=torch.float64)),
    "a large empty shape": _array("float64", (0, 10**12), torch.zeros(0, dtype=torch.float64)),
    "a wider type than the data": _array(
        "float64", (1 << 20,), torch.zeros(1 << 20, dtype=torch.int8)
    ),
    "strides of an array": _array("float64", (10**12,), _wide(10**12, dtype=torch.float64)),
    "strides of a value": _value(_wide(10**6, 10**6)),
    "strides of an argument": _argument("learning_rate", _wide(10**12)),
    "strides of weights": _weight(_wide(10**6, 10**6)),
    "strides of other weights": _weight(_wide(10**12), "other"),
    "empty weights of large shape": _weight(torch.zeros(0).expand(10**12, 0)),
    "sparse weights": _weight(torch.sparse_coo_tensor(size=(10**6, 10**6), check_invariants=True)),
    "weights without data": _weight(torch.empty(10**6, 10**6, device="meta")),
    "quantized weights": _quantized,
    "weights of another kind": _weight([1.0]),
    "weights of no name": lambda checkpoint: checkpoint["state_dict"].update({3: torch.ones(3)}),
    "an index of wide type": _index("<U100000000"),
    "a zone that is a folder": _object(
        "datetime", {"iso": "2020-01-01", "fold": 0, "zone": "Europe"}
    ),
    "a zone that is a path": _index("datetime64[ns, ../../../etc/passwd]"),
    "a zone that is a file": _index("datetime64[ns, dateutil//dev/stdin]"),
    "a zone within a type": _index("interval[datetime64[ns, dateutil//dev/stdin], right]"),
    "an offset of years": _object("datetime", {"iso": "2020-01-01", "fold": 0, "zone": 1e12}),
    "a long date": _object("datetime", {"iso": "2" * 90_000, "fold": 0, "zone": None}),
    "a long frequency": _object("Period", [1, "1" * 50_000 + "h"]),
    "a large frequency": _object("Period", [1, "99999999999999999999h"]),
    "a large period": _object("Period", [2**200, "M"]),
    "a large duration": _object("timedelta", [10**15, 0, 0]),
    "a call of a class": _object(
        "partial", [{"plain object": "name", "path": "torch.nn.modules.linear.Linear"}, [9, 9], {}]
    ),
    "a zone of a file by a short name": _index("M8[ns, dateutil//dev/stdin]"),
    "an array of a zone": _array("M8[ns, dateutil//dev/stdin]", (1,), torch.zeros(1).long()),
    "a dict of keys of one hash": _argument(
        "monotone_constraints", {n * (2**61 - 1): 0 for n in range(1, 100)}
    ),
    "a set of members of one hash": _object("set", [n * (2**61 - 1) for n in range(1, 100)]),
    "a joined dict of keys of one hash": _object(
        "dict", [(n * (2**61 - 1), 0) for n in range(1, 100)]
    ),
    "layers by empty weights": lambda checkpoint: (
        checkpoint[PARAMETERS].update(num_layers=50),
        checkpoint["state_dict"].update({str(n): torch.zeros(0) for n in range(50)}),
    ),
    "real variables": _argument("static_reals", [f"r{n}" for n in range(20_000)]),
    "classified variables": _argument("static_categoricals", [f"c{n}" for n in range(6000)]),
    "layers": _argument("num_layers", 10**7),
    "width": _argument("hidden_size", 10**6),
    "width of two digits": _argument("hidden_size", 64),
    "heads": _argument("num_heads", 10**9),
    "patches": _argument("patch_length", 10**9),
    "averages": _argument("moving_averages", (10**9 + 1, 3)),
    "history": _argument("max_encoder_length", 10**9),
    "horizon": _argument("max_prediction_length", 10**9),
    "outputs": _argument("output_size", 10**9),
    "outputs of targets": _argument("output_size", [10**9]),
    "targets": _argument("target", [f"y{number}" for number in range(1000)]),
    "classes": _argument("embedding_sizes", {"region": (10**9, 3)}),
    "embedding": _argument("embedding_sizes", {"region": (3, 10**9)}),
    "digits": _argument("hidden_size", 10**300),
    "infinity": _argument("hidden_size", float("inf")),
    "negative": _argument("num_layers", -1),
    "unknown": _argument("whatever", 1),
    "no weights": lambda checkpoint: checkpoint["state_dict"].clear(),
    "other weights": lambda checkpoint: checkpoint["state_dict"].pop("network.position_embedding"),
    "no loss": lambda checkpoint: checkpoint[OBJECTS]["values"].pop("loss"),
}


def craft(name: str, honest: Path, path: Path) -> Path:
    """Write one of the files that expand."""
    checkpoint = torch.load(honest)
    BOMBS[name](checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("name", BOMBS)
def test_files_that_expand_are_rejected(name: str, honest: Path, tmp_path: Path) -> None:
    path = craft(name, honest, tmp_path / "model.ckpt")
    assert_rejected(lambda: mLSTMTime.load_from_checkpoint(path))


_MEASURE = """
import resource, sys, warnings
warnings.simplefilter("ignore")
from pytorch_forecasting_mlstm import mLSTMTime
honest, *paths = sys.argv[1:]
mLSTMTime.load_from_checkpoint(honest)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    try:
        mLSTMTime.load_from_checkpoint(path)
    except (TypeError, ValueError):
        pass
    else:
        raise SystemExit(f"{path} was loaded")
print("kB:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_crafted_files_need_little_memory_and_time(honest: Path, tmp_path: Path) -> None:
    """Load all in one process, and compare its peak memory with that of an honest file."""
    crafted = [
        craft(name, honest, tmp_path / f"{number}.ckpt") for number, name in enumerate(BOMBS)
    ]
    command = [sys.executable, "-c", _MEASURE, str(honest), *map(str, crafted)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    used = int(run.stdout.partition("kB:")[2])
    largest = max(path.stat().st_size for path in crafted)
    assert used * 1024 < 100e6 + largest


def _pickled(operations: bytes, name: str = "data.pkl") -> bytes:
    """Write an archive with a pickle of these opcodes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"archive/{name}", b"\x80\x02" + operations + b".")
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def _deflated(honest: bytes) -> bytes:
    """Compress the same entries, and another one with hundreds of megabytes of zeros."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(honest)) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in source.namelist():
            packed.writestr(name, source.read(name))
        with packed.open("archive/data/999", "w", force_zip64=True) as entry:
            for _ in range(200):
                entry.write(bytes(10**6))
    return file.getvalue()


def _duplicate_entry(honest: bytes) -> bytes:
    """Write an archive with a second entry of the data, named in capitals."""
    file = io.BytesIO(honest)
    with zipfile.ZipFile(file, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name.upper(), archive.read(name))
    return file.getvalue()


_HUGE = b"\x8a\x06" + (10**12).to_bytes(6, "little")  # the number 10^12
_MANY = b"\x8a\x04" + (4 * 10**8).to_bytes(4, "little")  # bytes that any machine has
ARCHIVES: dict[str, Callable[[bytes], bytes]] = {
    "half of the file": lambda honest: honest[: len(honest) // 2],
    "without the end": lambda honest: honest[:-30],
    "noise in the data": lambda honest: honest.replace(b"hidden_size", b"hidden_\xffize"),
    "nothing": lambda honest: b"",
    "an archive of nothing": lambda honest: b"PK\x05\x06" + bytes(18),
    "deflated": _deflated,
    "bytes by number": lambda honest: _pickled(b"c__builtin__\nbytearray\n" + _MANY + b"\x85R"),
    "bytes by number, spelled differently": lambda honest: _pickled(
        b"cbuiltins\nbytearray\n" + _MANY + b"\x85R", "DATA.PKL"
    ),
    "a tensor by number": lambda honest: _pickled(b"ctorch\nFloatTensor\n" + _HUGE + b"\x85R"),
    "a storage by number": lambda honest: _pickled(
        b"ctorch.storage\nUntypedStorage\n" + _HUGE + b"\x85R"
    ),
    "a cast of a tensor": lambda honest: _pickled(
        b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n)R"
    ),
    "a storage of torch by number": lambda honest: _pickled(b"ctorch\nFloatStorage\nK\x01\x85R"),
    "a new storage": lambda honest: _pickled(b"ctorch.storage\nUntypedStorage\nK\x01\x85\x81"),
    "a decoder": lambda honest: _pickled(
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R"
    ),
    "a number as a set": lambda honest: _pickled(b"c__builtin__\nset\nK\x01\x85R"),
    "a storage without its file": lambda honest: _pickled(
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuK\x09tQ"
    ),
    "two entries of one name": lambda honest: _duplicate_entry(honest),
    "no pickle": lambda honest: _pickled(b"\xff"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_checked_before_they_are_read(name: str, honest: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(ARCHIVES[name](honest.read_bytes()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_rejected(lambda: mLSTMTime.load_from_checkpoint(path))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used * 1024 < 100e6


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (b"}X\x0c\x00\x00\x00_hash_counts}s", "keys with the same hash"),
        (b"}K\x01K\x02s", "attributes without names"),
    ],
    ids=["the count", "numbers"],
)
def test_attributes_of_a_dict_do_not_reset_its_count_of_collisions(
    attributes: bytes, message: str, tmp_path: Path
) -> None:
    """With more keys of one hash, torch takes a time that grows with their square."""
    operations, number = b"ccollections\nOrderedDict\n)R", 0
    for _ in range(3):
        operations += b"("
        for _ in range(60):
            number += 2**61 - 1  # the modulus of Python's hash of an integer
            operations += b"\x8a\x0a" + number.to_bytes(10, "little") + b"K\x00"
        operations += b"u" + attributes + b"b"
    path = tmp_path / "model.ckpt"
    path.write_bytes(_pickled(operations))
    with pytest.raises(ValueError, match=f"^mLSTMTime: .*{message}"):
        mLSTMTime.load_from_checkpoint(path)


def test_torch_reads_the_entries_that_were_checked(honest: Path, tmp_path: Path) -> None:
    """Python finds the archive after a prefix, torch does not."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"PK\x03\x04" + bytes(100) + honest.read_bytes())
    with pytest.raises(RuntimeError):
        torch.load(path)
    assert isinstance(mLSTMTime.load_from_checkpoint(path), mLSTMTime)


@pytest.mark.parametrize("zone", ["Europe", "../../etc/passwd", "/etc/passwd", "Mars/Base"])
def test_unknown_time_zones_are_rejected(zone: str, honest: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(honest)
    _object("datetime", {"iso": "2020-01-01", "fold": 0, "zone": zone})(checkpoint)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=f"mLSTMTime: .*time zone '{zone}'"):
        mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt")


class Changing(io.BytesIO):
    """A file with other content when it is read again."""

    def __init__(self, first: bytes, then: bytes) -> None:
        super().__init__(first)
        self.then = then

    def read(self, size: int | None = -1) -> bytes:
        """Read, and replace the content at the end."""
        content = super().read(size)
        if self.tell() == len(self.getbuffer()):
            super().__init__(self.then)
        return content


def test_a_file_is_read_once(honest: Path, tmp_path: Path) -> None:
    evil = torch.load(honest)
    evil["hparams"] = {"_instantiator": "os.system"}
    torch.save(evil, tmp_path / "evil.ckpt")
    file = Changing(honest.read_bytes(), (tmp_path / "evil.ckpt").read_bytes())
    assert isinstance(mLSTMTime.load_from_checkpoint(file), mLSTMTime)


# Weights that are not finite, objects without a state


@spread("value, double", [float("nan"), float("inf"), -float("inf")], [False, True])
def test_weights_that_are_not_finite_are_rejected(
    value: float, double: bool, tmp_path: Path
) -> None:
    model = make_model()
    path = save(model.double() if double else model, tmp_path / "model.ckpt")
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["network.residual_head.weight"][0, 0] = value
    torch.save(checkpoint, path)
    with pytest.raises(
        ValueError, match=r"mLSTMTime: .* not finite, in network\.residual_head\.weight"
    ):
        mLSTMTime.load_from_checkpoint(path)
    trainer = Trainer(enable_checkpointing=False, max_epochs=1, **QUIET)
    loader = configured("known real").to_dataloader(train=False, batch_size=16)
    for run in (trainer.validate, trainer.test, trainer.predict):
        with pytest.raises(
            ValueError, match=r"mLSTMTime: .* not finite, in network\.residual_head\.weight"
        ):
            run(make_model(), loader, ckpt_path=path)
    with pytest.raises(
        ValueError, match=r"mLSTMTime: .* not finite, in network\.residual_head\.weight"
    ):
        trainer.fit(make_model(), loader, loader, ckpt_path=path)


@pytest.mark.parametrize("state", [None, {}, [], 3, "left out"], ids=str)
@pytest.mark.parametrize("name", ["loss", "logging_metrics", "output_transformer"])
def test_objects_without_state_are_rejected(
    name: str, state: Any, honest: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(honest)
    number = checkpoint[OBJECTS]["values"][name]["number"]
    if state == "left out":
        del checkpoint[OBJECTS]["objects"][number]["state"]
    else:
        checkpoint[OBJECTS]["objects"][number]["state"] = state
    torch.save(checkpoint, tmp_path / "model.ckpt")
    assert_rejected(lambda: mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt"))


# Resuming


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("optimizer_states", [{"state": {0: {"step": _nested()}}, "param_groups": []}]),
        ("lr_schedulers", [{"a": _nested_dict()}]),
        ("loops", {"fit_loop": _nested_dict()}),
        ("callbacks", {"EarlyStopping": _nested_dict()}),
        ("callbacks", {"EarlyStopping": _self_containing_list()}),
        ("optimizer_states", [{"state": {0: {"exp_avg": _wide(10**12)}}, "param_groups": []}]),
        ("state_dict", {"network.position_embedding": _wide(10**12)}),
        ("state_dict", {"network.position_embedding": torch.empty(3, device="meta")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_training_does_not_resume_from_crafted_files(
    part: str, value: Any, honest: Path, tmp_path: Path
) -> None:
    torch.save({**torch.load(honest), part: value}, tmp_path / "model.ckpt")
    dataset = configured("all covariates")
    model = make_model(dataset, loss=QuantileLoss())
    trainer = Trainer(enable_checkpointing=False, max_epochs=1, num_sanity_val_steps=0, **QUIET)
    loader = dataset.to_dataloader(train=False, batch_size=16)
    assert_rejected(lambda: trainer.fit(model, loader, loader, ckpt_path=tmp_path / "model.ckpt"))


def test_hyper_parameters_of_a_file_do_not_affect_a_resumed_run(
    honest: Path, trap: Path, tmp_path: Path
) -> None:
    evil = {"_instantiator": "trap.run", "loss": {"class_path": "trap.run", "init_args": {}}}
    keys = ("hparams", "module_arguments", PARAMETERS, OBJECTS, "dataset_parameters")
    keys += ("datamodule_hyper_parameters", "__special_save__")
    torch.save({**torch.load(honest), **dict.fromkeys(keys, evil)}, tmp_path / "model.ckpt")
    dataset = configured("all covariates")
    model = make_model(dataset, loss=QuantileLoss())
    trainer = Trainer(enable_checkpointing=False, max_epochs=1, num_sanity_val_steps=0, **QUIET)
    loader = dataset.to_dataloader(train=False, batch_size=16)
    trainer.fit(model, loader, loader, ckpt_path=tmp_path / "model.ckpt")
    assert type(model.loss) is QuantileLoss
    assert model.dataset_parameters == dataset.get_parameters()
    assert not trap.exists()
