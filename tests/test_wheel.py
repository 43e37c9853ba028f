"""Building wheels: what they hold, and the platform in their tag."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from helpers.cpp_kernel import clear_kernel_caches, needs_compiler, needs_linux
from pytorch_forecasting_mlstm import backend
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import compiler, packaged

pytest.importorskip("hatchling", reason="wheels are built by hatchling")

ROOT = Path(__file__).parents[1]
CPP = "pytorch_forecasting_mlstm/layers/_recurrent/_mlstm/ops/cpp"
VARIABLE = "PYTORCH_FORECASTING_MLSTM_KERNEL"
HOOKS = ("hatch_build.py", "hatch_metadata.py")


@pytest.fixture(autouse=True)
def forget_build_modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build as if in a new process, and without settings of this one."""
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    for name in [name for name in sys.modules if name.startswith("_kernel_build")]:
        del sys.modules[name]


@pytest.fixture
def fast_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiler write its arguments instead of a library."""
    script = tmp_path / "fast-compiler"
    script.write_text('#!/bin/sh\nfor made; do :; done\necho "$@" > $made\n')
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))


def build_wheel(root: Path, folder: Path, version: str = "standard") -> Path:
    from hatchling.builders.wheel import WheelBuilder

    return Path(next(WheelBuilder(str(root)).build(directory=str(folder), versions=[version])))


def contents(wheel: Path, suffix: str = "") -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(suffix)]
        return {name: archive.read(name) for name in names}


def tag(wheel: Path) -> str:
    (metadata,) = contents(wheel, ".dist-info/WHEEL").values()
    return metadata.decode().split("Tag: ")[1].strip()


@needs_linux
@pytest.mark.usefixtures("fast_compiler")
def test_wheel_has_a_library_for_each_instruction_set(tmp_path: Path) -> None:
    wheel = build_wheel(ROOT, tmp_path)
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert tag(wheel) == f"py3-none-{platform}"
    assert b"Root-Is-Purelib: false" in contents(wheel, "WHEEL").popitem()[1]
    expected = compiler.instruction_sets(sysconfig.get_platform().split("-")[-1])
    libraries = contents(wheel, ".so")
    assert sorted(libraries) == sorted(f"{CPP}/libraries/recurrence-{name}.so" for name in expected)
    for name, flags in expected.items():
        arguments = libraries[f"{CPP}/libraries/recurrence-{name}.so"].decode().split()
        assert set(flags) <= set(arguments)
        assert ("-mavx2" in arguments) == ("-mavx2" in flags)
    assert f"{CPP}/libraries/manifest.json" in contents(wheel)
    assert f"{CPP}/recurrence.cpp" in contents(wheel), "use_kernel() can compile, too"


def test_wheel_without_a_compiler_is_pure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    wheel = build_wheel(ROOT, tmp_path)
    assert tag(wheel) == "py3-none-any"
    assert not [name for name in contents(wheel) if "libraries" in name]
    assert "The kernel is not compiled" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("fast_compiler")
def test_variable_makes_a_pure_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    assert tag(build_wheel(ROOT, tmp_path)) == "py3-none-any"


@needs_linux
@pytest.mark.usefixtures("fast_compiler")
def test_editable_installation_compiles_into_the_source_tree(tmp_path: Path) -> None:
    pytest.importorskip("editables", reason="hatchling needs it for editable installations")
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("libraries", "__pycache__")
    shutil.copytree(
        ROOT / "pytorch_forecasting_mlstm", root / "pytorch_forecasting_mlstm", ignore=ignore
    )
    for name in ("pyproject.toml", *HOOKS, "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    wheel = build_wheel(root, tmp_path, version="editable")
    assert tag(wheel) == "py3-none-any", "it holds a path only"
    assert (root / CPP / "libraries" / "manifest.json").is_file()
    assert list((root / CPP / "libraries").glob("*.so"))
    compiled = {path: path.stat().st_mtime_ns for path in (root / CPP / "libraries").iterdir()}
    build_wheel(root, tmp_path, version="editable")
    assert {path: path.stat().st_mtime_ns for path in compiled} == compiled, "compiled again"
    next(iter(compiled)).unlink()
    build_wheel(root, tmp_path, version="editable")
    assert all(path.is_file() for path in compiled)
    # A wheel from this tree has libraries of its own, once.
    names = list(contents(build_wheel(root, tmp_path)))
    assert len(names) == len(set(names))


def test_source_distribution_has_the_sources_and_no_library(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    sources = {path.name for path in (ROOT / CPP).iterdir() if path.suffix in (".cpp", ".h", ".py")}
    assert {f"{CPP}/{name}" for name in sources} <= names
    assert "hatch_build.py" in names
    assert not [name for name in names if "libraries" in name]


@pytest.mark.slow
@needs_compiler
def test_compiled_libraries_pass_the_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = build_wheel(ROOT, tmp_path)
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / CPP / "libraries")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    best = torch.backends.cpu.get_cpu_capability()
    lesser = {"AVX512": ["AVX2", "DEFAULT"], "AVX2": ["DEFAULT"]}.get(best, [])
    for capability in [best, *lesser]:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        clear_kernel_caches()
        assert backend().name == "cpp", str(backend())
    clear_kernel_caches()
