"""Read the option --holidays: a file of dates, or the code of a country or an exchange."""

from __future__ import annotations

import re
from pathlib import Path

from ..forecaster import InputError
from .column_names import show_path

_CODE = re.compile(r"[A-Za-z]{2,6}(-[A-Za-z0-9]{1,5})?")
_MAX_SIZE = 10**7  # bytes


def read_holidays(option: str) -> str | list[str]:
    """Return the dates of a file, one per line, or the code.

    Empty lines, a first line without digits, such as "date", and what follows a comma, a semicolon,
    a tab or # are left out.

    Raises
    ------
    InputError
        If there is no such file, or it holds no dates.
    """
    path = Path(option)
    if not path.is_file():
        if _CODE.fullmatch(option):
            return option
        raise InputError(
            f"--holidays: {show_path(path)}: no such file: name a file with one date per line, or "
            "the code of a country or an exchange, such as US or NYSE"
        )
    if path.stat().st_size > _MAX_SIZE:
        raise InputError(f"--holidays: {show_path(path)} is too large for a list of dates")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"--holidays: {show_path(path)} is not UTF-8 text: write one date per line"
        ) from error
    cells = [re.split(r"[,;\t#]", line)[0].strip().strip('"') for line in lines]
    dates = [cell for cell in cells if cell]
    if dates and not any(character.isdigit() for character in dates[0]):
        dates = dates[1:]
    if not dates:
        raise InputError(f"--holidays: {show_path(path)} holds no dates: write one per line")
    return dates
