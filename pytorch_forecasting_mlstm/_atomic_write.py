"""Write files completely or not at all, even if other processes write to the same folder."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Windows does not have it.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

__all__ = ["atomic_write", "find_os_error"]

_NAME = re.compile(r"\..+\.(?P<kernel>[0-9a-f]{8})-[0-9a-f]{16}\.part")
_MAX_NAME_LENGTH = 200  # bytes of a name, which most file systems limit to 255
_UNKNOWN = "0" * 8
_STALE = 24 * 3600  # seconds after which a file is a leftover if its lock cannot be trusted


@contextmanager
def atomic_write(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Provide temporary paths, and rename them to the targets once all files are complete.

    Each temporary file has a random name in the folder of its target and is synced to the disk
    before it is renamed. Processes, containers and machines can therefore write to one path at the
    same time, and a reader sees a complete file from one of them. Temporary files that killed
    writers have left in the folder are removed. After an error, the old files are unchanged.

    Several files are replaced together: a new first file never exists next to an old second one.
    The old second file is removed before the first one is replaced. If the process is killed in
    between, there is no second file.

    Parameters
    ----------
    *paths : Path
        Targets, in one folder that exists. A symbolic link is replaced, not followed.

    Yields
    ------
    tuple of Path
        Empty files to write to, one for each target.

    Raises
    ------
    OSError
        If a file cannot be written or renamed, or a target is a folder.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "forecast.csv")
    ...     with atomic_write(path) as (temporary,):
    ...         _ = temporary.write_text("q0.5")
    ...     path.read_text()
    'q0.5'
    """
    parts: list[_Part] = []
    try:
        for path in paths:
            if path.is_dir() and not path.is_symlink():  # it would be moved away, with its files
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            parts.append(_Part(path))
        for folder in {path.parent for path in paths}:
            _clear_leftovers(folder, now=parts[-1].path.stat().st_mtime)
        yield tuple(part.path for part in parts)
        for part in parts:
            part.finish()
        _replace(parts)
    finally:
        for part in parts:
            part.close()


def find_os_error(error: BaseException | None) -> OSError | None:
    """Find the error of the file system, which an error of torch may hide."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


class _Part:
    """A temporary file, which is locked while its writer is running."""

    def __init__(self, target: Path) -> None:
        self.target = target
        while True:
            self.path = _temporary(target)
            # Not tempfile: only the owner could read its files, whatever the umask.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._descriptor: int | None = os.open(self.path, flags, 0o666)
            if fcntl is None:  # Windows cannot rename an open file
                os.close(self._descriptor)
                self._descriptor = None
                return
            _lock(self._descriptor)
            # Before it was locked, another process may have removed it as a leftover.
            if self.path.exists():
                return
            os.close(self._descriptor)

    def finish(self) -> None:
        """Sync the file to the disk, and copy the permissions of the file that it replaces."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        with suppress(OSError):
            mode = self.target.lstat().st_mode
            if stat.S_ISREG(mode):
                self.path.chmod(stat.S_IMODE(mode))

    def close(self) -> None:
        """Remove the file if it was not renamed."""
        with suppress(OSError):
            self.path.unlink()
        if self._descriptor is not None:
            os.close(self._descriptor)


def _replace(parts: list[_Part]) -> None:
    """Rename the files, after moving the old companions of the first one out of the way."""
    first, *others = parts
    folder = first.target.parent
    with _open_folder(folder) as descriptor:
        if others:  # two writers must not mix their files
            _lock(descriptor)
        moved: list[tuple[Path, Path]] = []
        try:
            for part in others:
                aside = _temporary(part.target)
                with suppress(FileNotFoundError):
                    os.replace(part.target, aside)
                    moved.append((aside, part.target))
            if moved:
                _sync(descriptor)
            os.replace(first.path, first.target)
        except BaseException:
            for aside, target in moved:
                with suppress(OSError):
                    os.replace(aside, target)
            raise
        for part in others:
            os.replace(part.path, part.target)
        _sync(descriptor)
        for aside, _ in moved:
            with suppress(OSError):
                aside.unlink()


@contextmanager
def _open_folder(folder: Path) -> Iterator[int | None]:
    """Provide a descriptor of the folder, or None if it cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # on Windows, or if the folder is writable but not readable
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(descriptor: int | None) -> None:
    """Sync the names in a folder to the disk, where the file system supports it."""
    if descriptor is not None:
        with suppress(OSError):
            os.fsync(descriptor)


def _lock(descriptor: int | None) -> None:
    """Wait for the lock of a file or folder, where the file system supports locks."""
    if fcntl is not None and descriptor is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _temporary(target: Path) -> Path:
    """Choose a random name that identifies the kernel under which the writer runs."""
    name = target.name
    if len(os.fsencode(name)) > _MAX_NAME_LENGTH:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return target.with_name(f".{name}.{_kernel()}-{secrets.token_hex(8)}.part")


def _kernel() -> str:
    """Identify the running kernel, which all containers of a machine share."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return _UNKNOWN
    return hashlib.sha256(boot).hexdigest()[:8]


def _clear_leftovers(folder: Path, now: float) -> None:
    """Remove the temporary files of writers that have died.

    A process id means nothing in another container, but the kernel releases the lock of a writer
    that dies. If locks may be invisible here, for example those of another machine, a file must be
    a day older than the one being written, by the clock of the file system.
    """
    kernel = _kernel()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(OSError):  # it is gone, or belongs to another user
                is_stale = now - entry.stat(follow_symlinks=False).st_mtime > _STALE
                shares_kernel = match["kernel"] == kernel != _UNKNOWN
                if is_stale or shares_kernel:
                    _remove_unlocked(Path(entry.path), is_stale)


def _remove_unlocked(path: Path, is_stale: bool) -> None:
    """Remove a file whose lock is free or, where locks do not exist, one that is stale."""
    if fcntl is None:
        if is_stale:
            path.unlink()
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:  # its writer is running
        pass
    except OSError:  # the file system does not support locks
        if is_stale:
            path.unlink()
    finally:
        os.close(descriptor)
