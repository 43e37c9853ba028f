"""Training that is killed goes on as if it had not been, and no good checkpoint is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from helpers.crash_training import BATCHES, train
from pytorch_forecasting_mlstm.resume import AtomicCheckpointIO, resumable

TESTS = Path(__file__).parent
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    # the dataset tells once that windows have random lengths, if it is asked to predict
    pytest.mark.filterwarnings("ignore:If predicting, no randomization:UserWarning"),
]


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainer.lightning_module.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def run_until_killed(code: list[str], every: int = 3) -> None:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment["CRASH_TRAINING_EVERY"] = str(every)
    done = subprocess.run(
        [sys.executable, *code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Killed in step 7, which is in the middle of the second epoch; step 6 was saved."""
    run_until_killed([str(TESTS / "helpers" / "crash_training.py"), str(tmp_path / "cut"), "7"])
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "last.ckpt",
        "step=3.ckpt",
        "step=6.ckpt",
    ]
    resumed = train(tmp_path / "cut", "last")
    unbroken = train(tmp_path / "unbroken")
    assert resumed.global_step == unbroken.global_step == 3 * BATCHES
    assert_same(weights(resumed), weights(unbroken))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_training_killed_twice_ends_with_the_same_weights(tmp_path: Path) -> None:
    """After the last step of the first epoch, and of the second."""
    for step in (BATCHES, 2 * BATCHES):
        code = [str(TESTS / "helpers" / "crash_training.py"), str(tmp_path / "cut"), str(step)]
        run_until_killed(code, every=1)
    resumed = train(tmp_path / "cut", str(tmp_path / "cut" / "last.ckpt"), every=1)
    unbroken = train(tmp_path / "unbroken", every=1)
    assert resumed.global_step == unbroken.global_step == 3 * BATCHES
    assert resumed.current_epoch == unbroken.current_epoch == 3
    assert_same(weights(resumed), weights(unbroken))


def test_every_checkpoint_leads_to_the_same_weights(tmp_path: Path) -> None:
    """At the start, the middle and the end of an epoch, before its validation too."""
    unbroken = weights(train(tmp_path / "unbroken", every=1))
    for step in range(1, 3 * BATCHES):
        resumed = train(
            tmp_path / "again", str(tmp_path / "unbroken" / f"step={step}.ckpt"), every=1
        )
        assert_same(weights(resumed), unbroken)


def test_without_its_loader_the_rest_of_the_epoch_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests above can fail."""
    unbroken = weights(train(tmp_path / "unbroken", every=1))
    monkeypatch.setattr("pytorch_forecasting_mlstm.resume.ResumableDataLoader._skip", 0)
    monkeypatch.setattr(
        "pytorch_forecasting_mlstm.resume.ResumableDataLoader.load_state_dict", lambda *_: None
    )
    path = str(tmp_path / "unbroken" / "step=6.ckpt")
    resumed = weights(train(tmp_path / "again", path, every=1))
    assert any(not torch.equal(resumed[name], unbroken[name]) for name in unbroken)


# Writing


CUT_OFF_WRITE = """
import os, signal, sys, torch
from pathlib import Path
from pytorch_forecasting_mlstm.resume import AtomicCheckpointIO

def half(checkpoint, file):
    file.write(b"half of a checkpoint" * 1000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = half
AtomicCheckpointIO().save_checkpoint({}, sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_write_that_is_killed_leaves_the_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    run_until_killed(["-c", CUT_OFF_WRITE, str(path)])
    assert torch.load(path) == {"step": 1}
    # what is left of the new one is no checkpoint by its name, and the next write removes it
    assert [p.suffix for p in tmp_path.iterdir() if p != path] == [".part"]
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 2}
    if sys.platform == "linux":  # elsewhere it is left for a day
        assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_good_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert list(path.parent.iterdir()) == [path]


# The loader


class Draws(Dataset):
    """Samples that draw."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> tuple[int, float]:
        return number, torch.rand(()).item()


def batches(loader: DataLoader) -> list[tuple[list[int], list[float]]]:
    return [(numbers.tolist(), drawn.tolist()) for numbers, drawn in loader]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_loader_goes_on_where_it_was(shuffle: bool, drop_last: bool) -> None:
    def make() -> Any:
        plain = DataLoader(Draws(), batch_size=4, shuffle=shuffle, drop_last=drop_last)
        loader = resumable(plain, seed=5)
        loader.sampler.set_epoch(3)
        return loader

    whole = batches(make())
    assert len(whole) == len(make()) == (2 if drop_last else 3)
    for done in range(len(whole)):
        loader, rest = make(), make()
        iterator = iter(loader)
        for _ in range(done):
            next(iterator)
        rest.load_state_dict(loader.state_dict())
        assert batches(rest) == whole[done:]
        assert batches(rest) == whole  # the next epoch is whole
    complete = make()
    batches(complete)
    assert complete.state_dict() == {"epoch": 3, "batches": 0}


def test_batches_are_skipped_in_their_own_epoch_alone() -> None:
    """An epoch may end before the loader does, by limit_train_batches."""
    loader = resumable(DataLoader(Draws(), batch_size=4), seed=5)
    loader.load_state_dict({"epoch": 0, "batches": 2})
    loader.sampler.set_epoch(1)
    assert len(batches(loader)) == 3


def test_order_follows_from_seed_and_epoch_alone() -> None:
    orders = set()
    for seed in (0, 1):
        for epoch in (0, 1):
            loader = resumable(DataLoader(Draws(), shuffle=True), seed=seed)
            loader.sampler.set_epoch(epoch)
            order = tuple(int(numbers) for numbers, _ in loader)
            assert sorted(order) == list(range(10))
            orders.add(order)
    assert len(orders) == 4


def test_loading_leaves_the_generator_of_dropout_alone() -> None:
    state = torch.get_rng_state()
    batches(resumable(DataLoader(Draws(), shuffle=True), seed=0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "loader", [[1, 2], DataLoader(range(3), batch_size=None)], ids=["list", "no batches"]
)
def test_other_loaders_are_refused(loader: Any) -> None:
    with pytest.raises(TypeError, match="expected a DataLoader with a batch size"):
        resumable(loader, seed=0)
    with pytest.raises(TypeError, match="got a ResumableDataLoader"):
        resumable(resumable(DataLoader(range(3)), seed=0), seed=0)
