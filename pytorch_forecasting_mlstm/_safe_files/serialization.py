"""Serialize objects as plain data, and deserialize them without running code that a file names.

Plain data is what ``torch.load`` reads by default: numbers, strings, tensors, and lists, tuples and
dicts of these. Any other object becomes a dict of the name of its class and its state; it is
rebuilt with ``cls.__new__`` and ``__setstate__``. A file can only name classes and functions that
are on a list of safe ones. Nothing is imported, and no function is called.
"""

import copyreg
import sys
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics import Metric

from .._messages import one_line
from .errors import RejectedFileError
from .safe_globals import is_default_global, qualified_name, safe_globals
from .values import CODECS, DECODERS, SerializationError

__all__ = ["SerializationError", "deserialize", "referenced_object", "serialize"]

_NEWOBJ = copyreg.__newobj__  # type: ignore[attr-defined]
_MARKER = "plain object"  # key of a dict that stands for an object, a class or a function
_PRIMITIVES = (str, int, float, bool, type(None), torch.Tensor, torch.dtype, torch.device)


def serialize(values: dict[str, Any]) -> dict[str, Any]:
    """Serialize objects as plain data.

    Parameters
    ----------
    values : dict
        Objects by name. One that occurs twice, or contains itself, is written once.

    Returns
    -------
    dict
        Plain data for :func:`deserialize`. ``unwritten`` holds, instead of each object that cannot
        be serialized, the reason.
    """
    serializer = _Serializer()
    written, unwritten = {}, {}
    for name, value in values.items():
        count = len(serializer.objects)
        try:
            written[name] = serializer.write(value, name)
        except SerializationError as error:
            unwritten[name] = str(error)
            serializer.discard_after(count)
    return {"format": 1, "objects": serializer.objects, "values": written, "unwritten": unwritten}


def deserialize(
    data: dict[str, Any], without: Collection[str] = (), substitute: str = ""
) -> dict[str, Any]:
    """Rebuild objects from plain data.

    Parameters
    ----------
    data : dict
        Result of :func:`serialize`.
    without : collection of str, optional
        Names of objects to leave out.
    substitute : str, optional
        How the user passes an object in place of one in the file, for errors; it names the object
        as ``{}``. Default: there is no way.

    Returns
    -------
    dict
        Objects by name.

    Raises
    ------
    RejectedFileError
        If the data names a class or function that is not known to be safe, or is not a result of
        :func:`serialize`.
    """
    if not isinstance(data, dict) or data.get("format") != 1:
        raise RejectedFileError(
            "expected objects in format 1 in the file; it is damaged, or was "
            "written by a newer version: update pytorch_forecasting_mlstm."
        )
    try:
        deserializer, values = _Deserializer(data["objects"], substitute), data["values"]
        return {
            name: deserializer.read_value(name, value)
            for name, value in values.items()
            if name not in without
        }
    except RejectedFileError:
        raise
    except Exception as error:  # crafted data can raise anything
        raise RejectedFileError(
            f"the objects in the file are damaged, {type(error).__name__}: "
            f"{one_line(error)}; load another file."
        ) from error


def referenced_object(data: dict[Any, Any]) -> int | None:
    """Return the number of the object that a dict refers to, or None if it is no reference."""
    number = data.get("number") if data.get(_MARKER) == "object" else None
    return number if type(number) is int else None


class _Serializer:
    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}  # by id
        self._keep_alive: list[Any] = []  # so that no id is used twice

    def write(self, value: Any, location: str) -> Any:
        """Return a value as plain data; ``location`` names it in errors."""
        kind = type(value)
        if kind in _PRIMITIVES or kind is torch.nn.Parameter:
            return value.detach() if kind is torch.Tensor and not value.is_leaf else value
        if kind in (list, tuple, torch.Size):
            items = [self.write(item, f"{location}[{i}]") for i, item in enumerate(value)]
            return items if kind is list else tuple(items)
        if (kind is dict or kind is OrderedDict) and all(map(_is_plain_key, value)):
            pairs = {key: self.write(item, f"{location}[{key!r}]") for key, item in value.items()}
            return pairs if kind is dict else OrderedDict(pairs)
        if isinstance(value, type) or (
            callable(value) and not hasattr(value, "__dict__") or hasattr(value, "__code__")
        ):
            return {_MARKER: "name", "path": _importable_name(value, location)}
        if id(value) not in self._numbers:
            number = self._numbers[id(value)] = len(self.objects)
            self._keep_alive.append(value)
            self.objects.append(None)
            self.objects[number] = self._write_object(value, location)
        return {_MARKER: "object", "number": self._numbers[id(value)]}

    def discard_after(self, count: int) -> None:
        """Discard all objects but the first ``count``."""
        del self.objects[count:]
        self._numbers = {key: number for key, number in self._numbers.items() if number < count}

    def _write_object(self, value: Any, location: str) -> dict[str, Any]:
        for kind, (encode, _) in CODECS.items():
            if type(value) is kind or (kind is np.generic and isinstance(value, kind)):
                state = encode(value, location)
                return {"class": kind.__name__, "state": self.write(state, location)}
        name = _importable_name(type(value), location)
        try:
            constructor, arguments, state, *items = value.__reduce_ex__(2)
        except Exception as error:
            raise SerializationError(
                f"{location}, a {name}, cannot be reduced to a state: {error}"
            ) from error
        # a metric passes its name to __new__, which ignores it
        new_arguments = () if isinstance(value, Metric) else arguments[1:]
        if constructor is not _NEWOBJ or new_arguments or any(items):
            raise SerializationError(f"{location}, a {name}, consists of more than its state")
        return {"class": name, "state": self.write(state, location)}


class _Deserializer:
    def __init__(self, objects: list[Any], substitute: str) -> None:
        if not isinstance(objects, list):
            raise TypeError("no list of objects")
        self._objects = objects
        self._safe_globals = safe_globals()
        self._built: dict[int, Any] = {}  # by number
        self._current = ""  # name of the value that is read, for errors
        self._substitute = substitute

    def read_value(self, name: str, value: Any) -> Any:
        """Return one of the values."""
        self._current = name
        return self._read(value)

    def _read(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._read(item) for item in value)
        if not isinstance(value, dict):
            return value
        kind = value.get(_MARKER)
        if kind is None:
            return type(value)((key, self._read(item)) for key, item in value.items())
        if kind == "name":
            return self._resolve(value["path"])
        number = referenced_object(value)
        if number is None or not 0 <= number < len(self._objects):
            raise LookupError(f"no object {value.get('number')!r:.50}")
        if number not in self._built:
            self._build(number, self._objects[number])
        return self._built[number]

    def _build(self, number: int, data: dict[str, Any]) -> None:
        name, state = data["class"], data["state"]
        if name in DECODERS:
            self._built[number] = DECODERS[name](self._read(state))
            return
        kind = self._resolve(name)
        if not isinstance(kind, type):
            raise RejectedFileError(
                f"{name!r} in the file must be a class, got a "
                f"{type(kind).__name__}; load another file."
            )
        new: Any = kind.__new__
        item = self._built[number] = new(kind)  # before its state is read, which may contain it
        state = self._read(state)
        if is_default_global(kind) and not _is_complete_state(kind, state):
            raise RejectedFileError(
                f"the objects in the file are damaged, {self._current} contains a {name} without "
                f"its state; {self._other('pass it, {}, or ')}load another file."
            )
        if hasattr(item, "__setstate__"):
            item.__setstate__(state)
        elif state is not None:
            item.__dict__.update(state)

    def _resolve(self, name: str) -> Any:
        """Return the class or function of a name if it is known to be safe."""
        if name not in self._safe_globals:
            raise RejectedFileError(
                f"the file names {name!r}, which is not among the classes and functions that are "
                f"known to be safe. If you trust it, import it and allow it with "
                f"torch.serialization.add_safe_globals([{name.rsplit('.', 1)[-1]}]) before you "
                f"load{self._other('; or pass the object itself, {}')}."
            )
        return self._safe_globals[name]

    def _other(self, advice: str) -> str:
        """Return advice to pass the object itself, if there is a way."""
        return advice.format(self._substitute.format(self._current)) if self._substitute else ""


def _is_complete_state(kind: type, state: Any) -> bool:
    """Return whether a class of the default list can have such a state, which is never empty."""
    required = {"_parameters", "_buffers", "_modules"} if issubclass(kind, nn.Module) else set()
    required |= {"_defaults"} if issubclass(kind, Metric) else set()
    return isinstance(state, dict) and bool(state) and required <= state.keys()


def _is_plain_key(key: Any) -> bool:
    """Return whether torch reads a dict with such a key; other dicts are encoded as pairs."""
    parts = key if type(key) is tuple else (key,)
    return key != _MARKER and all(
        type(part) in (str, int, float, bool, type(None)) for part in parts
    )


def _importable_name(item: Any, location: str) -> str:
    """Return the name of a class or function, or raise if it cannot be imported by that name."""
    name = qualified_name(item)
    if name in safe_globals():
        return name
    found: Any = sys.modules.get(item.__module__)
    for part in item.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not item:
        raise SerializationError(
            f"{location} is {name!r}, which cannot be imported by that name; define it at the top "
            f"level of a module"
        )
    return name
