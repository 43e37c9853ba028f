"""The file of a checkpoint, read once, and looked through before torch makes anything of it."""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.core.saving import _default_map_location

__all__ = ["Archive", "device_of", "first_line", "read_archive"]

#: What torch rebuilds dense tensors by. The other ways that ``torch.load`` knows allocate what a
#: number in the file says, or make tensors that a model has no use for: quantized, sparse, nested.
_BUILDERS = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}
#: Names of classes that allocate what a number in the file says: ``torch.FloatTensor(10**12)``.
_ALLOCATING = (".bytearray", "Tensor")


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
    _check_archive(written, f"{caller}: {name}")

    locations: dict[int, str] = {}

    def on_cpu(storage: Any, location: str) -> Any:
        locations[storage.data_ptr()] = location
        return storage

    try:
        content = torch.load(io.BytesIO(written), on_cpu, weights_only=True)
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


def _check_archive(written: bytes, whose: str) -> None:
    """Refuse what would allocate more than the file holds while torch reads it."""
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
            if not entries:
                raise zipfile.BadZipFile("no entries")
            # torch finds entries by their names in any case
            names = {entry: entry.filename.lower() for entry in entries}
            pickles = [archive.read(e) for e, name in names.items() if name.endswith("data.pkl")]
    except (EOFError, NotImplementedError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{whose} must be a checkpoint, it is cut off or damaged; take another one."
        ) from error
    for path in sorted({path for written in pickles for path in _named(written, whose)}):
        if path not in _BUILDERS and (
            path.startswith(("torch._utils.", "torch._tensor.")) or path.endswith(_ALLOCATING)
        ):
            raise ValueError(
                f"{whose} must hold plain data and dense tensors, it builds {path}; take another "
                f"checkpoint."
            )


def _named(written: bytes, whose: str) -> Iterator[str]:
    """Yield the paths of the classes and functions that a pickle names."""
    try:
        for operation, path, _ in pickletools.genops(written):
            if operation.name == "GLOBAL" and isinstance(path, str):
                yield path.replace(" ", ".")
    except Exception as error:  # of the bytes of a stranger
        raise ValueError(
            f"{whose} must be a checkpoint, its data are damaged, {type(error).__name__}: "
            f"{first_line(error)}; take another one."
        ) from error


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
