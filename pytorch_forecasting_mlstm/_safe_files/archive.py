"""Read a file that torch wrote once, and check it before torch builds anything from it."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.core.saving import _default_map_location

from .._messages import one_line
from .values import check_key

__all__ = ["Archive", "PickledObjectError", "device_of", "read_archive"]

#: Bytes per element of the storage classes that a file may name for the data of a tensor.
_ITEM_SIZES = {
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
_DTYPES = {f"torch.{name}" for name, item in vars(torch).items() if isinstance(item, torch.dtype)}
#: The opcodes of pickles that torch writes and reads.
_OPCODES = (
    pickle.PROTO + pickle.STOP + pickle.GLOBAL + pickle.BINPERSID + pickle.REDUCE + pickle.NEWOBJ
    + pickle.BUILD + pickle.MARK + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS
    + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_TUPLE + pickle.TUPLE
    + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.NONE + pickle.NEWTRUE
    + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1
    + pickle.BINFLOAT + pickle.BINUNICODE + pickle.BINGET + pickle.LONG_BINGET + pickle.BINPUT
    + pickle.LONG_BINPUT
)  # fmt: skip


class PickledObjectError(pickle.UnpicklingError):
    """A file names classes or functions, which its pickle would call."""


class Archive(NamedTuple):
    """Content of a file that torch wrote.

    Attributes
    ----------
    content : Any
        The content, with all tensors on the CPU.
    size : int
        Size of the file in bytes.
    location_of : callable
        Returns the device that a tensor of the file was saved from, such as ``"cuda:0"``.
    """

    content: Any
    size: int
    location_of: Callable[[torch.Tensor], str]


def read_archive(source: Any, caller: str, kind: str = "checkpoint") -> Archive:
    """Read a file that torch wrote as plain data and tensors.

    Parameters
    ----------
    source : str, Path or file
        File or URL. It is read once, so that the checked bytes are those that are loaded.
    caller : str
        Name of the class or function that the user called, for errors.
    kind : str, default "checkpoint"
        What the file must be, for errors.

    Raises
    ------
    ValueError
        If the archive is damaged or compressed, or contains more than plain data and dense tensors.
    pickle.UnpicklingError
        If it contains a pickled object, or was not written by ``torch.save``.
    """
    if hasattr(source, "read"):
        source.seek(0)
        name, data = "the file", source.read()
    else:
        name = str(source)
        with get_filesystem(name).open(name, "rb") as file:
            data = file.read()
    if not data:
        raise ValueError(f"{caller}: {name} must be a {kind}, got an empty file; load another one.")
    if not data.startswith(b"PK"):
        raise pickle.UnpicklingError(
            f"{caller}: {name} must be a {kind} written by torch.save, got a file of another "
            f"format; load another one."
        )
    checked = _copy_checked_entries(data, f"{caller}: {name}", kind)
    size = len(data)
    del data  # torch copies the entries once more

    locations: dict[int, str] = {}

    def on_cpu(storage: Any, location: str) -> Any:
        locations[storage.data_ptr()] = location
        return storage

    try:
        content = torch.load(checked, on_cpu, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split())
        raise pickle.UnpicklingError(
            f"{caller}: {name} must contain only plain data and tensors, but torch rejects it: "
            f"{reason:.300}"
        ) from error
    except Exception as error:  # a crafted file can raise anything
        raise ValueError(
            f"{caller}: {name} must be a {kind}, got a damaged file, {type(error).__name__}: "
            f"{one_line(error)}; load another one."
        ) from error
    return Archive(
        content,
        size,
        lambda tensor: locations.get(tensor.untyped_storage().data_ptr(), "cpu"),
    )


def _copy_checked_entries(data: bytes, label: str, kind: str) -> io.BytesIO:
    """Check an archive, and copy the checked entries to a new one.

    torch must not read the original: in a crafted file it would find other entries than Python.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or (
                sum(info.file_size for info in infos) > len(data)
            ):
                raise ValueError(
                    f"{label} must be an uncompressed archive, got a compressed one; write it with "
                    f"torch.save."
                )
            # torch ignores the case of the names of entries
            if not infos or len({info.filename.lower() for info in infos}) != len(infos):
                raise zipfile.BadZipFile("no entries, or several with the same name")
            checked = io.BytesIO()
            sizes, pickles = {}, []
            with zipfile.ZipFile(checked, "w", zipfile.ZIP_STORED) as copy:
                for info in infos:  # one by one: an entry may take most of the memory
                    entry = archive.read(info)
                    copy.writestr(info.filename, entry)
                    sizes[info.filename.rpartition("/data/")[2]] = len(entry)
                    if info.filename.lower().endswith(".pkl"):
                        pickles.append(entry)
    except (EOFError, NotImplementedError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{label} must be a {kind}, got a truncated or damaged file; load another one."
        ) from error
    for entry in pickles:
        _dry_run(entry, sizes, label, kind)
    checked.seek(0)
    return checked


def _dry_run(pickled: bytes, sizes: dict[str, int], label: str, kind: str) -> None:
    """Unpickle with placeholders for all classes and functions; reject calls that torch would make.

    torch calls any storage or tensor class with any size, and any decoder.
    """
    try:
        _DryRunUnpickler(pickled, sizes).load()
    except _UnsafePickleError as error:
        raise ValueError(
            f"{label} must contain only plain data and dense tensors, but it {error}; load another "
            f"file."
        ) from error
    except pickle.UnpicklingError as error:
        raise PickledObjectError(
            f"{label} must contain only plain data and tensors, but it {one_line(error)}; load "
            f"another file."
        ) from error
    except Exception as error:  # a crafted pickle can raise anything
        raise ValueError(
            f"{label} must be a {kind}, got damaged data, {type(error).__name__}: "
            f"{one_line(error)}; load another one."
        ) from error


class _UnsafePickleError(Exception):
    """Raised for an operation that neither plain data nor dense tensors need."""


class _Placeholder:
    """Stands for an object that a pickle may name, but neither call nor modify."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class _CheckedDict(OrderedDict[Any, Any]):
    """Limits hash collisions: a file may hold any number of integers with the same hash."""

    def __init__(self, *arguments: Any) -> None:
        if arguments not in ((), ([],)):
            raise _UnsafePickleError("calls OrderedDict with arguments")
        super().__init__()
        self._hash_counts: dict[int, int] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        check_key(key, self._hash_counts)
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        # attributes, such as `_metadata` of a state_dict; here they must not replace the counts
        if not isinstance(state, dict) or not all(type(name) is str for name in state):
            raise _UnsafePickleError("gives a dict attributes without names")


class _UserObject:
    """Stands for an object of a class that the user has added to torch's safe globals."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_UserObject":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass


def _make_tensor(storage: Any, *arguments: Any) -> _Placeholder:
    if not isinstance(storage, _Placeholder) or storage.path not in ("storage", "tensor"):
        raise _UnsafePickleError("builds a tensor without a storage")
    return _Placeholder("tensor")


def _make_set(items: Any) -> set[Any]:
    if type(items) not in (list, tuple):
        raise _UnsafePickleError("builds a set from something other than a list")
    hash_counts: dict[int, int] = {}
    for item in items:
        check_key(item, hash_counts)
    return set(items)


def _encode_latin1(text: Any, codec: Any) -> bytes:
    if type(text) is not str or codec != "latin1":
        raise _UnsafePickleError("uses a codec other than latin1")
    return text.encode("latin1")


def _make_size(shape: Any) -> _Placeholder:
    if type(shape) is not tuple:
        raise _UnsafePickleError("builds a torch.Size from something other than a tuple")
    return _Placeholder("torch.Size")


def _make_device(kind: Any, *index: Any) -> _Placeholder:
    return _Placeholder("torch.device")


#: Stand-ins for the functions and classes that a pickle may call.
_CALLABLES: dict[str, Any] = {
    "_codecs.encode": _encode_latin1,
    "__builtin__.set": _make_set,
    "builtins.set": _make_set,
    "collections.OrderedDict": _CheckedDict,
    "torch.Size": _make_size,
    "torch._utils._rebuild_parameter": _make_tensor,
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch.device": _make_device,
}


class _DryRunUnpickler(pickle._Unpickler):  # type: ignore[name-defined,misc,unused-ignore]
    """Unpickles as torch does, but imports nothing and allocates nothing but plain data."""

    dispatch = {k: v for k, v in pickle._Unpickler.dispatch.items() if k in _OPCODES}  # type: ignore[attr-defined,unused-ignore] # noqa: RUF012

    def __init__(self, pickled: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._sizes = sizes
        self._user_classes = set(map(_safe_global_path, torch.serialization.get_safe_globals()))

    def _empty_dict(self) -> None:
        self.append(_CheckedDict())  # type: ignore[attr-defined,unused-ignore]

    dispatch[pickle.EMPTY_DICT[0]] = _empty_dict  # type: ignore[assignment,unused-ignore]

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path in _ITEM_SIZES or path in _DTYPES:
            return _Placeholder(path)
        if path in _CALLABLES:
            return _CALLABLES[path]
        if path in self._user_classes:
            return _UserObject
        if path.startswith("torch.") or path.endswith(".bytearray"):
            raise _UnsafePickleError(f"builds {path:.100}")
        raise pickle.UnpicklingError(f"names the class or function {path:.100}")

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, location, count = pid
        if (
            kind != "storage"
            or type(storage) is not _Placeholder
            or storage.path not in _ITEM_SIZES
        ):
            raise _UnsafePickleError("refers to something other than a storage")
        if type(count) is not int or self._sizes.get(key) != count * _ITEM_SIZES[storage.path]:
            raise _UnsafePickleError("declares a storage of another size than its data")
        return _Placeholder("storage")


def _safe_global_path(item: Any) -> str:
    """Return the path of a class or function that the user has added to torch's safe globals."""
    if isinstance(item, tuple):  # an object, and the path under which files name it
        return str(item[1])
    return f"{item.__module__}.{item.__qualname__}"


def device_of(location: str, map_location: Any) -> torch.device:
    """Return the device that ``map_location``, as in ``torch.load``, maps a tensor to.

    Parameters
    ----------
    location : str
        Device that it was saved from.
    map_location : callable, str, device or dict, optional
        Default: the same device, or the CPU if this machine has no such device.
    """
    if isinstance(map_location, str | torch.device):
        return torch.device(map_location)
    if isinstance(map_location, dict):
        return torch.device(map_location.get(location, location))
    mapper = _default_map_location if map_location is None else map_location
    mapped = mapper(torch.UntypedStorage(0), location)
    return torch.device(location) if mapped is None else mapped.device
