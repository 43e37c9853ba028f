"""Objects as plain data, and back, without running anything that a file says.

What is plain is what ``torch.load`` reads by default: numbers, strings, tensors, and lists, tuples
and dicts of these. Any other object becomes a dict of its class's path and its state; it is made
again by ``__new__`` of the class and its own way to take up a state. Only classes and functions
that are allowed are named; none is imported, no function is called.
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

from .archive import first_line
from .safe_globals import allowed, is_listed, path_of
from .values import (
    JOIN_BY_NAME,
    VALUES,
    CannotBeWrittenError,
)

__all__ = ["CannotBeWrittenError", "describe", "rebuild", "referred"]

_NEW = copyreg.__newobj__  # type: ignore[attr-defined]
_KIND = "plain object"  # marks a dict that stands for an object
_AS_THEY_ARE = (str, int, float, bool, type(None), torch.Tensor, torch.dtype, torch.device)


def describe(values: dict[str, Any]) -> dict[str, Any]:
    """Write objects as plain data.

    Parameters
    ----------
    values : dict
        Objects by name. One that is found twice, or within itself, is written once.

    Returns
    -------
    dict
        Plain data, for :func:`rebuild`. The message of an object that has no such form is in the
        place of it, under ``unwritten``.
    """
    writer = _Writer()
    written, unwritten = {}, {}
    for name, value in values.items():
        count = len(writer.objects)
        try:
            written[name] = writer.write(value, name)
        except CannotBeWrittenError as error:
            unwritten[name] = str(error)
            writer.forget(count)
    return {"format": 1, "objects": writer.objects, "values": written, "unwritten": unwritten}


def rebuild(description: dict[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Make objects again from plain data.

    Parameters
    ----------
    description : dict
        What :func:`describe` returned.
    without : collection of str, optional
        Objects not to make.

    Returns
    -------
    dict
        Objects by name.

    Raises
    ------
    ValueError
        If the data names what is not allowed, or is not as :func:`describe` writes it.
    """
    if not isinstance(description, dict) or description.get("format") != 1:
        raise ValueError(
            "mLSTMTime: expected objects in format 1 in the checkpoint; it is damaged, or was "
            "written by a newer version: update pytorch_forecasting_mlstm."
        )
    try:
        reader, values = _Reader(description["objects"]), description["values"]
        return {n: reader.of(n, value) for n, value in values.items() if n not in without}
    except Exception as error:  # of the data of a stranger
        if str(error).startswith("mLSTMTime: "):
            raise
        raise ValueError(
            f"mLSTMTime: the objects in the checkpoint are damaged, {type(error).__name__}: "
            f"{first_line(error)}; take another checkpoint."
        ) from error


def referred(written: dict[Any, Any]) -> int | None:
    """Return the number of the object that a dict refers to, if it refers to one."""
    number = written.get("number") if written.get(_KIND) == "object" else None
    return number if type(number) is int else None


class _Writer:
    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is given out twice

    def write(self, value: Any, where: str) -> Any:
        kind = type(value)
        if kind in _AS_THEY_ARE or kind is torch.nn.Parameter:
            return value.detach() if kind is torch.Tensor and not value.is_leaf else value
        if kind in (list, tuple, torch.Size):
            parts = [self.write(part, f"{where}[{i}]") for i, part in enumerate(value)]
            return parts if kind is list else tuple(parts)
        if (kind is dict or kind is OrderedDict) and all(map(_is_plain_key, value)):
            pairs = {key: self.write(part, f"{where}[{key!r}]") for key, part in value.items()}
            return pairs if kind is dict else OrderedDict(pairs)
        if isinstance(value, type) or (
            callable(value) and not hasattr(value, "__dict__") or hasattr(value, "__code__")
        ):
            return {_KIND: "name", "path": _importable(value, where)}
        if id(value) not in self._numbers:
            number = self._numbers[id(value)] = len(self.objects)
            self._kept.append(value)
            self.objects.append(None)
            self.objects[number] = self._object(value, where)
        return {_KIND: "object", "number": self._numbers[id(value)]}

    def forget(self, count: int) -> None:
        """Take back all objects but the first ``count``."""
        del self.objects[count:]
        self._numbers = {key: number for key, number in self._numbers.items() if number < count}

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        for kind, (take_apart, _) in VALUES.items():
            if type(value) is kind or (kind is np.generic and isinstance(value, kind)):
                state = take_apart(value, where)
                return {"class": kind.__name__, "state": self.write(state, where)}
        path = _importable(type(value), where)
        try:
            make, arguments, state, *items = value.__reduce_ex__(2)
        except Exception as error:
            raise CannotBeWrittenError(f"{where}, a {path}, has no state: {error}") from error
        # a metric hands its name to __new__, which has no use for it
        needed = () if isinstance(value, Metric) else arguments[1:]
        if make is not _NEW or needed or any(items):
            raise CannotBeWrittenError(f"{where}, a {path}, is more than its state")
        return {"class": path, "state": self.write(state, where)}


class _Reader:
    def __init__(self, objects: list[Any]) -> None:
        if not isinstance(objects, list):
            raise TypeError("no list of objects")
        self._objects = objects
        self._allowed = allowed()
        self._made: dict[int, Any] = {}
        self._reading = ""

    def of(self, name: str, value: Any) -> Any:
        """Read the value of a hyper-parameter."""
        self._reading = name
        return self.read(value)

    def read(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self.read(part) for part in value)
        if not isinstance(value, dict):
            return value
        kind = value.get(_KIND)
        if kind is None:
            return type(value)((key, self.read(part)) for key, part in value.items())
        if kind == "name":
            return self._name(value["path"])
        number = referred(value)
        if number is None or not 0 <= number < len(self._objects):
            raise LookupError(f"no object {value.get('number')!r:.50}")
        if number not in self._made:
            self._make(number, self._objects[number])
        return self._made[number]

    def _make(self, number: int, written: dict[str, Any]) -> None:
        path, state = written["class"], written["state"]
        if path in JOIN_BY_NAME:
            self._made[number] = JOIN_BY_NAME[path](self.read(state))
            return
        kind = self._name(path)
        if not isinstance(kind, type):
            raise ValueError(f"mLSTMTime: {path!r} in the checkpoint must be a class, it is none.")
        # before its state is read: it may be within itself
        new: Any = kind.__new__
        item = self._made[number] = new(kind)
        state = self.read(state)
        if is_listed(kind) and not _is_whole(kind, state):
            raise ValueError(
                f"mLSTMTime: the objects in the checkpoint are damaged, {self._reading} has a "
                f"{path} without its state; pass {self._reading} to load_from_checkpoint, or take "
                f"another checkpoint."
            )
        if hasattr(item, "__setstate__"):
            item.__setstate__(state)
        elif state is not None:
            item.__dict__.update(state)

    def _name(self, path: str) -> Any:
        if path not in self._allowed:
            raise ValueError(
                f"mLSTMTime: the checkpoint holds {path!r}, which is not among the classes and "
                f"functions that are known to be safe. If you trust it, import it and allow it by "
                f"torch.serialization.add_safe_globals([{path.rsplit('.', 1)[-1]}]) before you "
                f"load; or pass the object itself, "
                f"load_from_checkpoint(path, {self._reading}=...)."
            )
        return self._allowed[path]


def _is_whole(kind: type, state: Any) -> bool:
    """Return whether an object of a listed class has a state; they all have one."""
    needed = {"_parameters", "_buffers", "_modules"} if issubclass(kind, nn.Module) else set()
    needed |= {"_defaults"} if issubclass(kind, Metric) else set()
    return isinstance(state, dict) and bool(state) and needed <= state.keys()


def _is_plain_key(key: Any) -> bool:
    """Return whether torch reads a dict with such a key; other dicts are written as pairs."""
    parts = key if type(key) is tuple else (key,)
    return key != _KIND and all(type(part) in (str, int, float, bool, type(None)) for part in parts)


def _importable(item: Any, where: str) -> str:
    """Return the path of a class or function, or raise if no other process could find it there."""
    path = path_of(item)
    if path in allowed():
        return path
    found: Any = sys.modules.get(item.__module__)
    for name in item.__qualname__.split("."):
        found = getattr(found, name, None)
    if found is not item:
        raise CannotBeWrittenError(
            f"{where} is {path!r}, which cannot be found by its name; define it at the top level "
            f"of a module"
        )
    return path
