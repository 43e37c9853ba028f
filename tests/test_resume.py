"""A killed training run resumes with the same result, and no good checkpoint is lost."""

import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset

from helpers.crash_training import BATCHES, train
from pytorch_forecasting_mlstm.resume import AtomicCheckpointIO, resumable

TESTS = Path(__file__).parent
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    # the dataset warns once in prediction that its windows have random lengths
    pytest.mark.filterwarnings("ignore:If predicting, no randomization:UserWarning"),
]


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainer.lightning_module.state_dict().items()}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name in actual:
        assert torch.equal(actual[name], expected[name]), name


def train_until_killed(folder: Path, step: int, every: int = 3) -> None:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment["CRASH_TRAINING_EVERY"] = str(every)
    command = [sys.executable, str(TESTS / "helpers" / "crash_training.py"), str(folder), str(step)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    """Train without a kill; return the folder of checkpoints after every step, and the trainer."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the filters of this module
        return folder, train(folder, every=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_training_ends_with_the_same_weights(
    tmp_path: Path, uninterrupted: tuple[Path, Trainer]
) -> None:
    """It is killed in step 7, within the second epoch, after a checkpoint of step 6."""
    folder = tmp_path / "killed"
    train_until_killed(folder, 7)
    assert sorted(path.name for path in folder.iterdir()) == [
        "last.ckpt",
        "step=3.ckpt",
        "step=6.ckpt",
    ]
    resumed, (_, expected) = train(folder, "last"), uninterrupted
    assert resumed.global_step == expected.global_step == 3 * BATCHES
    assert_same(weights(resumed), weights(expected))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_training_killed_twice_ends_with_the_same_weights(
    tmp_path: Path, uninterrupted: tuple[Path, Trainer]
) -> None:
    """It is killed after the last step of the first epoch, and of the second."""
    folder = tmp_path / "killed"
    for step in (BATCHES, 2 * BATCHES):
        train_until_killed(folder, step, every=1)
    resumed, (_, expected) = train(folder, str(folder / "last.ckpt"), every=1), uninterrupted
    assert resumed.global_step == expected.global_step == 3 * BATCHES
    assert resumed.current_epoch == expected.current_epoch == 3
    assert_same(weights(resumed), weights(expected))


QUICK_STEPS = (1, 4, 6, 8)  # the first step, the last of two epochs, and one in between


@pytest.mark.parametrize(
    "step",
    [
        step if step in QUICK_STEPS else pytest.param(step, marks=pytest.mark.slow)
        for step in range(1, 3 * BATCHES)
    ],
)
def test_every_checkpoint_leads_to_the_same_weights(
    tmp_path: Path, uninterrupted: tuple[Path, Trainer], step: int
) -> None:
    """Checkpoints at the start, in the middle and at the end of an epoch, before its validation."""
    folder, expected = uninterrupted
    resumed = train(tmp_path / "resumed", str(folder / f"step={step}.ckpt"), every=1)
    assert_same(weights(resumed), weights(expected))


def test_resume_without_the_resumable_loader_differs(
    tmp_path: Path, uninterrupted: tuple[Path, Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the tests above can fail."""
    folder, expected = uninterrupted[0], weights(uninterrupted[1])
    monkeypatch.setattr("pytorch_forecasting_mlstm.resume.ResumableDataLoader._skip", 0)
    monkeypatch.setattr(
        "pytorch_forecasting_mlstm.resume.ResumableDataLoader.load_state_dict", lambda *_: None
    )
    path = str(folder / "step=6.ckpt")
    resumed = weights(train(tmp_path / "resumed", path, every=1))
    assert any(not torch.equal(resumed[name], expected[name]) for name in expected)


# Writing


def die_while_writing(path: Path) -> None:
    def save_half(checkpoint: Any, file: Any) -> None:
        file.write(b"half of a checkpoint" * 1000)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_half
    AtomicCheckpointIO().save_checkpoint({}, path)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_write_keeps_the_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    # a fork, since the imports of a new process take seconds
    writer = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(path,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads
        writer.start()
    writer.join(timeout=300)
    assert writer.exitcode == -signal.SIGKILL
    assert torch.load(path) == {"step": 1}
    # the incomplete file does not have the name of a checkpoint, and the next write removes it
    assert [p.suffix for p in tmp_path.iterdir() if p != path] == [".part"]
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 2}
    if sys.platform == "linux":  # other systems keep it for a day
        assert list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_the_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def fail(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert list(path.parent.iterdir()) == [path]


# The loader


class RandomSamples(Dataset):
    """Samples with a random number."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> tuple[int, float]:
        return number, torch.rand(()).item()


def batches(loader: DataLoader) -> list[tuple[list[int], list[float]]]:
    return [(numbers.tolist(), draws.tolist()) for numbers, draws in loader]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_loader_resumes_within_an_epoch(shuffle: bool, drop_last: bool) -> None:
    def make_loader() -> Any:
        loader = resumable(
            DataLoader(RandomSamples(), batch_size=4, shuffle=shuffle, drop_last=drop_last), seed=5
        )
        loader.sampler.set_epoch(3)
        return loader

    expected = batches(make_loader())
    assert len(expected) == len(make_loader()) == (2 if drop_last else 3)
    for count in range(len(expected)):
        loader, resumed = make_loader(), make_loader()
        iterator = iter(loader)
        for _ in range(count):
            next(iterator)
        resumed.load_state_dict(loader.state_dict())
        assert batches(resumed) == expected[count:]
        assert batches(resumed) == expected  # the next epoch is complete
    exhausted = make_loader()
    batches(exhausted)
    assert exhausted.state_dict() == {"epoch": 3, "batches": 0}


def test_loader_skips_batches_only_in_the_saved_epoch() -> None:
    """limit_train_batches may end an epoch before the loader is exhausted."""
    loader = resumable(DataLoader(RandomSamples(), batch_size=4), seed=5)
    loader.load_state_dict({"epoch": 0, "batches": 2})
    loader.sampler.set_epoch(1)
    assert len(batches(loader)) == 3


def test_loader_order_depends_on_seed_and_epoch_alone() -> None:
    orders = set()
    for seed in (0, 1):
        for epoch in (0, 1):
            loader = resumable(DataLoader(RandomSamples(), shuffle=True), seed=seed)
            loader.sampler.set_epoch(epoch)
            order = tuple(int(numbers) for numbers, _ in loader)
            assert sorted(order) == list(range(10))
            orders.add(order)
    assert len(orders) == 4


def test_loading_does_not_change_the_global_generator() -> None:
    state = torch.get_rng_state()
    batches(resumable(DataLoader(RandomSamples(), shuffle=True), seed=0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "loader", [[1, 2], DataLoader(range(3), batch_size=None)], ids=["list", "no batches"]
)
def test_resumable_rejects_other_loaders(loader: Any) -> None:
    with pytest.raises(TypeError, match="expected a DataLoader with a batch size"):
        resumable(loader, seed=0)
    with pytest.raises(TypeError, match="got a ResumableDataLoader"):
        resumable(resumable(DataLoader(range(3)), seed=0), seed=0)
