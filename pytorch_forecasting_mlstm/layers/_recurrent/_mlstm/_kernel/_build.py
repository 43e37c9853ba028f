"""Compile the kernel for this processor, once, and load it."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["build"]

_SOURCE = Path(__file__).with_name("recurrence.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_SECONDS = 300


def build() -> ctypes.CDLL:
    """Return the kernel, from the cache of the user if it has been compiled before."""
    compiler = _compiler()
    # what the compiler defines says which it is, and for which processor it compiles
    about = _run([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    made_of = "\0".join([about, *_FLAGS, _SOURCE.read_text(encoding="utf-8")])
    name = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    folder = _cache()
    library = folder / f"recurrence-{name}.so"
    try:
        if not library.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # processes may do this at once: each writes a file of its own, and the last one stays
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch) / library.name
                _run([compiler, *_FLAGS, str(_SOURCE), "-o", str(made)])
                made.replace(library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise RuntimeError(
            f"use_kernel: cannot keep the kernel in {folder}: {error}. Another folder can be named "
            "in XDG_CACHE_HOME; without a kernel the layers compute in PyTorch."
        ) from error


def _compiler() -> str:
    if sys.platform != "linux":
        raise RuntimeError(
            f"use_kernel: the kernel is for Linux, this is {sys.platform}; without it the layers "
            "compute in PyTorch."
        )
    given = os.environ.get("CXX")
    names = [given] if given else ["c++", "g++", "clang++"]
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise RuntimeError(
        f"use_kernel: no C++ compiler, neither {' nor '.join(names)}. Install GCC, or name a "
        "compiler in CXX; without it the layers compute in PyTorch."
    )


def _cache() -> Path:
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "pytorch_forecasting_mlstm"


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
