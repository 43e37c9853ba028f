"""A file of hyper-parameters, as Lightning's loggers write it, read as plain data."""

import re
from collections.abc import Hashable
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.core.saving import load_hparams_from_tags_csv

from .archive import first_line
from .limits import check_extent
from .values import check_key

__all__ = ["read_hparams"]


_DIGITS = 400  # of a number
_LONG_NUMBERS = 64  # in a table: as many as may have one hash
_DEPTH = 100  # of brackets within brackets


class _PlainLoader(yaml.SafeLoader):
    """Reads tuples besides plain data. Lightning's choice resolves functions by name, too."""

    def tuple(self, node: yaml.SequenceNode) -> tuple[Any, ...]:
        return tuple(self.construct_sequence(node, deep=True))

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ValueError("a mapping merged into another")

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        met: dict[int, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            check_key(self.construct_object(key, deep=True), met)  # type: ignore[no-untyped-call,unused-ignore]
        return super().construct_mapping(node, deep)

    def integer(self, node: yaml.ScalarNode) -> int:
        _check_base(node)
        return self.construct_yaml_int(node)

    def real(self, node: yaml.ScalarNode) -> float:
        _check_base(node)
        return self.construct_yaml_float(node)


def _check_base(node: yaml.ScalarNode) -> None:
    """Refuse numbers to the base of 60, which take a square of the time of their length."""
    if ":" in node.value or len(node.value) > _DIGITS:
        raise ValueError("a number to the base of 60, or a long one")


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.integer)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.real)
_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _PlainLoader.tuple)


def read_hparams(path: str | Path) -> dict[str, Any]:
    """Read hyper-parameters from a ``.yaml``, ``.yml`` or ``.csv`` file.

    Raises
    ------
    ValueError
        If the file is of another kind, or holds anything but plain data.
    """
    kind = str(path).rpartition(".")[-1].lower()
    if kind not in ("csv", "yaml", "yml"):
        raise ValueError(
            f"mLSTMTime: hparams_file must be a .yaml, .yml or .csv file, got {path}; leave it out "
            f"to take the checkpoint's own."
        )
    files = get_filesystem(path)
    with files.open(str(path), "rb") as file:
        written = file.read()
    try:
        steps = (1 if bracket in b"[{" else -1 for bracket in re.findall(rb"[\[\]{}]", written))
        if max(accumulate(steps), default=0) > _DEPTH:  # YAML takes a square of the time for these
            raise RecursionError(f"brackets more than {_DEPTH} deep")
        if kind == "csv" and len(re.findall(rb"\w{16,}", written)) > _LONG_NUMBERS * 16:
            raise ValueError("too many long numbers or names")
        values = (
            load_hparams_from_tags_csv(path) if kind == "csv" else yaml.load(written, _PlainLoader)
        )
        if not isinstance(values, dict):
            raise TypeError(f"a {type(values).__name__} in the place of names and values")
        check_extent(values, size=len(written))
    except Exception as error:  # of the data of a stranger
        if str(error).startswith("mLSTMTime: "):
            raise
        raise ValueError(
            f"mLSTMTime: hparams_file must hold names and plain values, {path} does not, "
            f"{type(error).__name__}: {first_line(error)}; leave it out to take the checkpoint's "
            f"own."
        ) from error
    return values
