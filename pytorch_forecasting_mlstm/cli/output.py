"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._atomic_write import atomic_write
from ..forecaster.errors import UserError


def writable_folder(folder: Path) -> Path:
    """Create `folder` where needed and make sure that a file can be written in it.

    Checked before the model is fitted: nobody should wait for a forecast that has nowhere to go.

    Raises
    ------
    UserError
        The folder cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {str(folder)!r} ({error.strerror}): name another one "
            "with --output"
        ) from error
    return folder


@contextmanager
def whole_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Give temporary paths, and rename them to `paths` once all of them are complete.

    A reader sees old files or new ones, never a part of one, and never the first one new and
    another one old; after an error the old ones are left. A symbolic link stays, and the file that
    it leads to is replaced.

    Raises
    ------
    UserError
        A file cannot be written.
    """
    try:
        with atomic_write(*(Path(os.path.realpath(path)) for path in paths)) as parts:
            yield parts
    except OSError as error:
        names = " and ".join(repr(str(path)) for path in paths)
        raise UserError(f"cannot write {names}: {error.strerror or error}") from error
