"""Encode values of NumPy, pandas and Python as plain data, and decode them.

The decoders do not trust their input: what they allocate is bounded by the size of the data, and
no text is opened as a path.
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

from .errors import RejectedFileError
from .safe_globals import is_default_global

__all__ = ["CODECS", "DECODERS", "SerializationError", "check_key"]

_MAX_PARSED_LENGTH = 100  # characters of a text to parse: a dtype, a frequency, a date
_FREE_SIZE = 1000  # size of a dimension, or number of characters, that any array may have
_MAX_COLLISIONS = 64  # keys with the same hash in a dict or set: each is compared with all others
_MAX_BYTES_PER_CHARACTER = 64  # of arrays of fixed-width text
_KEY_TYPES = (str, int, float, bool, bytes, type(None))

#: dtypes of an index, as pandas writes them. pandas would parse others, too, and open the files
#: that they name.
_INDEX_DTYPE = (
    r"(bool(ean)?|object|str|string(\[\w+\])?|[uU]?[iI]nt\d+|[fF]loat\d+|timedelta64\[\w+\]"
    r"|period\[[\w-]+\]|datetime64\[\w+(, [\w/+:.-]+)?\])"
)


class SerializationError(TypeError):
    """Raised for an object that cannot be written as plain data, for example a lambda."""


def _encode_array(array: np.ndarray, location: str) -> dict[str, Any]:
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        data: Any = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    elif array.dtype.kind in "mM":
        data = torch.from_numpy(array.astype(np.int64))
    elif array.dtype.kind in "OU":
        data = [x.item() if isinstance(x, np.generic) else x for x in array.reshape(-1).tolist()]
    else:
        raise SerializationError(f"{location} is an array of {array.dtype}")
    return {"dtype": str(array.dtype), "shape": array.shape, "data": data}


def _decode_array(state: dict[str, Any]) -> np.ndarray:
    if not re.fullmatch(r"[<>=|]?\w+(\[\w+\])?", _short_text(state["dtype"])):
        raise TypeError("an array of an unsupported dtype")
    dtype, data, shape = np.dtype(state["dtype"]), state["data"], tuple(state["shape"])
    count = data.numel() if isinstance(data, torch.Tensor) else len(data)
    if max(shape, default=0) > max(count, _FREE_SIZE):
        raise ValueError(f"an array of shape {shape} with {count} elements")
    if isinstance(data, torch.Tensor):
        array = data.numpy()
        stored = np.dtype(np.int64) if dtype.kind in "mM" else dtype
        if (array.dtype.kind, array.dtype.itemsize) != (stored.kind, stored.itemsize):
            raise TypeError(f"numbers of {array.dtype} for an array of {dtype}")
        return array.astype(dtype).reshape(shape)
    if dtype.kind not in "OU":
        raise TypeError(f"a list for an array of {dtype}")
    if dtype.kind == "U":
        characters = _FREE_SIZE + sum(map(len, data))
        if dtype.itemsize * count > _MAX_BYTES_PER_CHARACTER * characters:
            raise ValueError(f"an array of {dtype} for short texts")
    array = np.empty(count, dtype)
    array[:] = data
    return array.reshape(shape)


def _encode_index(index: pd.Index, location: str) -> dict[str, Any]:
    if isinstance(index, pd.CategoricalIndex):
        codes, categories = np.asarray(index.codes), index.categories
        return {"data": codes, "dtype": [categories, index.ordered], "name": index.name}
    return {"data": index.to_numpy(), "dtype": str(index.dtype), "name": index.name}


def _decode_index(state: dict[str, Any]) -> pd.Index:
    dtype = state["dtype"]
    if isinstance(dtype, list):
        categories, ordered = dtype
        data = pd.Categorical.from_codes(state["data"], categories=categories, ordered=ordered)
        return pd.CategoricalIndex(data, name=state["name"])
    return pd.Index(state["data"], dtype=_parse_index_dtype(dtype), name=state["name"])


def _parse_index_dtype(text: str) -> Any:
    """Parse a dtype, but not those with which pandas opens a file, such as ``dateutil//path``."""
    if not re.fullmatch(rf"{_INDEX_DTYPE}|interval\[{_INDEX_DTYPE}(, \w+)?\]", _short_text(text)):
        raise TypeError(f"an index of {text}")
    for zone in re.findall(r"datetime64\[\w+, ([^\]]*)", _short_text(text)):
        if not re.fullmatch(r"UTC([+-][\d:.]+)?", zone):
            _decode_zone(zone)
    dtype = pd.api.types.pandas_dtype(text)
    if isinstance(dtype, np.dtype) and dtype.kind not in "biufmMO":
        raise TypeError(f"an index of {dtype}")
    return dtype


def _encode_multi_index(index: pd.MultiIndex, location: str) -> dict[str, Any]:
    codes = [np.asarray(codes) for codes in index.codes]
    return {"levels": list(index.levels), "codes": codes, "names": list(index.names)}


def _decode_multi_index(state: dict[str, Any]) -> pd.MultiIndex:
    return pd.MultiIndex(state["levels"], state["codes"], names=state["names"])


def _encode_series(series: pd.Series, location: str) -> dict[str, Any]:
    return {"values": pd.Index(series, name=series.name), "index": series.index}


def _decode_series(state: dict[str, Any]) -> pd.Series:
    values = state["values"]
    return pd.Series(values.array.copy(), index=state["index"], name=values.name)


def _encode_frame(frame: pd.DataFrame, location: str) -> dict[str, Any]:
    columns = [pd.Index(frame.iloc[:, number]) for number in range(frame.shape[1])]
    return {"columns": frame.columns, "index": frame.index, "data": columns}


def _decode_frame(state: dict[str, Any]) -> pd.DataFrame:
    data = {i: values.array.copy() for i, values in enumerate(state["data"])}
    frame = pd.DataFrame(data, index=state["index"])
    frame.columns = state["columns"]
    return frame


def _encode_scalar(value: np.generic, location: str) -> dict[str, Any]:
    return {"array": np.asarray(value)}


def _decode_scalar(state: dict[str, Any]) -> np.generic:
    return state["array"][()]


def _encode_timestamp(value: pd.Timestamp, location: str) -> dict[str, Any]:
    zone = _encode_zone(value.tzinfo, location)
    if zone is not None:
        value = value.tz_convert("UTC").tz_localize(None)
    return {"array": np.asarray(value.to_numpy()), "zone": zone}


def _decode_timestamp(state: dict[str, Any]) -> pd.Timestamp:
    value, zone = pd.Timestamp(state["array"][()]), _decode_zone(state["zone"])
    return value if zone is None else value.tz_localize("UTC").tz_convert(zone)


def _encode_datetime(value: datetime, location: str) -> dict[str, Any]:
    iso = value.replace(tzinfo=None).isoformat()
    return {"iso": iso, "fold": value.fold, "zone": _encode_zone(value.tzinfo, location)}


def _decode_datetime(state: dict[str, Any]) -> datetime:
    value = datetime.fromisoformat(_short_text(state["iso"]))
    return value.replace(fold=state["fold"], tzinfo=_decode_zone(state["zone"]))


def _encode_zone(zone: tzinfo | None, location: str) -> str | float | None:
    """Return the name of a time zone or, if it has none, its offset in seconds."""
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # of zoneinfo and pytz
    if name is not None:
        return str(name)
    offset = zone.utcoffset(None)
    if offset is None:
        raise SerializationError(
            f"{location} has the time zone {zone!r}, which has neither a name nor a fixed offset"
        )
    return offset.total_seconds()


def _decode_zone(zone: str | float | None) -> tzinfo | None:
    if isinstance(zone, str):
        try:
            return ZoneInfo(_short_text(zone))
        except (OSError, LookupError, ValueError) as error:  # "Europe" is a directory
            raise RejectedFileError(
                f"the file contains the time zone {zone!r:.50}, which is unknown "
                f"on this machine; update the package tzdata, or load another file."
            ) from error
    return None if zone is None else timezone(timedelta(seconds=zone))


def _encode_dict(value: dict[Any, Any], location: str) -> list[Any]:
    return list(value.items())


def _decode_partial(state: list[Any]) -> Any:
    function, arguments, keywords = state
    if isinstance(function, type) and is_default_global(function):
        # calling it could allocate, for example, a layer of any size
        raise TypeError(f"a partial of the class {function.__name__}")
    return partial(function, *arguments, **keywords)


def _short_text(text: str) -> str:
    """Return a text that is about to be parsed, or raise if it is too long."""
    if not isinstance(text, str) or len(text) > _MAX_PARSED_LENGTH:
        raise TypeError(f"{type(text).__name__} of length {len(text)} instead of a short text")
    return text


def check_key(key: Any, hash_counts: dict[int, int]) -> None:
    """Raise for a key that is not plain data, or if too many keys have its hash.

    Parameters
    ----------
    key : Any
        Key of a dict, or element of a set.
    hash_counts : dict of int to int
        Number of keys by hash, in the same dict or set. It is updated.
    """
    parts = key if type(key) is tuple and len(key) <= _MAX_PARSED_LENGTH else (key,)
    if any(type(part) not in _KEY_TYPES for part in parts):
        raise ValueError(f"a {type(key).__name__} as the key of a dict, or in a set")
    _check_collisions(key, hash_counts)


def _check_collisions(key: Any, hash_counts: dict[int, int]) -> None:
    """Count a key by its hash, and raise if too many keys have the same.

    Any number of integers have the same hash: 2^61 - 1 and its multiples, for example.
    """
    number = hash(key)
    hash_counts[number] = hash_counts.get(number, 0) + 1
    if hash_counts[number] > _MAX_COLLISIONS:
        raise ValueError(f"more than {_MAX_COLLISIONS} keys with the same hash")


def _checked_items(state: list[Any]) -> list[Any]:
    """Return the items of a dict after a check of their keys."""
    hash_counts: dict[int, int] = {}
    items = [(key, value) for key, value in state]
    for key, _ in items:
        _check_collisions(key, hash_counts)
    return items


def _checked_elements(state: list[Any]) -> list[Any]:
    """Return the elements of a set after a check."""
    hash_counts: dict[int, int] = {}
    for element in state:
        _check_collisions(element, hash_counts)
    return state


def _decode_dict(state: list[Any]) -> dict[Any, Any]:
    return dict(_checked_items(state))


def _decode_ordered_dict(state: list[Any]) -> OrderedDict[Any, Any]:
    return OrderedDict(_checked_items(state))


def _decode_set(state: list[Any]) -> set[Any]:
    return set(_checked_elements(state))


def _decode_frozenset(state: list[Any]) -> frozenset[Any]:
    return frozenset(_checked_elements(state))


def _parse_frequency(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", _short_text(text)):
        raise TypeError("an unsupported frequency")
    return text


_INDEX = (_encode_index, _decode_index)
#: Encoder and decoder of each class. Instances of other subclasses are written as objects.
CODECS: dict[type, tuple[Callable[[Any, str], Any], Callable[[Any], Any]]] = {
    np.ndarray: (_encode_array, _decode_array),
    np.generic: (_encode_scalar, _decode_scalar),
    pd.Index: _INDEX,
    pd.RangeIndex: _INDEX,
    pd.DatetimeIndex: _INDEX,
    pd.TimedeltaIndex: _INDEX,
    pd.PeriodIndex: _INDEX,
    pd.IntervalIndex: _INDEX,
    pd.CategoricalIndex: _INDEX,
    pd.MultiIndex: (_encode_multi_index, _decode_multi_index),
    pd.Series: (_encode_series, _decode_series),
    pd.DataFrame: (_encode_frame, _decode_frame),
    pd.Timestamp: (_encode_timestamp, _decode_timestamp),
    pd.Timedelta: (
        lambda value, location: {"array": np.asarray(value.to_numpy())},
        lambda state: pd.Timedelta(state["array"][()]),
    ),
    pd.Period: (
        lambda value, location: [value.ordinal, value.freqstr],
        lambda state: pd.Period(ordinal=state[0], freq=_parse_frequency(state[1])),
    ),
    pd.Interval: (
        lambda value, location: [value.left, value.right, value.closed],
        lambda state: pd.Interval(*state),
    ),
    datetime: (_encode_datetime, _decode_datetime),
    date: (
        lambda value, location: value.isoformat(),
        lambda state: date.fromisoformat(_short_text(state)),
    ),
    timedelta: (
        lambda value, location: [value.days, value.seconds, value.microseconds],
        lambda state: timedelta(*state),
    ),
    dict: (_encode_dict, _decode_dict),
    OrderedDict: (_encode_dict, _decode_ordered_dict),
    set: (lambda value, location: list(value), _decode_set),
    slice: (
        lambda value, location: [value.start, value.stop, value.step],
        lambda state: slice(*state),
    ),
    partial: (lambda value, location: [value.func, value.args, value.keywords], _decode_partial),
    frozenset: (lambda value, location: list(value), _decode_frozenset),
}
#: Decoders by the name of the class.
DECODERS = {kind.__name__: decode for kind, (_, decode) in CODECS.items()}
