"""Write files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


def writable_folder(folder: Path) -> Path:
    """Create `folder` where needed and make sure that a file can be written in it.

    Checked before the model is fitted: nobody should wait for a forecast that has nowhere to go.

    Raises
    ------
    UserError
        The folder cannot be made, or not be written to.
    """
    probe = folder / f".mlstm-{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {str(folder)!r} ({error.strerror}): name another one "
            "with --output"
        ) from error
    return folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` once it is complete.

    A reader sees the old file or the new one, never a part; after an error the old one is left.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    part = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
