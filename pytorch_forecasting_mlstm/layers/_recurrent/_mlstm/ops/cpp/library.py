"""The library of the kernel: from the package, from the user's cache, or compiled on request."""

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import torch

from ......_messages import one_line
from .cache import (
    CachedLibrary,
    IncompleteLibraryError,
    cache_folder,
    check_cache,
    load_cached,
    load_functions,
    newest_cached,
)
from .compiler import (
    CompilerError,
    compile_kernel,
    find_compiler,
    predefined_macros,
    source_digest,
)
from .packaged import LibraryError, NoLibraryError, find_packaged
from .processor import processor

__all__ = ["Library", "build_library", "existing_library"]

_FUNCTIONS = (
    *("run_float", "run_double", "stabilize_float", "stabilize_double"),
    *("step_float", "step_double", "set_parallel_region"),
)
_NATIVE = ("-march=native",)
_COMPILED = "the library that was compiled for this processor"
_NAMES = {"avx512": "AVX-512", "avx2": "AVX2"}
_WITHOUT = "without a kernel the layers compute in PyTorch."
_MAX_LENGTH = 1200  # characters of a message


class Library(NamedTuple):
    """A loaded library.

    Attributes
    ----------
    functions : ctypes.CDLL
        Its functions.
    digest : str
        SHA-256 of its content.
    description : str
        What it is, as part of a sentence.
    """

    functions: ctypes.CDLL
    digest: str
    description: str


@cache
def existing_library() -> Library:
    """Load the library of the package, or else one that ``use_kernel()`` has compiled before.

    Raises
    ------
    LibraryError
        If there is none. The message says why.
    """
    try:
        return _packaged_library()
    except LibraryError as error:
        in_package = error
    try:
        folder = cache_folder()
        name = newest_cached(folder, _cache_prefix())
        if name is not None:
            return _compiled_library(load_cached(folder, name, _FUNCTIONS))
    except IncompleteLibraryError as error:
        raise LibraryError(f"{one_line(error, _MAX_LENGTH)}; {_how_to_compile()}") from error
    except (CompilerError, OSError) as error:
        raise LibraryError(f"{in_package}; {one_line(error, _MAX_LENGTH)}") from error
    if isinstance(in_package, NoLibraryError):
        raise LibraryError(f"{in_package}; {_how_to_compile()}") from in_package
    raise in_package


def _how_to_compile() -> str:
    """Return the advice to call ``use_kernel()``, or what must be done before it can work."""
    try:
        find_compiler()
        check_cache()
    except (CompilerError, OSError) as error:
        return one_line(error, _MAX_LENGTH)
    return "call use_kernel() to compile one"


@cache
def build_library() -> Library:
    """Load the library of the package, or else compile one, unless the user's cache has it.

    Raises
    ------
    RuntimeError
        If the library cannot be compiled, kept or loaded.
    """
    try:
        return _packaged_library()
    except LibraryError:
        pass
    try:
        try:
            compiler = find_compiler()
        except CompilerError:  # an earlier process may have had one
            name, make = newest_cached(cache_folder(), _cache_prefix()), None
            if name is None:
                raise
        else:
            name, make = _cached_name(compiler), partial(compile_kernel, compiler, _NATIVE)
        return _compiled_library(load_cached(cache_folder(), name, _FUNCTIONS, make))
    except CompilerError as error:
        raise RuntimeError(f"{one_line(error, _MAX_LENGTH)}; {_WITHOUT}") from error
    except OSError as error:
        reason = one_line(error, _MAX_LENGTH)
        if "XDG_CACHE_HOME" not in reason:
            reason += "; or name another folder in XDG_CACHE_HOME"
        raise RuntimeError(
            f"cannot keep the kernel in the user's cache, or load it from there: {reason}; "
            f"{_WITHOUT}"
        ) from error


def _packaged_library() -> Library:
    """Load the library of the package for the instructions that torch uses itself."""
    found = find_packaged(torch.backends.cpu.get_cpu_capability())
    try:
        functions = load_functions(found.path, _FUNCTIONS)
    except OSError as error:
        raise LibraryError(f"the compiled library cannot be loaded: {one_line(error)}") from error
    name = _NAMES.get(found.instruction_set, found.instruction_set)
    return Library(functions, found.digest, f"the {name} library of the package")


def _compiled_library(loaded: CachedLibrary) -> Library:
    return Library(*loaded, _COMPILED)


def _cached_name(compiler: Sequence[str]) -> str:
    """Return a name that changes with the sources, the flags, the processor and the compiler."""
    return f"{_cache_prefix()}{_hash(predefined_macros(compiler, _NATIVE))}.so"


def _cache_prefix() -> str:
    """Return how the names of all libraries begin that fit the sources and the processor."""
    return f"recurrence-{_hash(source_digest(), *_NATIVE, processor())}-"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
