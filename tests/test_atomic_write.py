"""A file has its old or its new content, with several writers and if a writer is killed."""

import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_forecasting_mlstm import _atomic_write
from pytorch_forecasting_mlstm._atomic_write import atomic_write
from pytorch_forecasting_mlstm.cli.output import replace_files, writable_folder
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.resume import AtomicCheckpointIO

ROOT = Path(__file__).parent.parent
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
needs_user_rights = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write to any folder"
)


# without the package, whose import takes seconds
LOAD = f"from runpy import run_path; atomic_write = run_path({_atomic_write.__file__!r})"
LOAD += "['atomic_write']"


def start_python(code: str, *arguments: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", f"{LOAD}\n{code}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITER = """
import os, sys
os.getpid = lambda: 1  # as in a container
from pathlib import Path
path, letter = Path(sys.argv[1]), sys.argv[2]
for _ in range(50):
    with atomic_write(path) as (part,), part.open("w") as file:
        for _ in range(40):
            file.write(letter * 1000)
            file.flush()
    text = path.read_text()
    assert len(text) == 40_000 and len(set(text)) == 1
"""


def test_concurrent_writers_of_one_path_leave_a_complete_file(tmp_path: Path) -> None:
    """With equal process ids, as in two containers, all files are complete and no write fails."""
    path = tmp_path / "last.ckpt"
    writers = [start_python(WRITER, path, letter) for letter in "abc"]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert list(tmp_path.iterdir()) == [path]


PAUSED_WRITER = """
import sys, time
from pathlib import Path
with atomic_write(Path(sys.argv[1])) as (part,):
    part.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def start_paused_writer(path: Path) -> subprocess.Popen[str]:
    """Start a process that pauses in the middle of a write."""
    writer = start_python(PAUSED_WRITER, path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells kernels apart")
def test_leftovers_of_dead_writers_are_removed_and_files_of_live_writers_are_not(
    tmp_path: Path,
) -> None:
    """The dead writer wrote another file."""
    path = tmp_path / "last.ckpt"
    path.write_text("old")
    live, dead = start_paused_writer(path), start_paused_writer(tmp_path / "step=3.ckpt")
    try:
        assert len(list(tmp_path.iterdir())) == 3
        dead.kill()
        dead.communicate()
        assert len(list(tmp_path.iterdir())) == 3
        with atomic_write(path) as (part,):
            part.write_text("new")
        assert path.read_text() == "new"
        assert len(list(tmp_path.iterdir())) == 2  # with the file of the live writer
    finally:
        live.kill()
        live.communicate()
    with atomic_write(path) as (part,):
        part.write_text("newer")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("locks", [True, False])
def test_files_of_other_machines_are_kept_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """Their locks may be invisible here, and some file systems have no locks."""
    if not locks:
        monkeypatch.setattr(_atomic_write, "fcntl", None)
    kernel = "f" * 8 if locks else _atomic_write._kernel()
    young, old = (tmp_path / f".last.ckpt.{kernel}-{letter * 16}.part" for letter in "ab")
    for path, age in ((young, 23 * 3600), (old, 25 * 3600)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    unrelated = tmp_path / ".profile.part"
    unrelated.touch()
    with atomic_write(tmp_path / "last.ckpt") as (part,):
        part.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([young, unrelated, tmp_path / "last.ckpt"])


def test_file_removed_as_a_leftover_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may remove the file between its creation and its lock."""
    removed: list[Path] = []
    exists = Path.exists

    def remove_first(path: Path) -> bool:
        if path.suffix == ".part" and not removed:
            removed.append(path)
            path.unlink()
        return exists(path)

    monkeypatch.setattr(Path, "exists", remove_first)
    with atomic_write(tmp_path / "last.ckpt") as (part,):
        part.write_text("new")
    assert removed and removed != [part]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@needs_posix
def test_atomic_write_keeps_permissions_and_applies_the_umask(tmp_path: Path) -> None:
    """A new file has the permissions that the umask allows; an old file keeps its permissions."""
    new, old = tmp_path / "new", tmp_path / "old"
    old.touch()
    old.chmod(0o604)
    mask = os.umask(0o027)
    try:
        for path in (new, old):
            with atomic_write(path) as (part,):
                part.write_text("text")
    finally:
        os.umask(mask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o640, 0o604]


def test_atomic_write_accepts_names_of_maximal_length(tmp_path: Path) -> None:
    """The name has the maximal length of the file system."""
    path = tmp_path / ("x" * 251 + ".csv")
    with atomic_write(path) as (part,):
        part.write_text("new")
    assert path.read_text() == "new"


@needs_posix
def test_links_are_followed_by_the_command_line_and_replaced_by_checkpoints(tmp_path: Path) -> None:
    """A checkpoint replaces a link, as in Lightning; the command line follows it."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replace_files(link) as (part,):
        part.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, link)
    assert not link.is_symlink() and target.read_text() == "new"


# Errors


@needs_posix
def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # like a full disk
    try:
        with pytest.raises(OSError, match="AtomicCheckpointIO: cannot write") as error:
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(10**6)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "an earlier file of that name is unchanged" in str(error.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_path_below_a_file_raises(tmp_path: Path) -> None:
    """Raises for root, too."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="AtomicCheckpointIO: cannot write '.*last.ckpt'"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "file" / "last.ckpt")
    with pytest.raises(InputError, match="cannot write to the folder '.*folder'"):
        writable_folder(tmp_path / "file" / "folder")


@needs_user_rights
def test_read_only_folder_raises(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="AtomicCheckpointIO: cannot write .*Permission denied"):
            AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
        with pytest.raises(InputError, match="Permission denied"):
            writable_folder(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_objects_that_cannot_be_pickled_raise_the_error_of_torch(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        AtomicCheckpointIO().save_checkpoint({"f": lambda: None}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


# Several files


def test_new_forecast_is_never_beside_an_old_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill before or after any rename leaves no such state."""
    rows, plot = tmp_path / "forecast.csv", tmp_path / "forecast.png"
    replace = os.replace

    def state() -> tuple[str | None, str | None]:
        texts = [path.read_text() if path.exists() else None for path in (rows, plot)]
        return texts[0], texts[1]

    states = []
    for kill_at in range(1, 20):
        for path in (rows, plot):
            path.write_text("old")
        calls = 0

        def replace_and_record(old: Any, new: Any, kill_at: int = kill_at) -> None:
            nonlocal calls
            for _ in range(2):  # before and after
                calls += 1
                if calls == kill_at:
                    states.append(state())
                if calls % 2:
                    replace(old, new)

        monkeypatch.setattr(os, "replace", replace_and_record)
        with replace_files(rows, plot) as parts:
            for part in parts:
                part.write_text("new")
        assert state() == ("new", "new")
        if calls < kill_at:
            break
    assert states[0] == ("old", "old")
    assert ("new", "old") not in states
    assert ("new", None) in states and ("old", None) in states
    assert sorted(tmp_path.iterdir()) == [rows, plot]


@pytest.mark.parametrize("name", ["forecast.csv", "forecast.png"])
def test_error_keeps_both_old_files(tmp_path: Path, name: str) -> None:
    paths = [tmp_path / "forecast.csv", tmp_path / "forecast.png"]
    for path in paths:
        path.write_text("old")
    with (
        pytest.raises(InputError, match=r"cannot write '.*csv' and '.*png': No space left"),
        replace_files(*paths) as parts,
    ):
        parts[paths.index(tmp_path / name)].write_text("half")
        raise OSError(28, "No space left on device")
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == paths


def test_error_at_the_first_file_keeps_the_second(tmp_path: Path) -> None:
    """The first is a folder here; on Windows, it could be open in another program."""
    rows, plot = tmp_path / "forecast.csv", tmp_path / "forecast.png"
    rows.mkdir()
    plot.write_text("old")
    with (
        pytest.raises(InputError, match="cannot write"),
        replace_files(rows, plot) as parts,
    ):
        for part in parts:
            part.write_text("new")
    assert plot.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [rows, plot]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
countdown, replace = int(sys.argv[2]), os.replace
def replace_or_die(old, new):
    global countdown
    countdown -= 1
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)
os.replace = replace_or_die
folder = Path(sys.argv[1])
with atomic_write(folder / "forecast.csv", folder / "forecast.png") as parts:
    for part in parts:
        part.write_text("new")
"""


@needs_posix
@pytest.mark.parametrize("at", [1, 2, 3])
def test_writer_killed_between_the_files(tmp_path: Path, at: int) -> None:
    """Its leftovers do not disturb the next writer."""
    paths = [tmp_path / "forecast.csv", tmp_path / "forecast.png"]
    for path in paths:
        path.write_text("old")
    writer = start_python(KILLED_WRITER, tmp_path, at)
    writer.communicate(timeout=120)
    assert writer.returncode == -signal.SIGKILL
    texts = [path.read_text() if path.exists() else None for path in paths]
    assert texts == [["old", "old"], ["old", None], ["new", None]][at - 1]
    with replace_files(*paths) as parts:
        for part in parts:
            part.write_text("newer")
    assert [path.read_text() for path in paths] == ["newer", "newer"]
    if sys.platform == "linux":
        assert sorted(tmp_path.iterdir()) == paths


def test_folder_is_not_replaced(tmp_path: Path) -> None:
    """Neither as the first target nor as a later one, which is moved out of the way."""
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    for paths in ([folder], [file, folder]):
        with pytest.raises(IsADirectoryError), atomic_write(*paths):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]
        assert (folder / "kept").read_text() == "kept"
