"""Building the kernel: compilers that fail, and the self-test of what they compile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helpers.cpp_kernel import (
    clear_kernel_caches,
    needs_compiler,
    needs_linux,
    use_kernel_error,
    write_compiler,
)
from helpers.tolerances import assert_raises_mentioning
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import backend, compiler, step

META = torch.device("meta")


def test_use_kernel_requires_a_bool() -> None:
    assert_raises_mentioning(lambda: use_kernel("yes"), "use_kernel", "enabled", "yes")  # type: ignore[arg-type]


@pytest.mark.usefixtures("empty_cache")
def test_other_operating_systems_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.sys, "platform", "win32")
    assert "win32" in use_kernel_error()


@needs_linux
@pytest.mark.usefixtures("empty_cache")
def test_missing_compiler_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "looked for c++, g++, clang++" in use_kernel_error()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in use_kernel_error()


@needs_linux
def test_error_quotes_a_failing_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path
) -> None:
    failing = tmp_path / "my-compiler"
    failing.write_text("#!/bin/sh\necho 'recurrence.cpp: what is this?' >&2\nexit 1\n")
    failing.chmod(0o700)
    monkeypatch.setenv("CXX", str(failing))
    message = use_kernel_error()
    assert "my-compiler" in message and "what is this?" in message
    assert not list(empty_cache.glob("*"))


@needs_compiler
@pytest.mark.usefixtures("unoptimized")
def test_compiler_command_may_have_arguments(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    command = next(name for name in ("c++", "g++", "clang++") if shutil.which(name))
    monkeypatch.setenv("CXX", f"env {command} -DNDEBUG")
    use_kernel()
    assert list(empty_cache.glob("*.so"))


@needs_linux
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("printf 'gr\\374n' >&2; exit 1", "gr\ufffdn"),
        ("head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 1", "xxx..."),
        ("printf 'one\\ntwo\\033[2J' >&2; exit 1", "one two\\x1b[2J"),
        ("kill -9 $$", "SIGKILL"),
        ("exit 0", "wrote no library"),
        (": > $made", "wrote no library"),
        ("mkdir $made", "wrote no library"),
        ("echo text > $made", "the compiled library cannot be loaded"),
        ("head -c 100 /bin/sh > $made", "the compiled library cannot be loaded"),
        ("exec sleep 60", "timed out"),
    ],
    ids=["bytes", "long", "escapes", "signal", "none", "empty", "folder", "text", "part", "hangs"],
)
def test_any_compiler_failure_gives_one_printable_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path, script: str, expected: str
) -> None:
    monkeypatch.setenv("CXX", write_compiler(tmp_path, script))
    monkeypatch.setattr(compiler, "_TIMEOUT", 2)
    message = use_kernel_error()
    assert expected in message
    assert len(message) < 2000 and message.isprintable()
    assert "CXX" in message or "XDG_CACHE_HOME" in message
    assert not list(empty_cache.glob("*")), "an unusable library stays in the cache"


@needs_linux
@pytest.mark.parametrize("command", ["'", '"c++', "c++ \\"])
def test_error_quotes_a_compiler_command_that_cannot_be_parsed(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path, command: str
) -> None:
    monkeypatch.setenv("CXX", command)
    message = use_kernel_error()
    assert f"CXX must name a C++ compiler, got {command!r}" in message


@needs_compiler
def test_compiled_library_without_the_functions_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path
) -> None:
    source = tmp_path / "other.cpp"
    source.write_text('extern "C" int run_float() { return 0; }')
    monkeypatch.setattr(compiler, "_SOURCE", source)
    assert "lacks the function run_double" in use_kernel_error()
    assert not list(empty_cache.glob("*"))


@needs_compiler
@pytest.mark.parametrize(
    "setting",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu"), lambda: META],
    ids=["no_grad", "inference", "autocast", "device"],
)
def test_self_test_ignores_the_settings_of_the_caller(setting: Callable[[], Any]) -> None:
    clear_kernel_caches()
    with setting():
        use_kernel()


@needs_compiler
@pytest.mark.parametrize(
    ("module", "name"),
    [(backend, "gated_fwd"), (backend, "chunkwise_fwd"), (step, "kernel_step")],
    ids=["layer", "chunkwise", "step"],
)
def test_kernel_that_fails_the_self_test_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: ModuleType, name: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without a note of an earlier success
    original = getattr(module, name)

    def zeros(*args: Any) -> Any:
        h, *rest = original(*args)
        return torch.zeros_like(h), *rest

    clear_kernel_caches()
    monkeypatch.setattr(module, name, zeros)
    assert "does not compute what PyTorch does" in use_kernel_error()
