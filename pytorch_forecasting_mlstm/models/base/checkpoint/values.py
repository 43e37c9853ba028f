"""Values of NumPy, pandas and Python as plain data, and back.

Each is taken apart to plain values, and put together again of what a stranger may have written:
what it allocates is bounded by the data, and no text of it is taken for a path.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import torch

from .safe_globals import is_listed

__all__ = ["JOIN_BY_NAME", "VALUES", "CannotBeWrittenError", "check_hash", "check_key"]

_SHORT = 100  # characters of what is parsed: a dtype, a frequency, a date
_SIDE = 1000  # how long a dimension of an empty array, or one of short texts, may be
_ALIKE = 64  # keys of one hash in a dict or set: each is compared with all others
_SPARSE = 64  # bytes of texts of fixed width to a character in them


#: What pandas calls the types of an index; it would take others, and open what those name.
_DTYPE = (
    r"(bool(ean)?|object|str|string(\[\w+\])?|[uU]?[iI]nt\d+|[fF]loat\d+|timedelta64\[\w+\]"
    r"|period\[[\w-]+\]|datetime64\[\w+(, [\w/+:.-]+)?\])"
)


class CannotBeWrittenError(TypeError):
    """Raised for what has no form as plain data, a lambda for example."""


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
    if not re.fullmatch(r"[<>=|]?\w+(\[\w+\])?", _short(state["dtype"])):
        raise TypeError("an array of another type")
    dtype, data, shape = np.dtype(state["dtype"]), state["data"], tuple(state["shape"])
    count = data.numel() if isinstance(data, torch.Tensor) else len(data)
    if max(shape, default=0) > max(count, _SIDE):
        raise ValueError(f"an array of shape {shape} of {count} elements")
    if isinstance(data, torch.Tensor):
        array = data.numpy()
        written = np.dtype(np.int64) if dtype.kind in "mM" else dtype
        if (array.dtype.kind, array.dtype.itemsize) != (written.kind, written.itemsize):
            raise TypeError(f"numbers of {array.dtype} for an array of {dtype}")
        return array.astype(dtype).reshape(shape)
    if dtype.kind not in "OU":
        raise TypeError(f"a list for an array of {dtype}")
    if dtype.kind == "U" and dtype.itemsize * count > _SPARSE * (_SIDE + sum(map(len, data))):
        raise ValueError(f"an array of {dtype} for short texts")
    array = np.empty(count, dtype)
    array[:] = data
    return array.reshape(shape)


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
    return pd.Index(state["data"], dtype=_index_dtype(dtype), name=state["name"])


def _index_dtype(written: str) -> Any:
    """Parse a dtype, without what pandas would open: ``dateutil/`` leads to any file."""
    if not re.fullmatch(rf"{_DTYPE}|interval\[{_DTYPE}(, \w+)?\]", _short(written)):
        raise TypeError(f"an index of {written}")
    for zone in re.findall(r"datetime64\[\w+, ([^\]]*)", _short(written)):
        if not re.fullmatch(r"UTC([+-][\d:.]+)?", zone):
            _join_zone(zone)
    dtype = pd.api.types.pandas_dtype(written)
    if isinstance(dtype, np.dtype) and dtype.kind not in "biufmMO":
        raise TypeError(f"an index of {dtype}")
    return dtype


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
    value = datetime.fromisoformat(_short(state["iso"]))
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
        try:
            return ZoneInfo(_short(zone))
        except (OSError, LookupError, ValueError) as error:  # "Europe" is a folder
            raise ValueError(
                f"mLSTMTime: the checkpoint holds the time zone {zone!r:.50}, which this machine "
                f"does not know; update the package tzdata, or take another checkpoint."
            ) from error
    return None if zone is None else timezone(timedelta(seconds=zone))


def _split_dict(value: dict[Any, Any], where: str) -> list[Any]:
    return [(key, part) for key, part in value.items()]


def _join_partial(state: list[Any]) -> Any:
    function, arguments, keywords = state
    if isinstance(function, type) and is_listed(function):
        # it would be called: a layer of as many weights as the file says
        raise TypeError(f"a partial of the class {function.__name__}")
    return partial(function, *arguments, **keywords)


def _short(text: str) -> str:
    """Return a text that is about to be parsed, if it is one of those that are written."""
    if not isinstance(text, str) or len(text) > _SHORT:
        raise TypeError(f"{type(text).__name__} of length {len(text)} for a short text")
    return text


def check_hash(key: Any, met: dict[int, int]) -> None:
    """Count a key by its hash, and refuse it after too many of the same.

    Integers of one hash may be written down in any number: 2^61 - 1, and its multiples.
    """
    number = hash(key)
    met[number] = met.get(number, 0) + 1
    if met[number] > _ALIKE:
        raise ValueError(f"more than {_ALIKE} keys of one hash")


def check_key(key: Any, met: dict[int, int]) -> None:
    """Refuse a key that is no plain one, or after too many of its hash."""
    parts = key if type(key) is tuple and len(key) <= _SHORT else (key,)
    if any(type(part) not in _PLAIN_KEYS for part in parts):
        raise ValueError(f"a {type(key).__name__} as the key of a dict, or in a set")
    check_hash(key, met)


_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))


def _items(state: list[Any]) -> list[Any]:
    """Return the items of a dict, once their keys are checked."""
    met: dict[int, int] = {}
    items = [(key, part) for key, part in state]
    for key, _ in items:
        check_hash(key, met)
    return items


def _members(state: list[Any]) -> list[Any]:
    """Return the members of a set, once they are checked."""
    met: dict[int, int] = {}
    for member in state:
        check_hash(member, met)
    return state


def _join_dict(state: list[Any]) -> dict[Any, Any]:
    return dict(_items(state))


def _join_ordered(state: list[Any]) -> OrderedDict[Any, Any]:
    return OrderedDict(_items(state))


def _frequency(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", _short(text)):
        raise TypeError("another frequency")
    return text


def _set(state: list[Any]) -> set[Any]:
    return set(_members(state))


def _frozenset(state: list[Any]) -> frozenset[Any]:
    return frozenset(_members(state))


_INDEX = (_split_index, _join_index)
#: How to take apart and to put together, by class; a subclass of its own is written as an object.
VALUES: dict[type, tuple[Callable[[Any, str], Any], Callable[[Any], Any]]] = {
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
        lambda state: pd.Period(ordinal=state[0], freq=_frequency(state[1])),
    ),
    pd.Interval: (
        lambda value, where: [value.left, value.right, value.closed],
        lambda state: pd.Interval(*state),
    ),
    datetime: (_split_datetime, _join_datetime),
    date: (lambda value, where: value.isoformat(), lambda state: date.fromisoformat(_short(state))),
    timedelta: (
        lambda value, where: [value.days, value.seconds, value.microseconds],
        lambda state: timedelta(*state),
    ),
    dict: (_split_dict, _join_dict),
    OrderedDict: (_split_dict, _join_ordered),
    set: (lambda value, where: list(value), _set),
    partial: (lambda value, where: [value.func, value.args, value.keywords], _join_partial),
    frozenset: (lambda value, where: list(value), _frozenset),
}
JOIN_BY_NAME = {kind.__name__: join for kind, (_, join) in VALUES.items()}
