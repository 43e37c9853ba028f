"""Limits of what a file may ask for: no more than the data that it contains.

Nothing here allocates what it measures. A file may refer to one list a million times, or describe
a tensor of terabytes by a stride of zero over four bytes.
"""

from typing import Any

import torch
from torch import Tensor

from .errors import RejectedFileError
from .serialization import referenced_object

__all__ = ["check_expanded_size"]

_MAX_DEPTH = 150  # levels of nesting: a loss within a loss takes five
_MAX_EXPANSION = 4  # how often data may be referred to: a normalizer is in two hyper-parameters
_FREE_SIZE = 1 << 18  # what any file may ask for, in bytes and in elements
_MAX_TEXT_LENGTH = 100_000
_MAX_INT_BITS = 1024


def check_expanded_size(data: Any, objects: Any = None, size: int | None = None) -> None:
    """Raise if data would be much larger, once expanded, than what they are stored in.

    Parameters
    ----------
    data : Any
        Content of a file.
    objects : Any
        List of objects that the data refer to by number.
    size : int, optional
        Size of the file in bytes. If it is given, texts and integers are limited, too. Default: the
        size of the distinct tensors and containers in the data.

    Raises
    ------
    RejectedFileError
        If anything is too large, or a list or dict contains itself.
    """
    meter = _SizeMeter(objects if isinstance(objects, list) else [], limit_leaves=size is not None)
    expanded_size = max(meter.measure(data, 0), meter.stored_size)
    size = meter.stored_size if size is None else size
    if expanded_size > _MAX_EXPANSION * size + _FREE_SIZE:
        raise RejectedFileError(
            f"the data must not be larger than their file of {size} bytes, got about "
            f"10^{len(str(expanded_size)) - 1} bytes once expanded; load another file."
        )


class _SizeMeter:
    """Measures expanded data, in bytes of tensors and elements of containers."""

    def __init__(self, objects: list[Any], limit_leaves: bool) -> None:
        self.stored_size = 0  # everything counted once
        self._objects = objects
        self._limit_leaves = limit_leaves
        self._sizes: dict[int, int | None] = {}  # by id; None while it is being measured
        self._storages: set[int] = set()

    def measure(self, value: Any, depth: int) -> int:
        """Return the size of a value, where everything counts as often as it is referred to."""
        if isinstance(value, Tensor):
            return self._measure_tensor(value)
        if not isinstance(value, list | tuple | set | frozenset | dict):
            if self._limit_leaves:
                _check_leaf(value)
            return 1
        key = id(value)
        if key in self._sizes:
            known = self._sizes[key]
            if known is None:
                raise RejectedFileError(
                    "the objects in the file are damaged, a list or dict contains "
                    "itself; load another file."
                )
            return known
        if depth > _MAX_DEPTH:
            raise RejectedFileError(
                f"the objects in the file are damaged, they are nested more than "
                f"{_MAX_DEPTH} levels deep; load another file."
            )
        self._sizes[key] = None
        self.stored_size += 1 + len(value)
        total = 1
        for item in value:
            total += self.measure(item, depth + 1)
        if isinstance(value, dict):
            for item in value.values():
                total += self.measure(item, depth + 1)
            total += self._measure_reference(value, depth)
        self._sizes[key] = total
        return total

    def _measure_reference(self, value: dict[Any, Any], depth: int) -> int:
        """Measure the object that a dict refers to; unlike a list, it may contain itself."""
        number = referenced_object(value)
        if number is None or not 0 <= number < len(self._objects):
            return 0
        item = self._objects[number]
        if self._sizes.get(id(item), 0) is None:
            return 1
        return self.measure(item, depth + 1)

    def _measure_tensor(self, value: Tensor) -> int:
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise RejectedFileError(
                f"the file must contain dense tensors, got one of layout "
                f"{value.layout} and {value.dtype}; load another one."
            )
        if value.is_meta:
            raise RejectedFileError(
                "the file must contain dense tensors, got one without data; load another one."
            )
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self.stored_size += storage.nbytes()
        # an empty tensor may have a dimension of any size, which operations iterate over
        longest = max(value.shape, default=0)
        return 1 + max(value.numel() * value.element_size(), longest)


def _check_leaf(value: Any) -> None:
    is_long_text = isinstance(value, str | bytes) and len(value) > _MAX_TEXT_LENGTH
    is_large_int = isinstance(value, int) and value.bit_length() > _MAX_INT_BITS
    if is_long_text or is_large_int:
        raise RejectedFileError(
            f"the file must contain texts of at most {_MAX_TEXT_LENGTH} "
            f"characters and integers of at most {_MAX_INT_BITS} bits, got "
            f"{len(value) if is_long_text else value.bit_length()}; load another one."
        )
