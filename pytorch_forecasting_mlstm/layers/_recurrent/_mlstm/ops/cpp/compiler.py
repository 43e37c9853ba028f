"""Run a C++ compiler on the sources of the kernel.

This module needs nothing but the standard library, since building a wheel runs it, too.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "INSTRUCTION_SETS",
    "CompilerError",
    "compile_kernel",
    "find_compiler",
    "instruction_sets",
    "predefined_macros",
    "source_digest",
]

_SOURCE = Path(__file__).with_name("recurrence.cpp")  # includes the headers beside it
# -Wno-psabi: no function of the kernel passes vectors to another library.
_FLAGS = ("-std=c++17", "-O3", "-fopenmp-simd", "-fPIC", "-shared", "-s", "-Wno-psabi")
_TIMEOUT = 600  # seconds
_MAX_LENGTH = 200  # characters of a setting that a message quotes

_AVX2 = ("-mavx2", "-mfma")
#: What a wheel has libraries for: instruction sets and their flags, the widest vectors first.
INSTRUCTION_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512": (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
        "avx2": _AVX2,
        "baseline": (),
    }
}


class CompilerError(RuntimeError):
    """There is no compiler, or it cannot compile the kernel; the message is a clause."""


def instruction_sets(machine: str) -> dict[str, tuple[str, ...]]:
    """Return the instruction sets of a machine; others than x86 have one, such as NEON on ARM."""
    return INSTRUCTION_SETS.get(machine, {"baseline": ()})


def source_digest() -> str:
    """Return a digest that changes with the sources and the flags."""
    sources = [_SOURCE, *sorted(_SOURCE.parent.glob("*.h"))]
    flags = [*_FLAGS, repr(INSTRUCTION_SETS)]
    try:
        contents = [source.read_bytes() for source in sources]
    except OSError as error:
        raise CompilerError("the sources of the kernel cannot be read; install again") from error
    parts = [*(flag.encode() for flag in flags), *contents]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def find_compiler() -> list[str]:
    """Return the command of a C++ compiler."""
    if sys.platform != "linux":
        raise CompilerError(f"the kernel runs on Linux only, and this is {sys.platform}")
    configured = os.environ.get("CXX", "").strip()
    if configured and shutil.which(configured):
        return [configured]
    try:
        commands = [shlex.split(configured)] if configured else [["c++"], ["g++"], ["clang++"]]
    except ValueError as error:
        raise CompilerError(
            f"CXX must name a C++ compiler, got {configured[:_MAX_LENGTH]!r} ({error}); correct or "
            "unset it"
        ) from error
    for command in commands:
        if shutil.which(command[0]):
            return command
    names = ", ".join(command[0] for command in commands)
    raise CompilerError(
        f"found no C++ compiler, looked for {names}; install GCC, or name a compiler in CXX"
    )


def predefined_macros(compiler: Sequence[str], flags: Sequence[str]) -> str:
    """Return what identifies the compiler and the processor for which it compiles."""
    return _run([*compiler, *flags, "-dM", "-E", "-x", "c++", os.devnull])


def compile_kernel(compiler: Sequence[str], flags: Sequence[str], library: Path) -> None:
    """Compile the kernel to a library, with flags that choose the instructions."""
    _run([*compiler, *_FLAGS, *flags, str(_SOURCE), "-o", str(library)])
    if not library.is_file() or not library.stat().st_size:
        raise _failure(compiler[0], "it reported success, but wrote no library")


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


def _failure(compiler: str, reason: object) -> CompilerError:
    return CompilerError(
        f"{compiler} could not compile the kernel; name another compiler in CXX; the error: "
        f"{reason}"
    )
