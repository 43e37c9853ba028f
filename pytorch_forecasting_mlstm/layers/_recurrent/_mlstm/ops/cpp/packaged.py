"""The compiled libraries of a wheel: one for each instruction set, and a manifest.

The manifest binds the libraries to the sources from which they were compiled, and has their
digests. This module needs nothing but the standard library, since building a wheel runs it, too.
"""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .compiler import (
    CompilerError,
    compile_kernel,
    find_compiler,
    instruction_sets,
    source_digest,
)

__all__ = [
    "FOLDER",
    "CompilerError",
    "LibraryError",
    "NoLibraryError",
    "PackagedLibrary",
    "are_current",
    "find_packaged",
    "write_libraries",
]

#: The folder in the package. Git ignores it: only an editable installation writes to it.
FOLDER = Path(__file__).with_name("libraries")
_MANIFEST = "manifest.json"


class LibraryError(RuntimeError):
    """There is no library that can be used; the message is a clause that says why."""


class NoLibraryError(LibraryError):
    """The package has no library for this machine, and another one can be compiled."""


class PackagedLibrary(NamedTuple):
    """A library whose content is the one that was compiled."""

    path: Path
    instruction_set: str
    digest: str


def write_libraries(folder: Path, machine: str) -> list[Path]:
    """Compile a library for each instruction set of a machine, and write a manifest.

    Each file is replaced as a whole, so that running processes keep what they have loaded.
    """
    compiler = find_compiler()
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    with TemporaryDirectory(dir=folder) as scratch:
        for instruction_set, flags in instruction_sets(machine).items():
            library = Path(scratch, _file_name(instruction_set))
            compile_kernel(compiler, flags, library)
            digests[instruction_set] = _digest(library)
        manifest = Path(scratch, _MANIFEST)
        content = {"sources": source_digest(), "libraries": digests}
        manifest.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        written = [path.replace(folder / path.name) for path in sorted(Path(scratch).iterdir())]
    return written


def find_packaged(capability: str) -> PackagedLibrary:
    """Return the library for a processor, after a comparison with the manifest.

    ``capability`` names the instructions that torch uses, such as ``"AVX2"``.
    """
    digests = _read_digests()
    instruction_set = next((name for name in _usable(capability) if name in digests), None)
    if instruction_set is None:
        raise NoLibraryError(f"no library is compiled for the instructions of {capability}")
    path = FOLDER / _file_name(instruction_set)
    try:
        digest = _digest(path)
    except OSError as error:
        raise LibraryError(f"{path} cannot be read; install again") from error
    if digest != digests[instruction_set]:
        raise LibraryError(f"{path} is not the file that was compiled; install again")
    return PackagedLibrary(path, instruction_set, digest)


def are_current(machine: str) -> bool:
    """Whether the package has all libraries of a machine, compiled from the present sources."""
    try:
        digests = _read_digests()
        found = {name: _digest(FOLDER / _file_name(name)) for name in instruction_sets(machine)}
    except (LibraryError, OSError):
        return False
    return found == digests


def _read_digests() -> dict[str, str]:
    """Return the digest of the library for each instruction set."""
    try:
        manifest = json.loads((FOLDER / _MANIFEST).read_text(encoding="utf-8"))
        sources, digests = str(manifest["sources"]), dict(manifest["libraries"])
    except FileNotFoundError as error:
        raise NoLibraryError("this installation has no compiled library") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LibraryError(f"{FOLDER / _MANIFEST} cannot be read; install again") from error
    try:
        present = source_digest()
    except CompilerError as error:
        raise LibraryError(str(error)) from error
    if sources != present:
        raise LibraryError(
            "the compiled libraries belong to other sources than those installed; install again"
        )
    return digests


def _usable(capability: str) -> tuple[str, ...]:
    """Return the instruction sets that a processor has, the best one first."""
    if capability.startswith("AVX512"):
        return "avx512", "avx2", "baseline"
    if capability == "AVX2":
        return "avx2", "baseline"
    return ("baseline",)


def _file_name(instruction_set: str) -> str:
    return f"recurrence-{instruction_set}.so"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
