"""Keep a compiled library in a folder that only its user can write to, and load it from there.

Loading a library runs code. Its digest shows that it is complete, but not who wrote it. The owner
and the mode of the file, and of every folder on its path, show that no other user can have.
"""

import ctypes
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["load_cached"]

_DIGEST = hashlib.sha256().digest_size
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS = 40  # on the path of a folder, as in Linux


def load_cached(
    folder: Path, name: str, functions: Sequence[str], make: Callable[[Path], None]
) -> ctypes.CDLL:
    """Load a library, after making it if it is missing or incomplete.

    Parameters
    ----------
    folder : Path
        Folder of the library; created with mode 0700.
    name : str
        File name of the library.
    functions : sequence of str
        Functions that the library must contain.
    make : callable
        Function that writes the library to a path.

    Raises
    ------
    OSError
        If another user could have written the library, or it cannot be made or loaded.
    """
    _check_path(folder.parent)
    _create(folder)
    _check(folder, stat.S_ISDIR, {os.getuid()})
    # From here on nobody else can replace a file that has been checked.
    library = folder / name
    if os.path.lexists(library):
        _check(library, stat.S_ISREG, {os.getuid()})
        if _is_intact(library):
            try:
                return _load(library, functions)
            except OSError as error:
                raise OSError(f"{error}; delete {library}") from error
    return _make(library, functions, make)


def _make(library: Path, functions: Sequence[str], make: Callable[[Path], None]) -> ctypes.CDLL:
    """Make the library, append its digest, load it, and keep it only if that succeeds.

    Concurrent processes write separate files, and the last one remains.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        new = Path(scratch) / library.name
        make(new)
        new.chmod(0o600)  # whatever the umask
        with new.open("ab") as file:
            file.write(_digest(new.read_bytes()))
            file.flush()
            os.fsync(file.fileno())
        try:
            loaded = _load(new, functions)
        except OSError as error:
            raise OSError(
                f"the compiled library cannot be loaded ({error}); name another compiler in CXX"
            ) from error
        new.replace(library)
        return loaded


def _load(library: Path, functions: Sequence[str]) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    for function in functions:
        if not hasattr(loaded, function):
            raise OSError(f"{library.name} lacks the function {function}")
    return loaded


def _is_intact(library: Path) -> bool:
    """Whether the library is complete: loading a truncated one would crash."""
    content = library.read_bytes()
    return content[-_DIGEST:] == _digest(content[:-_DIGEST])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _create(folder: Path) -> None:
    """Create a folder and its parents with mode 0700, whatever the umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            with suppress(FileExistsError):  # another process was faster
                path.mkdir(mode=0o700)
                path.chmod(0o700)


def _check_path(path: Path, links: int = 0) -> None:
    """Raise if anyone but the user and root can change where a path leads.

    A world-writable folder is accepted if its sticky bit keeps users from renaming the files of
    others, as in ``/tmp``.
    """
    if links > _MAX_LINKS:
        raise OSError(f"too many links on the way to {path}")
    for above in (*reversed(path.parents), path):
        if above.is_symlink():
            _check(above, stat.S_ISLNK, {0, os.getuid()})
            _check_path(above.parent / os.readlink(above), links + 1)
        elif above.exists():
            _check(above, stat.S_ISDIR, {0, os.getuid()}, accept_sticky=True)


def _check(
    path: Path, is_kind: Callable[[int], bool], owners: set[int], *, accept_sticky: bool = False
) -> None:
    """Raise unless a path is of this kind, and only these owners could have written to it."""
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not is_kind(status.st_mode):
        expected = "folder" if is_kind is stat.S_ISDIR else "file"
        raise OSError(f"{path} is not a {expected} (it may be a link to one); delete or rename it")
    if status.st_uid not in owners:
        raise PermissionError(
            f"{path} belongs to user {status.st_uid}, not to user {os.getuid()}, and its owner "
            "could put anything there; delete it or use a folder of your own"
        )
    if stat.S_ISLNK(status.st_mode):  # a link has no mode of its own
        return
    if mode & _OTHERS_WRITE and not (accept_sticky and mode & stat.S_ISVTX):
        hint = f"chmod go-w {path}" if accept_sticky else "delete it"
        raise PermissionError(
            f"other users can write to {path} (mode {mode:04o}), and could put anything there; "
            f"{hint}"
        )
