"""Packages that only the command line needs."""

from __future__ import annotations

from importlib.util import find_spec

from ..forecaster.errors import UserError


def require(*packages: str) -> None:
    """Raise a line that names the extra unless all `packages` are installed.

    Raises
    ------
    UserError
        A package is missing.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed: pip install 'pytorch-forecasting-mlstm[demo]'"
        )
