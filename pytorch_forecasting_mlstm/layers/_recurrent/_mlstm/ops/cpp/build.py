"""Compile the kernel for this processor, once, and load it."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from .cache import load_cached

__all__ = ["build"]

_SOURCE = Path(__file__).with_name("recurrence.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_FUNCTIONS = ("run_float", "run_double", "stabilize_float", "stabilize_double")
_SECONDS = 300
_LONGEST = 1000  # characters of a message


def build() -> ctypes.CDLL:
    """Return the kernel, from the cache of the user if it has been compiled before."""
    compiler = _compiler()
    # what the compiler defines says which it is, and for which processor it compiles
    about = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    made_of = "\0".join([about, *_FLAGS, _SOURCE.read_text(encoding="utf-8")])
    name = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    folder = _cache()
    try:
        return load_cached(folder, f"recurrence-{name}.so", _FUNCTIONS, partial(_compile, compiler))
    except OSError as error:
        raise RuntimeError(
            f"use_kernel: cannot keep the kernel in {folder}, or load it from there: "
            f"{_one_line(error)}. Another folder can be named in XDG_CACHE_HOME; without a kernel "
            "the layers compute in PyTorch."
        ) from error


def _compile(compiler: list[str], made: Path) -> None:
    """Compile the kernel into the file ``made``."""
    _run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(made)])
    if not made.is_file() or not made.stat().st_size:
        raise _failure(compiler[0], "it reported success, but wrote no library")


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
    try:
        commands = [shlex.split(given)] if given else [["c++"], ["g++"], ["clang++"]]
    except ValueError as error:
        raise RuntimeError(
            f"use_kernel: CXX must name a C++ compiler, got {given[:_LONGEST]!r}: {error}. Correct "
            "or unset it; without a kernel the layers compute in PyTorch."
        ) from error
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
            if not above.is_absolute():
                raise RuntimeError(f"HOME is not an absolute path: {str(Path.home())!r}.")
        except RuntimeError as error:
            raise RuntimeError(
                f"use_kernel: there is no folder to keep the kernel in: {error} Name one in "
                "XDG_CACHE_HOME."
            ) from error
    return above / "pytorch_forecasting_mlstm"


def _run(command: list[str]) -> str:
    """Run a compiler, and return what it prints."""
    try:
        done = subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # a compiler may print in any encoding
            timeout=_SECONDS,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None)
        raise _failure(
            command[0], stderr if isinstance(stderr, str) and stderr else error
        ) from None
    return done.stdout


def _failure(compiler: str, reason: object) -> RuntimeError:
    return RuntimeError(
        f"use_kernel: {compiler} could not compile the kernel. Another compiler can be named in "
        f"CXX; without a kernel the layers compute in PyTorch. It says: {_one_line(reason)}"
    )


def _one_line(reason: object) -> str:
    """Put a message into one line: the first words of a long one say what is wrong."""
    line = " ".join(str(reason).split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
    return "".join(mark if mark.isprintable() else "?" for mark in line)
