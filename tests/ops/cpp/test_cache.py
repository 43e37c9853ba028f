"""The cache of compiled kernels: what is reused, what is not trusted, and who may read it."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.cpp_kernel import (
    clear_kernel_caches,
    needs_compiler,
    needs_linux,
    use_kernel_error,
    write_compiler,
)
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import cache, compiler, library


@needs_compiler
def test_error_names_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    empty_cache.write_text("a file where the folder should be")
    message = use_kernel_error()
    assert str(empty_cache) in message and "XDG_CACHE_HOME" in message


@needs_compiler
def test_kernel_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path, compilations: list[Path]
) -> None:
    use_kernel()
    (cached,) = empty_cache.glob("*.so")
    assert empty_cache.stat().st_mode & 0o077 == 0  # nobody else writes there
    modified = cached.stat().st_mtime_ns
    clear_kernel_caches()
    use_kernel()
    assert list(empty_cache.glob("*.so")) == [cached]
    assert cached.stat().st_mtime_ns == modified
    assert len(compilations) == 1
    # other flags give another library
    clear_kernel_caches()
    monkeypatch.setattr(compiler, "_FLAGS", (*compiler._FLAGS, "-g0"))
    use_kernel()
    assert len(list(empty_cache.glob("*.so"))) == 2


@needs_compiler
def test_changed_source_gives_another_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = compiler.source_digest()
    shutil.copytree(compiler._SOURCE.parent, tmp_path / "cpp")
    monkeypatch.setattr(compiler, "_SOURCE", tmp_path / "cpp" / compiler._SOURCE.name)
    names = [compiler.source_digest()]
    sources = [path for path in (tmp_path / "cpp").iterdir() if path.suffix in (".cpp", ".h")]
    assert len(sources) > 1
    for source in sources:
        source.write_text(source.read_text(encoding="utf-8") + "// changed\n", encoding="utf-8")
        names.append(compiler.source_digest())
    assert names[0] == original
    assert len(set(names)) == len(names)


@needs_compiler
@pytest.mark.parametrize("size", [0, 1000, -1], ids=["empty", "truncated", "last byte missing"])
def test_damaged_library_is_compiled_again(
    empty_cache: Path, compilations: list[Path], size: int
) -> None:
    use_kernel()
    (cached,) = empty_cache.glob("*.so")
    content = cached.read_bytes()
    cached.unlink()  # so that the write does not change the loaded library
    cached.write_bytes(content[:size])
    clear_kernel_caches()
    use_kernel()
    assert cached.stat().st_size == len(content)
    assert len(compilations) == 2


@needs_linux
def test_missing_home_folder_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    clear_kernel_caches()
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="there is no folder to keep the kernel in"):
        cache.cache_folder()


@needs_compiler
def test_library_of_the_same_user_is_loaded_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, cached_library: Path
) -> None:
    """Also through links of the user and folders with a sticky bit: no one else can change them."""
    (elsewhere := cached_library.parents[1] / "link").symlink_to(cached_library.parents[1])
    cached_library.parents[1].chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere))
    monkeypatch.setattr(library, "compile_kernel", lambda *_: pytest.fail("compiled again"))
    use_kernel()


@needs_compiler
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_library_that_others_may_write_to_is_not_loaded(
    forbid_loading: None, cached_library: Path, mode: int
) -> None:
    cached_library.chmod(mode)
    message = use_kernel_error()
    assert (
        f"other users can write to {cached_library} (mode {mode:04o})" in message
        and "delete it" in message
    )


@needs_compiler
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_cache_that_others_may_write_to_is_not_used(
    forbid_loading: None, cached_library: Path, mode: int
) -> None:
    cached_library.parent.chmod(mode)
    message = use_kernel_error()
    assert f"other users can write to {cached_library.parent} (mode {mode:04o})" in message
    assert "delete it" in message and "XDG_CACHE_HOME" in message


@needs_compiler
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_cache_that_others_may_rename_is_not_used(
    forbid_loading: None, cached_library: Path, mode: int
) -> None:
    parent = cached_library.parents[1]
    parent.chmod(mode)
    message = use_kernel_error()
    assert f"other users can write to {parent} (mode {mode:04o})" in message
    assert f"chmod go-w {parent}" in message
    cached_library.parent.rename(parent / "away")
    assert f"chmod go-w {parent}" in use_kernel_error()
    assert not cached_library.parent.exists(), "a cache was created there"


def pretend_owner(monkeypatch: pytest.MonkeyPatch, path: Path, uid: int) -> None:
    """Let ``Path.lstat`` report another owner for one path."""
    lstat = Path.lstat

    def lstat_of_another_user(self: Path) -> os.stat_result:
        fields = list(lstat(self))
        if self == path:
            fields[stat.ST_UID] = uid
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "lstat", lstat_of_another_user)


@needs_compiler
@pytest.mark.parametrize("level", [0, 1, 2], ids=["library", "folder", "parent folder"])
def test_files_of_another_user_are_not_loaded(
    monkeypatch: pytest.MonkeyPatch, forbid_loading: None, cached_library: Path, level: int
) -> None:
    path = (cached_library, *cached_library.parents)[level]
    pretend_owner(monkeypatch, path, 4711)
    assert f"{path} belongs to user 4711, not to user {os.getuid()}" in use_kernel_error()


@needs_compiler
def test_links_in_the_cache_are_not_followed(forbid_loading: None, cached_library: Path) -> None:
    """Another user may replace their target later."""
    away = cached_library.rename(cached_library.parents[1] / "away.so")
    cached_library.symlink_to(away)
    assert f"{cached_library} is not a file" in use_kernel_error()
    folder = cached_library.parent.rename(cached_library.parents[1] / "folder")
    cached_library.parent.symlink_to(folder)
    assert f"{cached_library.parent} is not a folder" in use_kernel_error()


@needs_compiler
def test_link_of_another_user_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, forbid_loading: None, cached_library: Path
) -> None:
    link = cached_library.parents[1] / "link"
    link.symlink_to(cached_library.parents[1])
    pretend_owner(monkeypatch, link, 4711)
    monkeypatch.setenv("XDG_CACHE_HOME", str(link))
    assert f"{link} belongs to user 4711" in use_kernel_error()


@needs_compiler
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_written_files_are_readable_by_their_user_only(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path, compilations: list[Path], umask: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_cache.parent / "a"))
    before = os.umask(umask)
    try:
        use_kernel()
        (cached,) = cache.cache_folder().glob("*.so")
        clear_kernel_caches()
        use_kernel()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cached, *cached.parents[:2])]
    assert modes == [0o600, 0o700, 0o700]


@needs_compiler
def test_error_names_a_cached_library_without_the_functions(
    tmp_path: Path, cached_library: Path
) -> None:
    """Its digest is correct, so that the library counts as intact."""
    (tmp_path / "other.cpp").write_text("int other() { return 0; }")
    command = next(name for name in ("c++", "g++", "clang++") if shutil.which(name))
    compiled = tmp_path / "other.so"
    subprocess.run(
        [command, "-shared", "-fPIC", "other.cpp", "-o", compiled], cwd=tmp_path, check=True
    )
    cached_library.write_bytes(
        compiled.read_bytes() + hashlib.sha256(compiled.read_bytes()).digest()
    )
    message = use_kernel_error()
    assert "lacks the function run_float" in message and f"delete {cached_library}" in message


@needs_compiler
def test_full_disk_raises(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library, "compile_kernel", full)
    assert "No space left on device" in use_kernel_error()


@needs_linux
def test_relative_home_folder_raises(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "relative/home")
    monkeypatch.setenv("CXX", write_compiler(empty_cache.parent, "exit 1"))
    assert "HOME is not an absolute path: 'relative/home'" in use_kernel_error()
