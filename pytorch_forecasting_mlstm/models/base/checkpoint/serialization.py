"""Objects as plain data, and back, without running anything that a file says.

What is plain is what ``torch.load`` reads by default: numbers, strings, tensors, and lists, tuples
and dicts of these. Any other object becomes a dict of its class's path and its state; it is made
again by ``__new__`` of the class and its own way to take up a state. Only classes and functions
that are allowed are named; none is imported, no function is called.
"""

import copyreg
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import torch
from torchmetrics import Metric

from .safe_globals import allowed, path_of

__all__ = ["CannotBeWrittenError", "describe", "rebuild"]

_NEW = copyreg.__newobj__  # type: ignore[attr-defined]
_KIND = "plain object"  # marks a dict that stands for an object
_AS_THEY_ARE = (str, int, float, bool, type(None), torch.Tensor, torch.dtype, torch.device)


class CannotBeWrittenError(TypeError):
    """Raised for what has no form as plain data, a lambda for example."""


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
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        if str(error).startswith("mLSTMTime: "):
            raise
        raise ValueError(
            f"mLSTMTime: the objects in the checkpoint are damaged, {type(error).__name__}: "
            f"{error}; take another checkpoint."
        ) from error


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
        for kind, (take_apart, _) in _VALUES.items():
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
        number = value["number"]
        if number not in self._made:
            self._make(number, **self._objects[number])
        return self._made[number]

    def _make(self, number: int, **written: Any) -> None:
        path, state = written["class"], written["state"]
        if path in _BY_NAME:
            self._made[number] = _BY_NAME[path](self.read(state))
            return
        kind = self._name(path)
        if not isinstance(kind, type):
            raise ValueError(f"mLSTMTime: {path!r} in the checkpoint must be a class, it is none.")
        # before its state is read: it may be within itself
        new: Any = kind.__new__
        item = self._made[number] = new(kind)
        state = self.read(state)
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


# Values of NumPy and pandas: each is taken apart to plain values, and put together again.


def _split_array(array: np.ndarray, where: str) -> dict[str, Any]:
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        data: Any = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    elif array.dtype.kind in "mM":
        data = torch.from_numpy(array.astype(np.int64))
    elif array.dtype.kind in "OU":
        data = [x.item() if isinstance(x, np.generic) else x for x in array.reshape(-1).tolist()]
    else:
        raise CannotBeWrittenError(f"{where} is an array of {array.dtype}")
    return {"dtype": str(array.dtype), "shape": array.shape, "data": data}


def _join_array(state: dict[str, Any]) -> np.ndarray:
    dtype, data = np.dtype(state["dtype"]), state["data"]
    if isinstance(data, torch.Tensor):
        return data.numpy().astype(dtype).reshape(state["shape"])
    array = np.empty(len(data), dtype)
    array[:] = data
    return array.reshape(state["shape"])


def _split_index(index: pd.Index, where: str) -> dict[str, Any]:
    if isinstance(index, pd.CategoricalIndex):
        codes, classes = np.asarray(index.codes), index.categories
        return {"data": codes, "dtype": [classes, index.ordered], "name": index.name}
    return {"data": index.to_numpy(), "dtype": str(index.dtype), "name": index.name}


def _join_index(state: dict[str, Any]) -> pd.Index:
    dtype = state["dtype"]
    if isinstance(dtype, list):
        classes, ordered = dtype
        data = pd.Categorical.from_codes(state["data"], categories=classes, ordered=ordered)
        return pd.CategoricalIndex(data, name=state["name"])
    return pd.Index(state["data"], dtype=dtype, name=state["name"])


def _split_levels(index: pd.MultiIndex, where: str) -> dict[str, Any]:
    codes = [np.asarray(codes) for codes in index.codes]
    return {"levels": list(index.levels), "codes": codes, "names": list(index.names)}


def _join_levels(state: dict[str, Any]) -> pd.MultiIndex:
    return pd.MultiIndex(state["levels"], state["codes"], names=state["names"])


def _split_series(series: pd.Series, where: str) -> dict[str, Any]:
    return {"values": pd.Index(series, name=series.name), "index": series.index}


def _join_series(state: dict[str, Any]) -> pd.Series:
    values = state["values"]
    return pd.Series(values.array.copy(), index=state["index"], name=values.name)


def _split_frame(frame: pd.DataFrame, where: str) -> dict[str, Any]:
    columns = [pd.Index(frame.iloc[:, number]) for number in range(frame.shape[1])]
    return {"columns": frame.columns, "index": frame.index, "data": columns}


def _join_frame(state: dict[str, Any]) -> pd.DataFrame:
    data = {i: values.array.copy() for i, values in enumerate(state["data"])}
    frame = pd.DataFrame(data, index=state["index"])
    frame.columns = state["columns"]
    return frame


def _split_scalar(value: np.generic, where: str) -> dict[str, Any]:
    return {"array": np.asarray(value)}


def _join_scalar(state: dict[str, Any]) -> np.generic:
    return state["array"][()]


def _split_timestamp(value: pd.Timestamp, where: str) -> dict[str, Any]:
    zone = _split_zone(value.tzinfo, where)
    if zone is not None:
        value = value.tz_convert("UTC").tz_localize(None)
    return {"array": np.asarray(value.to_numpy()), "zone": zone}


def _join_timestamp(state: dict[str, Any]) -> pd.Timestamp:
    value, zone = pd.Timestamp(state["array"][()]), _join_zone(state["zone"])
    return value if zone is None else value.tz_localize("UTC").tz_convert(zone)


def _split_datetime(value: datetime, where: str) -> dict[str, Any]:
    iso = value.replace(tzinfo=None).isoformat()
    return {"iso": iso, "fold": value.fold, "zone": _split_zone(value.tzinfo, where)}


def _join_datetime(state: dict[str, Any]) -> datetime:
    value = datetime.fromisoformat(state["iso"])
    return value.replace(fold=state["fold"], tzinfo=_join_zone(state["zone"]))


def _split_zone(zone: tzinfo | None, where: str) -> str | float | None:
    """Write a time zone as its name or, of one without, its offset in seconds."""
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # of zoneinfo and pytz
    if name is not None:
        return str(name)
    offset = zone.utcoffset(None)
    if offset is None:
        raise CannotBeWrittenError(f"{where} has the time zone {zone!r}, which has no name")
    return offset.total_seconds()


def _join_zone(zone: str | float | None) -> tzinfo | None:
    if isinstance(zone, str):
        return ZoneInfo(zone)
    return None if zone is None else timezone(timedelta(seconds=zone))


def _split_dict(value: dict[Any, Any], where: str) -> list[Any]:
    return [(key, part) for key, part in value.items()]


def _set(state: list[Any]) -> set[Any]:
    return set(state)


_INDEX = (_split_index, _join_index)
_VALUES: dict[type, tuple[Callable[[Any, str], Any], Callable[[Any], Any]]] = {
    np.ndarray: (_split_array, _join_array),
    np.generic: (_split_scalar, _join_scalar),
    pd.Index: _INDEX,
    pd.RangeIndex: _INDEX,
    pd.DatetimeIndex: _INDEX,
    pd.TimedeltaIndex: _INDEX,
    pd.PeriodIndex: _INDEX,
    pd.IntervalIndex: _INDEX,
    pd.CategoricalIndex: _INDEX,
    pd.MultiIndex: (_split_levels, _join_levels),
    pd.Series: (_split_series, _join_series),
    pd.DataFrame: (_split_frame, _join_frame),
    pd.Timestamp: (_split_timestamp, _join_timestamp),
    pd.Timedelta: (
        lambda value, where: {"array": np.asarray(value.to_numpy())},
        lambda state: pd.Timedelta(state["array"][()]),
    ),
    pd.Period: (
        lambda value, where: [value.ordinal, value.freqstr],
        lambda state: pd.Period(ordinal=state[0], freq=state[1]),
    ),
    pd.Interval: (
        lambda value, where: [value.left, value.right, value.closed],
        lambda state: pd.Interval(*state),
    ),
    datetime: (_split_datetime, _join_datetime),
    date: (lambda value, where: value.isoformat(), date.fromisoformat),
    timedelta: (
        lambda value, where: [value.days, value.seconds, value.microseconds],
        lambda state: timedelta(*state),
    ),
    dict: (_split_dict, dict),
    OrderedDict: (_split_dict, OrderedDict),
    set: (lambda value, where: list(value), _set),
    partial: (
        lambda value, where: [value.func, value.args, value.keywords],
        lambda state: partial(state[0], *state[1], **state[2]),
    ),
    frozenset: (lambda value, where: list(value), frozenset),
}
_BY_NAME = {kind.__name__: join for kind, (_, join) in _VALUES.items()}
