"""Read a file of hyper-parameters, as written by Lightning's loggers, as plain data."""

import re
from collections.abc import Hashable
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.core.saving import load_hparams_from_tags_csv

from ...._messages import one_line
from ...._safe_files.errors import RejectedFileError
from ...._safe_files.sizes import check_expanded_size
from ...._safe_files.values import check_key

__all__ = ["read_hparams"]


_MAX_DIGITS = 400  # of a number
_MAX_LONG_NUMBERS = 64  # in a CSV file: as many keys may have the same hash
_MAX_DEPTH = 100  # of nested brackets


class _PlainLoader(yaml.SafeLoader):
    """Reads plain data and tuples. Lightning's own loader also imports what a file names."""

    def construct_tuple(self, node: yaml.SequenceNode) -> tuple[Any, ...]:
        return tuple(self.construct_sequence(node, deep=True))

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ValueError("a merge key (<<)")

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        hash_counts: dict[int, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            check_key(self.construct_object(key, deep=True), hash_counts)  # type: ignore[no-untyped-call,unused-ignore]
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        _check_number(node)
        return self.construct_yaml_int(node)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        _check_number(node)
        return self.construct_yaml_float(node)


def _check_number(node: yaml.ScalarNode) -> None:
    """Raise for a long or sexagesimal number: parsing takes time quadratic in its length."""
    if ":" in node.value or len(node.value) > _MAX_DIGITS:
        raise ValueError("a sexagesimal number, or a long one")


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_int)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_float)
_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _PlainLoader.construct_tuple)


def read_hparams(path: str | Path) -> dict[str, Any]:
    """Read hyper-parameters from a ``.yaml``, ``.yml`` or ``.csv`` file.

    Raises
    ------
    RejectedFileError
        If the file has another extension, or contains anything but plain data.
    """
    extension = str(path).rpartition(".")[-1].lower()
    if extension not in ("csv", "yaml", "yml"):
        raise RejectedFileError(
            f"hparams_file must be a .yaml, .yml or .csv file, got {path}; leave it out "
            f"to use those of the checkpoint."
        )
    files = get_filesystem(path)
    with files.open(str(path), "rb") as file:
        data = file.read()
    try:
        steps = (1 if bracket in b"[{" else -1 for bracket in re.findall(rb"[\[\]{}]", data))
        if max(accumulate(steps), default=0) > _MAX_DEPTH:  # YAML takes quadratic time for these
            raise RecursionError(f"brackets nested more than {_MAX_DEPTH} levels deep")
        if extension == "csv" and len(re.findall(rb"\w{16,}", data)) > _MAX_LONG_NUMBERS * 16:
            raise ValueError("too many long numbers or names")
        if extension == "csv":
            values = load_hparams_from_tags_csv(path)
        else:
            values = yaml.load(data, _PlainLoader)
        if not isinstance(values, dict):
            raise TypeError(f"a {type(values).__name__} instead of names and values")
        check_expanded_size(values, size=len(data))
    except RejectedFileError:
        raise
    except Exception as error:  # a crafted file can raise anything
        raise RejectedFileError(
            f"hparams_file must contain names and plain values, got {path}, "
            f"{type(error).__name__}: {one_line(error)}; leave it out to use those of the "
            f"checkpoint."
        ) from error
    return values
