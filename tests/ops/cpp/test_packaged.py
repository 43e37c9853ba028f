"""The libraries of a wheel: which one is chosen, and which are never loaded."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.cpp_kernel import clear_kernel_caches, needs_compiler
from pytorch_forecasting_mlstm import backend
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import compiler, packaged
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp.packaged import LibraryError

pytestmark = needs_compiler


def set_manifest(folder: Path, **changes: Any) -> None:
    """Change entries of the manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def package_libraries(empty_cache: Path, compiled_content: bytes) -> Path:
    """Let the package have a library for each instruction set of x86, all with one content."""
    folder = packaged.FOLDER
    folder.mkdir()
    digest = hashlib.sha256(compiled_content).hexdigest()
    names = compiler.instruction_sets("x86_64")
    for name in names:
        (folder / f"recurrence-{name}.so").write_bytes(compiled_content)
    (folder / "manifest.json").write_text("{}")
    set_manifest(folder, sources=compiler.source_digest(), libraries=dict.fromkeys(names, digest))
    return folder


def reason() -> str:
    """Return why the default is PyTorch."""
    clear_kernel_caches()
    info = backend()
    assert info.name == "pytorch"
    assert str(info) == f"The recurrence is computed in PyTorch: {info.reason}."
    return info.reason


@pytest.mark.parametrize(
    ("capability", "instruction_set", "name"),
    [
        ("AVX512", "avx512", "AVX-512"),
        ("AVX512_VNNI", "avx512", "AVX-512"),
        ("AVX2", "avx2", "AVX2"),
        ("DEFAULT", "baseline", "baseline"),
        ("SVE256", "baseline", "baseline"),
    ],
)
def test_library_follows_the_processor(
    package_libraries: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    instruction_set: str,
    name: str,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    found = packaged.find_packaged(torch.backends.cpu.get_cpu_capability())
    assert found.instruction_set == instruction_set
    assert found.path.name == f"recurrence-{instruction_set}.so"
    assert str(backend()) == (
        f"The recurrence is computed in C++ where possible, with the {name} library of the package."
    )


def test_next_best_library_is_used(package_libraries: Path) -> None:
    digests = json.loads((package_libraries / "manifest.json").read_text())["libraries"]
    set_manifest(package_libraries, libraries={"baseline": digests["baseline"]})
    assert packaged.find_packaged("AVX512").instruction_set == "baseline"
    set_manifest(package_libraries, libraries={"avx512": digests["avx512"]})
    with pytest.raises(LibraryError, match="no library is compiled for the instructions of AVX2"):
        packaged.find_packaged("AVX2")


def test_machines_other_than_x86_have_one_library() -> None:
    assert compiler.instruction_sets("aarch64") == {"baseline": ()}
    assert list(compiler.instruction_sets("x86_64")) == ["avx512", "avx2", "baseline"]


def test_libraries_of_other_sources_are_not_loaded(
    package_libraries: Path, forbid_loading: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_FLAGS", (*compiler._FLAGS, "-g0"))
    assert "belong to other sources" in reason()


def test_libraries_without_sources_are_not_loaded(
    package_libraries: Path, forbid_loading: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiler, "_SOURCE", tmp_path / "recurrence.cpp")
    assert "sources of the kernel cannot be read" in reason()


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "missing", "folder"])
def test_damaged_library_is_not_loaded(
    package_libraries: Path, forbid_loading: None, compiled_content: bytes, damage: str
) -> None:
    for path in package_libraries.glob("*.so"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage != "missing":
            content = bytearray(compiled_content)
            content[len(content) // 2] ^= 1
            size = {"truncated": 1000, "changed": None, "empty": 0}[damage]
            path.write_bytes(content[:size])
    expected = "is not the file that was compiled"
    if damage in ("missing", "folder"):
        expected = "cannot be read"
    assert expected in reason()
    assert str(package_libraries) in reason()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "nul", '{"sources": "0", "libraries": 1}', "\ud800"],
    ids=["empty", "list", "no entries", "text", "number", "bytes"],
)
def test_damaged_manifest_is_reported(
    package_libraries: Path, forbid_loading: None, content: str
) -> None:
    (package_libraries / "manifest.json").write_bytes(content.encode(errors="surrogatepass"))
    assert "manifest.json cannot be read" in reason()


def test_library_that_cannot_be_loaded_is_reported(package_libraries: Path) -> None:
    """As with another C library: it is the file of the manifest all the same."""
    for path in package_libraries.glob("*.so"):
        path.write_bytes(b"text")
    digest = hashlib.sha256(b"text").hexdigest()
    names = compiler.instruction_sets("x86_64")
    set_manifest(package_libraries, libraries=dict.fromkeys(names, digest))
    assert "the compiled library cannot be loaded" in reason()


def test_writing_libraries_replaces_files_and_binds_them_to_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_flags(command: list[str], flags: tuple[str, ...], library: Path) -> None:
        library.write_text(" ".join(flags))

    monkeypatch.setattr(packaged, "compile_kernel", write_flags)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    names = [path.name for path in packaged.write_libraries(tmp_path, "x86_64")]
    assert sorted(names) == sorted(os.listdir(tmp_path))
    open_file = (tmp_path / "recurrence-avx2.so").open()
    packaged.write_libraries(tmp_path, "x86_64")
    assert (tmp_path / "recurrence-avx2.so").stat().st_ino != os.fstat(open_file.fileno()).st_ino
    open_file.close()
    assert packaged.find_packaged("AVX2").path.read_text() == "-mavx2 -mfma"
