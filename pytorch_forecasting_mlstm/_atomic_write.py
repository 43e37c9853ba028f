"""Files that appear whole or not at all, whoever else writes to the folder."""

from __future__ import annotations

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

# Windows has none
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

__all__ = ["atomic_write"]

_NAME = re.compile(r"\..+\.(?P<kernel>[0-9a-f]{8})-[0-9a-f]{16}\.part")
_LONGEST = 200  # bytes of a name, which most file systems limit to 255
_UNKNOWN = "0" * 8
_STALE = 24 * 3600  # seconds after which a file without a lock that can be trusted is a leftover


@contextmanager
def atomic_write(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Give temporary paths beside some paths, and rename them once they are complete.

    Each temporary file has a random name in the folder of its target and is synced to the disk
    before it is renamed, so that processes, containers and machines can write to one path at once:
    a reader sees a complete file of one of them. Temporary files that killed writers have left in
    the folder are removed. After an error the old files are as they were.

    Several files belong together: no new first file ever stands beside an old second one. The old
    second file is removed before the first is replaced, and a killed process leaves none of that
    name.

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
        A file cannot be written or renamed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "forecast.csv")
    ...     with atomic_write(path) as (part,):
    ...         _ = part.write_text("q0.5")
    ...     path.read_text()
    'q0.5'
    """
    parts: list[_Part] = []
    try:
        for path in paths:
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


class _Part:
    """A temporary file, locked for as long as its writer lives."""

    def __init__(self, target: Path) -> None:
        self.target = target
        while True:
            self.path = _temporary(target)
            # not tempfile, whose files only their owner can read, whatever the umask says
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._descriptor: int | None = os.open(self.path, flags, 0o666)
            if fcntl is None:  # Windows renames no file that is open
                os.close(self._descriptor)
                self._descriptor = None
                return
            _lock(self._descriptor)
            # between creation and lock another process may have taken it for a leftover
            if self.path.exists():
                return
            os.close(self._descriptor)

    def finish(self) -> None:
        """Sync the file to the disk, and give it the permissions of the file that it replaces."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        with suppress(OSError):
            old = self.target.lstat()
            if stat.S_ISREG(old.st_mode):
                self.path.chmod(stat.S_IMODE(old.st_mode))

    def close(self) -> None:
        """Remove the file if it was not renamed."""
        with suppress(OSError):
            self.path.unlink()
        if self._descriptor is not None:
            os.close(self._descriptor)


def _replace(parts: list[_Part]) -> None:
    """Rename the files: what belongs to the old first one is moved out of the way before."""
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
    """Give a descriptor of the folder, or None where there is none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows, or a folder that may be written to, but not listed
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(descriptor: int | None) -> None:
    """Bring the names of a folder to the disk, where the file system can."""
    if descriptor is not None:
        with suppress(OSError):
            os.fsync(descriptor)


def _lock(descriptor: int | None) -> None:
    """Wait for the lock of a file or folder, where the file system has locks."""
    if fcntl is not None and descriptor is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _temporary(target: Path) -> Path:
    """Choose a random name, which tells the kernel that runs the writer."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return target.with_name(f".{name}.{_kernel()}-{secrets.token_hex(8)}.part")


def _kernel() -> str:
    """Name the running kernel, which all containers of a machine share."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return _UNKNOWN
    return hashlib.sha256(boot).hexdigest()[:8]


def _clear_leftovers(folder: Path, now: float) -> None:
    """Remove temporary files of writers that are dead.

    A process id says nothing in another container, but the kernel releases the lock of a writer
    that dies. Where locks may not be seen from here, from another machine for example, a file must
    be a day older than the one being written, by the clock of the file system.
    """
    kernel = _kernel()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(OSError):  # it is gone, or of another user
                old = now - entry.stat(follow_symlinks=False).st_mtime > _STALE
                here = match["kernel"] == kernel != _UNKNOWN
                if old or here:
                    _remove_unlocked(Path(entry.path), old)


def _remove_unlocked(path: Path, old: bool) -> None:
    """Remove a file whose lock is free, or which is old where there are no locks."""
    if fcntl is None:
        if old:
            path.unlink()
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:  # its writer lives
        pass
    except OSError:  # a file system without locks
        if old:
            path.unlink()
    finally:
        os.close(descriptor)
