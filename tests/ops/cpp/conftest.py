"""Build caches that tests may change, and spies on the kernel."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.cpp_kernel import clear_kernel_caches
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import (
    backend,
    cache,
    compiler,
    library,
    packaged,
)


@pytest.fixture(scope="module", autouse=True)
def use_temporary_cache(temporary_cache: None) -> None:
    """Build in a temporary cache, in all of these tests."""


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test the kernel, however the other tests are run."""
    monkeypatch.delenv("PYTORCH_FORECASTING_MLSTM_KERNEL", raising=False)


@pytest.fixture(params=["cell", "recurrence"])
def gated_calls(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Enable the kernel, with and without its form of the whole cell; record calls by a layer."""
    if request.param == "recurrence":
        monkeypatch.setattr(backend, "cell", None)
    yield from record_gated_calls(monkeypatch)


@pytest.fixture
def recurrence_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Enable the kernel without its form of the whole cell, and record its calls by a layer."""
    monkeypatch.setattr(backend, "cell", None)
    yield from record_gated_calls(monkeypatch)


@pytest.fixture
def chunkwise_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Enable the kernel and record its calls by ``mlstm_chunkwise``."""
    use_kernel()
    calls: list[str] = []
    for name, direction in (("chunkwise_fwd", "forward"), ("chunkwise_bwd", "backward")):
        spy = recorded(calls, direction, getattr(backend, name))
        monkeypatch.setattr(backend, name, spy)
    yield calls


def record_gated_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    use_kernel()
    calls: list[str] = []
    for name, direction in (("gated_fwd", "forward"), ("gated_bwd", "backward")):
        spy = recorded(calls, direction, getattr(backend, name))
        monkeypatch.setattr(backend, name, spy)
    for name in ("cell", "normalizing"):
        forms = getattr(backend, name)
        if forms is not None:
            spies = {
                direction: recorded(calls, direction, getattr(forms, direction))
                for direction in ("forward", "backward")
            }
            monkeypatch.setattr(backend, name, forms._replace(**spies))
    yield calls


def recorded(calls: list[str], direction: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that notes its calls."""

    def spy(*args: Any) -> Any:
        calls.append(direction)
        return original(*args)

    return spy


@pytest.fixture
def no_package_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the package have no compiled libraries, as after an installation without a compiler."""
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "no libraries")


@pytest.fixture
def empty_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_package_libraries: None
) -> Iterator[Path]:
    """Return the path of a cache that does not exist yet, with no kernel loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clear_kernel_caches()
    yield tmp_path / "pytorch_forecasting_mlstm"
    clear_kernel_caches()


@pytest.fixture
def unoptimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without optimization, which takes an eighth of the time."""
    flags = ["-O0" if flag == "-O3" else flag for flag in compiler._FLAGS]
    assert "-O0" in flags
    monkeypatch.setattr(compiler, "_FLAGS", tuple(flags))


@pytest.fixture(scope="session")
def compiled_content(cache_root: Path) -> bytes:
    """Return a compiled library: one of the package, if there is one, to save time."""
    with suppress(packaged.LibraryError):
        return packaged.find_packaged(torch.backends.cpu.get_cpu_capability()).path.read_bytes()
    path = cache_root / "compiled.so"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        compiler.compile_kernel(compiler.find_compiler(), ("-march=native",), part)
        part.replace(path)
    return path.read_bytes()


@pytest.fixture
def compilations(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path, compiled_content: bytes
) -> list[Path]:
    """Replace compilations by copies of a library, and record where they were written."""
    paths: list[Path] = []

    def copy(compiler: list[str], flags: Sequence[str], path: Path) -> None:
        paths.append(path)
        path.write_bytes(compiled_content)

    monkeypatch.setattr(library, "compile_kernel", copy)
    return paths


@pytest.fixture
def cached_library(empty_cache: Path, compiled_content: bytes) -> Path:
    """Return a library in the cache that no process has loaded yet."""
    empty_cache.mkdir(mode=0o700)
    path = empty_cache / library._cached_name(compiler.find_compiler())
    path.write_bytes(compiled_content + cache._digest(compiled_content))
    path.chmod(0o600)
    return path


@pytest.fixture
def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a library is loaded: loading runs code in it."""
    original = ctypes.CDLL

    def load(path: str) -> ctypes.CDLL:
        if path.startswith("libnvidia"):  # with CUDA, torch looks for a driver
            return original(path)
        pytest.fail(f"{path} was loaded")

    monkeypatch.setattr(ctypes, "CDLL", load)
