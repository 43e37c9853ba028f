"""Keep a compiled library in a folder that only its user writes to, and load it from there.

To load a library is to run it. Its digest says that it is whole, not who wrote it; that nobody else
did follows from the owners and modes of the file and of every folder on the way to it.
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
_MOST_LINKS = 40  # on the way to a folder, as for Linux


def load_cached(
    folder: Path, name: str, functions: Sequence[str], make: Callable[[Path], None]
) -> ctypes.CDLL:
    """Load a library, made first if it is not there or not whole.

    Parameters
    ----------
    folder : Path
        Where it is kept; created with mode 0700.
    name : str
        The file in it.
    functions : sequence of str
        What it must hold.
    make : callable
        Writes the library to a path.

    Raises
    ------
    OSError
        If somebody else could have written the library, or it cannot be made or loaded.
    """
    _check_way(folder.parent)
    _create(folder)
    _check(folder, stat.S_ISDIR, {os.getuid()})
    # From here on nobody else can put another file into the place of one that has been checked.
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
    """Make and load the library, with its digest at the end; keep it only if it can be loaded.

    Processes may do this at once: each writes a file of its own, and the last one stays.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        make(made)
        made.chmod(0o600)  # whatever the umask
        with made.open("ab") as file:
            file.write(_digest(made.read_bytes()))
            file.flush()
            os.fsync(file.fileno())
        try:
            loaded = _load(made, functions)
        except OSError as error:
            raise OSError(
                f"what was compiled cannot be loaded ({error}); another compiler can be named in "
                "CXX"
            ) from error
        made.replace(library)
        return loaded


def _load(library: Path, functions: Sequence[str]) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    for function in functions:
        if not hasattr(loaded, function):
            raise OSError(f"{library.name} lacks the function {function}")
    return loaded


def _is_intact(library: Path) -> bool:
    """Whether nothing of the library is missing: to load a part would be fatal."""
    content = library.read_bytes()
    return content[-_DIGEST:] == _digest(content[:-_DIGEST])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _create(folder: Path) -> None:
    """Create a folder and those above it, for the user alone, whatever the umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            with suppress(FileExistsError):  # another process was faster
                path.mkdir(mode=0o700)
                path.chmod(0o700)


def _check_way(path: Path, links: int = 0) -> None:
    """Raise if anybody but the user and the administrator can change where a path leads to.

    A folder that all may write to will do if its sticky bit keeps them from renaming what belongs
    to others, as that of ``/tmp`` does.
    """
    if links > _MOST_LINKS:
        raise OSError(f"too many links on the way to {path}")
    for above in (*reversed(path.parents), path):
        if above.is_symlink():
            _check(above, stat.S_ISLNK, {0, os.getuid()})
            _check_way(above.parent / os.readlink(above), links + 1)
        elif above.exists():
            _check(above, stat.S_ISDIR, {0, os.getuid()}, sticky_will_do=True)


def _check(
    path: Path, is_kind: Callable[[int], bool], owners: set[int], *, sticky_will_do: bool = False
) -> None:
    """Raise unless a path is of this kind, and only these users could have written to it."""
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not is_kind(found.st_mode):
        expected = "folder" if is_kind is stat.S_ISDIR else "file"
        raise OSError(f"{path} is no {expected} (but perhaps a link to one); delete or rename it")
    if found.st_uid not in owners:
        raise PermissionError(
            f"{path} belongs to the user {found.st_uid}, not to {os.getuid()}, and who it belongs "
            "to could put anything there; delete it or use a folder of your own"
        )
    if stat.S_ISLNK(found.st_mode):  # which has no mode of its own
        return
    if mode & _OTHERS_WRITE and not (sticky_will_do and mode & stat.S_ISVTX):
        mend = f"chmod go-w {path}" if sticky_will_do else "delete it"
        raise PermissionError(
            f"others may write to {path} (mode {mode:04o}), and could put anything there; {mend}"
        )
