"""Write objects to files as plain data, and read them back without running any code."""

import inspect
import os
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import torch

from .._atomic_write import atomic_write, find_os_error
from .._messages import prefix_errors
from .archive import PickledObjectError, read_archive
from .errors import RejectedFileError
from .serialization import deserialize, serialize
from .sizes import check_expanded_size

__all__ = ["read_object", "write_file", "write_object"]

_KIND, _OBJECTS = "kind of file", "objects"
_CLASS = "class of the object"  # not the name of an attribute
_DESCRIPTORS = (classmethod, property, staticmethod)
_Item = TypeVar("_Item")


def write_file(content: dict[str, Any], path: str | Path) -> None:
    """Write plain data and tensors as torch does, completely or not at all.

    Parameters
    ----------
    content : dict
        What ``torch.load`` reads by default.
    path : str or Path
        File, which is replaced once the new one is complete. A link is followed.

    Raises
    ------
    OSError
        If the file cannot be written. An earlier file of that name is unchanged.
    """
    target = Path(os.path.realpath(path))
    try:
        with atomic_write(target) as (temporary,), temporary.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # the latter of torch, on a full disk
        cause = find_os_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror or str(cause), str(path)) from error


def write_object(item: Any, path: str | Path, kind: str) -> None:
    """Write the attributes of an object, or what its ``__getstate__`` returns, as plain data.

    Parameters
    ----------
    item : Any
        Object of a class with a method ``save``, for errors.
    path : str or Path
        File, which is replaced once the new one is complete.
    kind : str
        What the file contains, for :func:`read_object`.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If an attribute cannot be written as plain data, such as a lambda.
    """
    caller = f"{type(item).__name__}.save"
    attributes = item.__getstate__() if hasattr(item, "__getstate__") else vars(item)
    objects = serialize({**attributes, _CLASS: _name_of(type(item))})
    for reason in objects["unwritten"].values():
        raise TypeError(f"{caller}: cannot write this as plain data, because {reason}.")
    try:
        write_file({_KIND: kind, _OBJECTS: objects}, path)
    except OSError as error:
        raise OSError(
            error.errno, f"{caller} cannot write the file, {error.strerror}", str(path)
        ) from error


def read_object(
    cls: type[_Item], path: str | Path, kind: str, required: Collection[str], convert: str
) -> _Item:
    """Read an object that :func:`write_object` has written.

    Parameters
    ----------
    cls : type
        Class of the object, or a subclass of the one in the file.
    path : str or Path
        The file.
    kind : str
        What it must contain.
    required : collection of str
        Attributes that it must have.
    convert : str
        How the user converts a pickle of such an object, for errors.

    Returns
    -------
    object
        An instance of ``cls``.

    Raises
    ------
    ValueError
        If the file contains something else, names a class that is not known to be safe, would
        expand to more than its size, or is damaged.
    pickle.UnpicklingError
        If it is a pickle, which can run code, or has another format.
    """
    caller, name = f"{cls.__name__}.load", str(path)
    try:
        content, size, _ = read_archive(path, caller, kind)
    except PickledObjectError as error:
        raise pickle.UnpicklingError(
            f"{caller}: {name} must be a {kind} that {cls.__name__}.save has written as plain "
            f"data, got a pickle, which can run code; {convert}."
        ) from error
    with prefix_errors(f"{caller}: {name}"):
        objects = content.get(_OBJECTS) if isinstance(content, dict) else None
        if not isinstance(objects, dict) or content.get(_KIND) != kind:
            raise RejectedFileError(
                f"the file must contain a {kind} that {cls.__name__}.save has written, got other "
                f"data; load another file."
            )
        check_expanded_size(content, objects.get("objects"), size)
        attributes = deserialize(objects)
        _check_class(cls, attributes.pop(_CLASS, None), kind)
        _check_attributes(cls, attributes, required)
    item = cls.__new__(cls)
    vars(item).update(attributes)
    return item


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _check_class(cls: type, name: Any, kind: str) -> None:
    if name not in map(_name_of, cls.__mro__):
        raise RejectedFileError(
            f"the file must contain a {kind} of the class {cls.__name__}, got one of "
            f"{name!r:.100}; call load of that class."
        )


def _check_attributes(cls: type, attributes: dict[Any, Any], required: Collection[str]) -> None:
    """Raise if attributes are missing, or would replace public methods of the class.

    pytorch-forecasting itself replaces a private one by its result.
    """
    for name in attributes:
        if not isinstance(name, str) or name.startswith("__") or _is_public_method(cls, name):
            raise RejectedFileError(
                f"the file must contain the attributes of {cls.__name__}, got {name!r:.50}, which "
                f"is none; load another file."
            )
    for name in required:
        if name not in attributes:
            raise RejectedFileError(
                f"the file must contain the attributes of {cls.__name__}, got none named {name!r}; "
                f"it is damaged or of another version, build the object anew."
            )


def _is_public_method(cls: type, name: str) -> bool:
    defined = inspect.getattr_static(cls, name, None)
    return name[:1] != "_" and (callable(defined) or isinstance(defined, _DESCRIPTORS))
