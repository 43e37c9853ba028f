"""Build caches that tests may change, and spies on the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.cpp_kernel import clear_kernel_caches
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import backend, build


@pytest.fixture(scope="module", autouse=True)
def use_temporary_cache(temporary_cache: None) -> None:
    """Build in a temporary cache, in all of these tests."""


@pytest.fixture
def gated_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Enable the kernel and record its calls by a layer."""
    yield from record_calls("gated", monkeypatch)


@pytest.fixture
def chunkwise_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Enable the kernel and record its calls by ``mlstm_chunkwise``."""
    yield from record_calls("chunkwise", monkeypatch)


def record_calls(operation: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    use_kernel()
    calls: list[str] = []
    for name, direction in (("fwd", "forward"), ("bwd", "backward")):
        original = getattr(backend, f"{operation}_{name}")

        def spy(
            *args: Any, direction: str = direction, original: Callable[..., Any] = original
        ) -> Any:
            calls.append(direction)
            return original(*args)

        monkeypatch.setattr(backend, f"{operation}_{name}", spy)
    yield calls
    use_kernel(False)


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Return the path of a cache that does not exist yet, with no kernel loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clear_kernel_caches()
    yield tmp_path / "pytorch_forecasting_mlstm"
    clear_kernel_caches()


@pytest.fixture
def unoptimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without optimization, which takes an eighth of the time."""
    flags = ["-O0" if flag == "-O3" else flag for flag in build._FLAGS]
    assert "-O0" in flags
    monkeypatch.setattr(build, "_FLAGS", tuple(flags))


@pytest.fixture(scope="module")
def compiled_library() -> Path:
    clear_kernel_caches()
    use_kernel()
    use_kernel(False)
    (library,) = build._cache_folder().glob("*.so")
    return library


@pytest.fixture
def compilations(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path, compiled_library: Path
) -> list[Path]:
    """Replace compilations by copies of a library, and record where they were written."""
    content, paths = compiled_library.read_bytes(), []

    def copy(compiler: list[str], path: Path) -> None:
        paths.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(build, "_compile", copy)
    return paths


@pytest.fixture
def cached_library(empty_cache: Path, compiled_library: Path) -> Path:
    """Return a library in the cache that no process has loaded yet."""
    empty_cache.mkdir(mode=0o700)
    library = empty_cache / compiled_library.name
    library.write_bytes(compiled_library.read_bytes())
    library.chmod(0o600)
    return library


@pytest.fixture
def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a library is loaded: loading runs code in it."""

    def load(path: str) -> None:
        pytest.fail(f"{path} was loaded")

    monkeypatch.setattr(build.ctypes, "CDLL", load)
