"""``backend()`` advises only what can work, and looking for a kernel writes to the cache alone."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from helpers.cpp_kernel import clear_kernel_caches, needs_compiler, use_kernel_error
from pytorch_forecasting_mlstm import backend
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import dispatch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import cache, compiler, self_test

pytestmark = [needs_compiler, pytest.mark.usefixtures("empty_cache")]

NO_LIBRARY = "this installation has no compiled library; "


def missing_home(patch: pytest.MonkeyPatch, folder: Path) -> str:
    patch.delenv("XDG_CACHE_HOME")
    patch.setenv("HOME", str(folder / "gone"))
    return f"the folder {folder / 'gone'} does not exist; name an existing folder in XDG_CACHE_HOME"


def unknown_home(patch: pytest.MonkeyPatch, folder: Path) -> str:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    patch.delenv("XDG_CACHE_HOME")
    patch.setattr(Path, "home", homeless)
    return "Could not determine home directory; name an existing folder in XDG_CACHE_HOME"


def cache_in_a_missing_folder(patch: pytest.MonkeyPatch, folder: Path) -> str:
    patch.setenv("XDG_CACHE_HOME", str(folder / "gone" / "cache"))
    return f"the folder {folder / 'gone'} does not exist; name an existing folder in XDG_CACHE_HOME"


def cache_is_a_file(patch: pytest.MonkeyPatch, folder: Path) -> str:
    (folder / "file").write_text("")
    patch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    return f"{folder / 'file'} is not a folder (it may be a link to one); delete or rename it"


def cache_below_a_file(patch: pytest.MonkeyPatch, folder: Path) -> str:
    (folder / "file").write_text("")
    patch.setenv("XDG_CACHE_HOME", str(folder / "file" / "cache"))
    return f"{folder / 'file'} is not a folder (it may be a link to one); delete or rename it"


def read_only_cache(patch: pytest.MonkeyPatch, folder: Path) -> str:
    access = os.access  # root may write anywhere
    patch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK and access(path, mode))
    return f"{folder} cannot be written to; name an existing folder in XDG_CACHE_HOME"


def no_compiler(patch: pytest.MonkeyPatch, folder: Path) -> str:
    patch.delenv("CXX", raising=False)
    patch.setenv("PATH", str(folder))
    return "found no C++ compiler, looked for c++, g++, clang++; install GCC, or name a compiler"


def other_system(patch: pytest.MonkeyPatch, folder: Path) -> str:
    patch.setattr(compiler.sys, "platform", "darwin")
    return "the kernel runs on Linux only, and this is darwin"


@pytest.mark.parametrize(
    "break_it",
    [
        *(missing_home, unknown_home, cache_in_a_missing_folder, cache_is_a_file),
        *(cache_below_a_file, read_only_cache, no_compiler, other_system),
    ],
)
def test_reason_names_what_keeps_use_kernel_from_working(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    break_it: Callable[[pytest.MonkeyPatch, Path], str],
) -> None:
    expected = break_it(monkeypatch, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    info = backend()
    assert info.name == "pytorch"
    assert info.reason.startswith(NO_LIBRARY)
    assert expected in info.reason
    assert "use_kernel" not in info.reason
    assert str(info).endswith(f"{info.reason}.") and not info.reason.endswith(".")
    if break_it is not read_only_cache:  # only os.access says so
        assert expected in use_kernel_error()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("break_it", [missing_home, cache_in_a_missing_folder, cache_is_a_file])
def test_a_note_of_the_self_test_creates_no_folder_above_the_cache(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    break_it: Callable[[pytest.MonkeyPatch, Path], str],
) -> None:
    break_it(monkeypatch, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    cache.write_note("note")
    assert not cache.has_note("note")
    assert sorted(tmp_path.rglob("*")) == before


def test_without_owners_of_files_there_are_no_notes(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    """As on Windows, where Triton can be installed."""
    cache.write_note("note")
    assert cache.has_note("note")
    monkeypatch.delattr(os, "getuid")
    monkeypatch.setattr(cache, "_HAS_OWNERS", hasattr(os, "getuid"))
    cache.write_note("another note")
    assert not cache.has_note("note") and not (empty_cache / "another note").exists()


def test_missing_cache_in_the_home_directory_is_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache.write_note("note")
    assert cache.has_note("note")
    assert (tmp_path / ".cache").stat().st_mode & 0o777 == 0o700


def test_wrong_variable_raises_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_FORECASTING_MLSTM_KERNEL", "off")
    spec = importlib.util.find_spec(dispatch.__name__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(ValueError, match="PYTORCH_FORECASTING_MLSTM_KERNEL must be 0 or 1, got"):
        spec.loader.exec_module(module)


def test_self_test_has_open_and_closed_forget_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product of the gates of a span decides how its sums are added."""
    header = Path(self_test.__file__).with_name("recurrence.h").read_text(encoding="utf-8")
    span = int(re.search(r"SPAN = (\d+)", header).group(1))  # type: ignore[union-attr]
    gates: dict[object, list[torch.Tensor]] = {}

    def record(kernel: object, naive: object, inputs: Sequence[torch.Tensor], _: float) -> None:
        if kernel is self_test._gated_kernel:
            d = inputs[1].shape[-1]
            gates.setdefault(kernel, []).append(inputs[0][0, :, 3 * d + 1].sigmoid())
        elif kernel is self_test._chunkwise_kernel:
            gates.setdefault(kernel, []).append(inputs[4][0, 0].exp())

    monkeypatch.setattr(self_test, "_compare", record)
    self_test._test()
    assert len(gates) == 2
    for drawn in gates.values():
        for gate in drawn:
            decays = [float(part.prod()) for part in gate.split(span)]
            assert min(decays) < 0.5 < max(decays)


def test_self_test_uses_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that wait for each other took seconds where all cores were busy."""
    threads: list[int] = []
    monkeypatch.setattr(self_test, "_test", lambda: threads.append(torch.get_num_threads()))
    clear_kernel_caches()
    torch.set_num_threads(3)
    try:
        self_test.self_test("digest")
        assert threads == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
