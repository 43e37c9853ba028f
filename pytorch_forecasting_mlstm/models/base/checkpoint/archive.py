"""The file of a checkpoint, read once, and looked through before torch makes anything of it."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.core.saving import _default_map_location

from .values import check_key

__all__ = ["Archive", "device_of", "first_line", "read_archive"]

#: Sizes of the elements of storages, which a file names where a tensor's numbers are.
_STORAGES = {
    "torch.BFloat16Storage": 2,
    "torch.BoolStorage": 1,
    "torch.ByteStorage": 1,
    "torch.CharStorage": 1,
    "torch.ComplexDoubleStorage": 16,
    "torch.ComplexFloatStorage": 8,
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.IntStorage": 4,
    "torch.LongStorage": 8,
    "torch.ShortStorage": 2,
    "torch.storage.UntypedStorage": 1,
}
_DTYPES = {f"torch.{name}" for name, of in vars(torch).items() if isinstance(of, torch.dtype)}
#: Operations of pickles that torch writes and reads; it has no others.
_OPERATIONS = (
    pickle.PROTO + pickle.STOP + pickle.GLOBAL + pickle.BINPERSID + pickle.REDUCE + pickle.NEWOBJ
    + pickle.BUILD + pickle.MARK + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS
    + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_TUPLE + pickle.TUPLE
    + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.NONE + pickle.NEWTRUE
    + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1
    + pickle.BINFLOAT + pickle.BINUNICODE + pickle.BINGET + pickle.LONG_BINGET + pickle.BINPUT
    + pickle.LONG_BINPUT
)  # fmt: skip


class Archive(NamedTuple):
    """What the file of a checkpoint holds.

    Attributes
    ----------
    content : Any
        The checkpoint, with all tensors on the CPU.
    size : int
        Bytes of the file.
    location_of : callable
        Where a tensor of the checkpoint was when it was saved, as torch writes it: ``"cuda:0"``.
    """

    content: Any
    size: int
    location_of: Callable[[torch.Tensor], str]


def read_archive(source: Any, caller: str) -> Archive:
    """Read a checkpoint as plain data and tensors.

    Parameters
    ----------
    source : str, Path or file
        File, or URL, of the checkpoint. It is read once, so that what is checked is what is used.
    caller : str
        Name of the model, for errors.

    Raises
    ------
    ValueError
        If the file is no whole archive, is compressed, or builds what plain data has no use for.
    pickle.UnpicklingError
        If it holds a pickled object, or was not written by ``torch.save``.
    """
    if hasattr(source, "read"):
        source.seek(0)
        name, written = "the file", source.read()
    else:
        name = str(source)
        with get_filesystem(name).open(name, "rb") as file:
            written = file.read()
    if not written:
        raise ValueError(f"{caller}: {name} must be a checkpoint, it is empty; take another one.")
    if not written.startswith(b"PK"):
        raise pickle.UnpicklingError(
            f"{caller}: {name} must be a checkpoint, an archive that torch.save writes, got a file "
            f"of another format; take another one."
        )
    checked = _checked_archive(written, f"{caller}: {name}")

    locations: dict[int, str] = {}

    def on_cpu(storage: Any, location: str) -> Any:
        locations[storage.data_ptr()] = location
        return storage

    try:
        content = torch.load(checked, on_cpu, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split())
        raise pickle.UnpicklingError(
            f"{caller}: {name} must hold plain data and tensors alone, torch refuses it: "
            f"{reason:.300}"
        ) from error
    except Exception as error:  # of the bytes of a stranger
        raise ValueError(
            f"{caller}: {name} must be a checkpoint, it is damaged, {type(error).__name__}: "
            f"{first_line(error)}; take another one."
        ) from error
    return Archive(
        content,
        len(written),
        lambda tensor: locations.get(tensor.untyped_storage().data_ptr(), "cpu"),
    )


def _checked_archive(written: bytes, whose: str) -> io.BytesIO:
    """Write once more what was looked through: torch would find other entries in a crafted file."""
    try:
        with zipfile.ZipFile(io.BytesIO(written)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
                sum(entry.file_size for entry in entries) > len(written)
            ):
                raise ValueError(
                    f"{whose} must hold its data as they are, it is a compressed archive; write it "
                    f"by torch.save."
                )
            parts = {entry.filename: archive.read(entry) for entry in entries}
        # torch finds entries by their names in any case
        if not parts or len({name.lower() for name in parts}) != len(entries):
            raise zipfile.BadZipFile("no entries, or two of one name")
    except (EOFError, NotImplementedError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{whose} must be a checkpoint, it is cut off or damaged; take another one."
        ) from error
    sizes = {name.rpartition("/data/")[2]: len(part) for name, part in parts.items()}
    for name, part in parts.items():
        if name.lower().endswith(".pkl"):
            _rehearse(part, sizes, whose)
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    checked.seek(0)
    return checked


def _rehearse(written: bytes, sizes: dict[str, int], whose: str) -> None:
    """Go through a pickle with stand-ins for all that it names, and refuse what torch would call.

    Torch calls any class of storages and tensors, with any number, and decoders of any kind.
    """
    try:
        _Rehearsal(written, sizes).load()
    except _RefusedError as error:
        raise ValueError(
            f"{whose} must hold plain data and dense tensors, it {error}; take another checkpoint."
        ) from error
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(
            f"{whose} must hold plain data and tensors alone, it {first_line(error)}; take another "
            f"checkpoint."
        ) from error
    except Exception as error:  # of the bytes of a stranger
        raise ValueError(
            f"{whose} must be a checkpoint, its data are damaged, {type(error).__name__}: "
            f"{first_line(error)}; take another one."
        ) from error


class _RefusedError(Exception):
    """Raised for what plain data and dense tensors have no use for."""


class _Inert:
    """Stands for what a pickle may name, but neither call nor change."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class _Mapping(OrderedDict[Any, Any]):
    """Takes keys that are found at once: any number of integers may have one hash."""

    def __init__(self, *arguments: Any) -> None:
        if arguments not in ((), ([],)):
            raise _RefusedError("makes a dict of something else")
        super().__init__()
        self._met: dict[int, int] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        check_key(key, self._met)
        super().__setitem__(key, value)


class _Users:
    """Stands for an object of a class that the user has allowed."""

    def __new__(cls, *arguments: Any, **named: Any) -> "_Users":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass


def _tensor(storage: Any, *arguments: Any) -> _Inert:
    if not isinstance(storage, _Inert) or storage.path not in ("storage", "tensor"):
        raise _RefusedError("makes a tensor without numbers")
    return _Inert("tensor")


def _set(items: Any) -> set[Any]:
    if type(items) not in (list, tuple):
        raise _RefusedError("makes a set of something else")
    met: dict[int, int] = {}
    for item in items:
        check_key(item, met)
    return set(items)


def _bytes(text: Any, codec: Any) -> bytes:
    if type(text) is not str or codec != "latin1":
        raise _RefusedError("decodes texts")
    return text.encode("latin1")


def _size(of: Any) -> _Inert:
    if type(of) is not tuple:
        raise _RefusedError("makes a size of something else")
    return _Inert("torch.Size")


def _device(kind: Any, *number: Any) -> _Inert:
    return _Inert("torch.device")


_CALLED: dict[str, Any] = {
    "_codecs.encode": _bytes,
    "__builtin__.set": _set,
    "builtins.set": _set,
    "collections.OrderedDict": _Mapping,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.device": _device,
}


class _Rehearsal(pickle._Unpickler):  # type: ignore[name-defined,misc,unused-ignore]
    """Reads a pickle as torch does, but imports nothing and allocates nothing but plain data."""

    dispatch = {k: v for k, v in pickle._Unpickler.dispatch.items() if k in _OPERATIONS}  # type: ignore[attr-defined,unused-ignore] # noqa: RUF012

    def __init__(self, written: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(written))
        self._sizes = sizes
        self._allowed = set(map(_path_of, torch.serialization.get_safe_globals()))

    def _empty_dict(self) -> None:
        self.append(_Mapping())  # type: ignore[attr-defined,unused-ignore]

    dispatch[pickle.EMPTY_DICT[0]] = _empty_dict  # type: ignore[assignment,unused-ignore]

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path in _STORAGES or path in _DTYPES:
            return _Inert(path)
        if path in _CALLED:
            return _CALLED[path]
        if path in self._allowed:
            return _Users
        if path.startswith("torch.") or path.endswith(".bytearray"):
            raise _RefusedError(f"builds {path:.100}")
        raise pickle.UnpicklingError(f"has the class or function {path:.100}")

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, location, count = pid
        if kind != "storage" or type(storage) is not _Inert or storage.path not in _STORAGES:
            raise _RefusedError("has a reference to no storage")
        if type(count) is not int or self._sizes.get(key) != count * _STORAGES[storage.path]:
            raise _RefusedError("has a storage of another size than its numbers")
        return _Inert("storage")


def _path_of(allowed: Any) -> str:
    """Return the path that torch knows a class or function by that the user has allowed."""
    if isinstance(allowed, tuple):
        return str(allowed[1])
    return f"{allowed.__module__}.{allowed.__qualname__}"


def first_line(error: Exception, length: int = 200) -> str:
    """Return what an error says, short enough for a line of ours."""
    return str(error).partition("\n")[0][:length]


def device_of(location: str, map_location: Any) -> torch.device:
    """Return where a tensor goes by the ``map_location`` of ``torch.load``.

    Parameters
    ----------
    location : str
        Where it was when it was saved.
    map_location : callable, str, device or dict, optional
        Default: where it was, or the CPU where there is no such device.
    """
    if isinstance(map_location, str | torch.device):
        return torch.device(map_location)
    if isinstance(map_location, dict):
        return torch.device(map_location.get(location, location))
    place = _default_map_location if map_location is None else map_location
    moved = place(torch.UntypedStorage(0), location)
    return torch.device(location) if moved is None else moved.device
