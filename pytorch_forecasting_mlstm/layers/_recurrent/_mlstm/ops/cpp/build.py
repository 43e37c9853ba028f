"""Compile the kernel for this processor once, and load it."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from ......_messages import one_line
from .cache import load_cached

__all__ = ["build"]

_SOURCE = Path(__file__).with_name("recurrence.cpp")  # includes the headers beside it
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_FUNCTIONS = (
    *("run_float", "run_double", "stabilize_float", "stabilize_double"),
    *("step_float", "step_double"),
)
_TIMEOUT = 300  # seconds
_MAX_LENGTH = 1000  # characters of a message


def build() -> ctypes.CDLL:
    """Return the kernel, from the user's cache if it has been compiled before."""
    compiler = _compiler()
    name, folder = _library_name(compiler), _cache_folder()
    try:
        return load_cached(folder, name, _FUNCTIONS, partial(_compile, compiler))
    except OSError as error:
        raise RuntimeError(
            f"use_kernel: cannot keep the kernel in {folder}, or load it from there: "
            f"{one_line(error, _MAX_LENGTH)}. Name another folder in XDG_CACHE_HOME; without a "
            "kernel the layers compute in PyTorch."
        ) from error


def _library_name(compiler: list[str]) -> str:
    """Return a name that changes with the compiler, the processor, the flags and the source."""
    # The predefined macros identify the compiler and its target processor.
    macros = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    sources = [_SOURCE, *sorted(_SOURCE.parent.glob("*.h"))]
    contents = [source.read_text(encoding="utf-8") for source in sources]
    cache_key = "\0".join([macros, *_FLAGS, *contents])
    return f"recurrence-{hashlib.sha256(cache_key.encode()).hexdigest()[:32]}.so"


def _compile(compiler: list[str], library: Path) -> None:
    """Compile the kernel to a library."""
    _run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(library)])
    if not library.is_file() or not library.stat().st_size:
        raise _failure(compiler[0], "it reported success, but wrote no library")


def _compiler() -> list[str]:
    """Return the command of a C++ compiler."""
    if sys.platform != "linux":
        raise RuntimeError(
            f"use_kernel: the kernel runs on Linux only, this is {sys.platform}; layers compute in "
            "PyTorch without it."
        )
    configured = os.environ.get("CXX", "").strip()
    if configured and shutil.which(configured):
        return [configured]
    try:
        commands = [shlex.split(configured)] if configured else [["c++"], ["g++"], ["clang++"]]
    except ValueError as error:
        raise RuntimeError(
            f"use_kernel: CXX must name a C++ compiler, got {configured[:_MAX_LENGTH]!r}: {error}. "
            "Correct or unset it; without a kernel the layers compute in PyTorch."
        ) from error
    for command in commands:
        if shutil.which(command[0]):
            return command
    names = ", ".join(command[0] for command in commands)
    raise RuntimeError(
        f"use_kernel: found no C++ compiler, looked for {names}. Install GCC, or name a compiler "
        "in CXX; without a kernel the layers compute in PyTorch."
    )


def _cache_folder() -> Path:
    """Return the folder of the user's compiled kernels, as XDG specifies it."""
    parent = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not parent.is_absolute():
        try:
            parent = Path.home() / ".cache"
            if not parent.is_absolute():
                raise RuntimeError(f"HOME is not an absolute path: {str(Path.home())!r}.")
        except RuntimeError as error:
            raise RuntimeError(
                f"use_kernel: there is no folder to keep the kernel in: {error} Name one in "
                "XDG_CACHE_HOME."
            ) from error
    return parent / "pytorch_forecasting_mlstm"


def _run(command: list[str]) -> str:
    """Run a compiler, and return its output."""
    try:
        completed = subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # a compiler may print in any encoding
            timeout=_TIMEOUT,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None)
        raise _failure(
            command[0], stderr if isinstance(stderr, str) and stderr else error
        ) from None
    return completed.stdout


def _failure(compiler: str, reason: object) -> RuntimeError:
    return RuntimeError(
        f"use_kernel: {compiler} could not compile the kernel. Name another compiler in CXX; "
        "without a kernel the layers compute in PyTorch. The error: "
        f"{one_line(reason, _MAX_LENGTH)}"
    )
