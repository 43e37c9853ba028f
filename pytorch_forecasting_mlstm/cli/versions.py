"""The versions that a report of a bug needs."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..layers import backend

__all__ = ["Versions", "describe_versions"]

_PACKAGES = (
    *("pytorch-forecasting", "torch", "lightning", "pandas", "numpy", "narwhals", "scikit-learn"),
    *("scikit-base", "polars", "pyarrow", "optuna", "statsforecast", "holidays", "onnx"),
)


def describe_versions() -> str:
    """Return the versions of this package, of Python and of what it uses, one per line.

    Examples
    --------
    >>> describe_versions().splitlines()[0]
    'pytorch-forecasting-mlstm 0.2.0'
    """
    from .. import __version__  # not on top: the package imports this module's neighbors

    lines = [
        f"pytorch-forecasting-mlstm {__version__}",
        f"Python {platform.python_version()}, {platform.platform()}",
    ]
    for name in _PACKAGES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # of an extra
    return "\n".join([*lines, str(backend())])


class Versions(argparse.Action):
    """Print the versions, and exit, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        print(describe_versions())
        parser.exit()
