"""Compile the kernel for this processor, once, and load it."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["build"]

_SOURCE = Path(__file__).with_name("recurrence.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_SECONDS = 300
_DIGEST = hashlib.sha256().digest_size


def build() -> ctypes.CDLL:
    """Return the kernel, from the cache of the user if it has been compiled before."""
    compiler = _compiler()
    # what the compiler defines says which it is, and for which processor it compiles
    about = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    made_of = "\0".join([about, *_FLAGS, _SOURCE.read_text(encoding="utf-8")])
    name = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    folder = _cache()
    library = folder / f"recurrence-{name}.so"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError("it belongs to another user, who could put anything there")
        if not _is_whole(library):
            _compile(compiler, library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise RuntimeError(
            f"use_kernel: cannot keep the kernel in {folder}, or load it from there: {error}. "
            "Another folder can be named in XDG_CACHE_HOME; without a kernel the layers compute in "
            "PyTorch."
        ) from error


def _compile(compiler: list[str], library: Path) -> None:
    """Compile the kernel, with its digest at the end.

    Processes may do this at once: each writes a file of its own, and the last one stays.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        _run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(made)])
        with made.open("ab") as file:
            file.write(_digest(made.read_bytes()))
            file.flush()
            os.fsync(file.fileno())
        made.replace(library)


def _is_whole(library: Path) -> bool:
    """Whether the library is there, and nothing of it is missing: to load a part would be fatal."""
    if not library.exists():
        return False
    content = library.read_bytes()
    return content[-_DIGEST:] == _digest(content[:-_DIGEST])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _compiler() -> list[str]:
    """Return the command of a compiler."""
    if sys.platform != "linux":
        raise RuntimeError(
            f"use_kernel: the kernel is for Linux, this is {sys.platform}; without it the layers "
            "compute in PyTorch."
        )
    given = os.environ.get("CXX", "").strip()
    if given and shutil.which(given):
        return [given]
    commands = [shlex.split(given)] if given else [["c++"], ["g++"], ["clang++"]]
    for command in commands:
        if shutil.which(command[0]):
            return command
    named = ", ".join(command[0] for command in commands)
    raise RuntimeError(
        f"use_kernel: found no C++ compiler, looked for {named}. Install GCC, or name a compiler "
        "in CXX; without it the layers compute in PyTorch."
    )


def _cache() -> Path:
    """Return where the user's kernels are kept, by the rules of XDG."""
    above = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not above.is_absolute():
        try:
            above = Path.home() / ".cache"
        except RuntimeError as error:
            raise RuntimeError(
                f"use_kernel: there is no folder to keep the kernel in: {error} Name one in "
                "XDG_CACHE_HOME."
            ) from error
    return above / "pytorch_forecasting_mlstm"


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise RuntimeError(
            f"use_kernel: {command[0]} could not compile the kernel. Another compiler can be named "
            f"in CXX; without a kernel the layers compute in PyTorch. It says:\n{said}"
        ) from None
