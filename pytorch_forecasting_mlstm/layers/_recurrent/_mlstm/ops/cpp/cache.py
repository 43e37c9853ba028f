"""Keep compiled libraries, and what is known of them, in a folder that only its user can write to.

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
from typing import NamedTuple

__all__ = [
    "CachedLibrary",
    "IncompleteLibraryError",
    "cache_folder",
    "check_cache",
    "has_note",
    "load_cached",
    "load_functions",
    "newest_cached",
    "write_note",
]

_DIGEST = hashlib.sha256().digest_size
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_NAME_A_FOLDER = "name an existing folder in XDG_CACHE_HOME"
_HAS_OWNERS = hasattr(os, "getuid")  # not on Windows: there, nothing tells who wrote a file
_MAX_LINKS = 40  # on the path of a folder, as in Linux


class CachedLibrary(NamedTuple):
    """A loaded library, and the digest of its content."""

    functions: ctypes.CDLL
    digest: str


class IncompleteLibraryError(OSError):
    """A library of the cache is missing or incomplete, and must be compiled again."""


def cache_folder() -> Path:
    """Return the folder of the user's compiled kernels, as XDG specifies it."""
    parent = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not parent.is_absolute():
        try:
            parent = Path.home() / ".cache"
        except RuntimeError as error:
            raise OSError(
                "there is no folder to keep the kernel in: "
                f"{str(error).rstrip('.')}; {_NAME_A_FOLDER}"
            ) from error
        if not parent.is_absolute():
            raise OSError(
                "there is no folder to keep the kernel in: HOME is not an absolute path: "
                f"{str(Path.home())!r}; {_NAME_A_FOLDER}"
            )
    return parent / "pytorch_forecasting_mlstm"


def load_cached(
    folder: Path,
    name: str,
    functions: Sequence[str],
    make: Callable[[Path], None] | None = None,
) -> CachedLibrary:
    """Load a library, after making it if it is missing or incomplete.

    Parameters
    ----------
    folder : Path
        Folder of the library; created with mode 0700.
    name : str
        File name of the library.
    functions : sequence of str
        Functions that the library must contain.
    make : callable, optional
        Function that writes the library to a path. Without one, the library must be there.

    Raises
    ------
    OSError
        If another user could have written the library, or it cannot be made or loaded.
    """
    _make_private(folder)
    library = folder / name
    if os.path.lexists(library):
        _check(library, stat.S_ISREG, {os.getuid()})
        content = library.read_bytes()
        if _is_intact(content):
            try:
                return CachedLibrary(load_functions(library, functions), _digest(content).hex())
            except OSError as error:
                raise OSError(f"{error}; delete {library}") from error
    if make is None:
        raise IncompleteLibraryError(f"{library} is missing or incomplete")
    return _make(library, functions, make)


def newest_cached(folder: Path, prefix: str) -> str | None:
    """Return the name of the newest library whose name begins like this, if there is one."""
    paths = [path for path in folder.glob("*.so") if path.name.startswith(prefix)]
    return max(paths, key=lambda path: path.lstat().st_mtime).name if paths else None


def check_cache() -> None:
    """Raise an OSError unless a library can be written to the user's cache; write nothing."""
    folder = cache_folder()
    _check_path(folder.parent)
    missing = _missing(folder)
    if not missing:
        _check(folder, stat.S_ISDIR, {os.getuid()})
    existing = missing[0].parent if missing else folder
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written to; {_NAME_A_FOLDER}")


def has_note(name: str) -> bool:
    """Whether ``write_note`` has written this note, and no other user can have."""
    if not _HAS_OWNERS:
        return False
    try:
        folder = cache_folder()
        note = folder / name
        if not note.is_file():
            return False
        _make_private(folder)
        _check(note, stat.S_ISREG, {os.getuid()})
    except OSError:
        return False
    return True


def write_note(name: str) -> None:
    """Write an empty file to the user's cache, if that is possible."""
    if not _HAS_OWNERS:
        return
    with suppress(OSError):
        folder = cache_folder()
        _make_private(folder)
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600))


def load_functions(library: Path, functions: Sequence[str]) -> ctypes.CDLL:
    """Load a library that must contain these functions."""
    loaded = ctypes.CDLL(str(library))
    for function in functions:
        if not hasattr(loaded, function):
            raise OSError(f"{library.name} lacks the function {function}")
    return loaded


def _make(library: Path, functions: Sequence[str], make: Callable[[Path], None]) -> CachedLibrary:
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
            loaded = load_functions(new, functions)
        except OSError as error:
            raise OSError(
                f"the compiled library cannot be loaded ({error}); name another compiler in CXX"
            ) from error
        digest = _digest(new.read_bytes()).hex()
        new.replace(library)
        return CachedLibrary(loaded, digest)


def _is_intact(content: bytes) -> bool:
    """Whether a library is complete: loading a truncated one would crash."""
    return content[-_DIGEST:] == _digest(content[:-_DIGEST])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _make_private(folder: Path) -> None:
    """Create a folder, and raise unless nobody else can replace a file in it once it is checked."""
    _check_path(folder.parent)
    _create(folder)
    _check(folder, stat.S_ISDIR, {os.getuid()})


def _create(folder: Path) -> None:
    """Create the folder and the cache of all programs above it, with mode 0700 whatever the umask.

    What is above the cache is not created: a missing home directory is missing on purpose.
    """
    for path in _missing(folder):
        with suppress(FileExistsError):  # another process was faster
            path.mkdir(mode=0o700)
            path.chmod(0o700)


def _missing(folder: Path) -> list[Path]:
    """Return which of the folder and its parent must be created; the one above must exist."""
    above = folder.parent.parent
    if not above.is_dir():
        raise FileNotFoundError(f"the folder {above} does not exist; {_NAME_A_FOLDER}")
    return [path for path in (folder.parent, folder) if not path.exists()]


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
