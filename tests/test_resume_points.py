"""A training run that is killed at any point, any number of times, ends with the same result."""

import random
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch.utils.data import DataLoader

from helpers.resume_training import (
    SAVES,
    STOPPINGS,
    InMemoryCheckpointIO,
    Kill,
    KilledError,
    NumberedSamples,
    Outcome,
    Setting,
    TinyModel,
    assert_same,
    draw,
    run,
)
from pytorch_forecasting_mlstm.resume import SeededSteps, resumable

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]


# Kills


@pytest.mark.parametrize("kills", [(9, 9), (9, 4, 4), (9, 9, 9, 9)], ids=str)
def test_epochs_are_counted_after_files_of_their_last_step(
    tmp_path: Path, kills: tuple[int, ...]
) -> None:
    """It is killed repeatedly in the validation after the last of two steps."""
    setting = Setting(samples=7, trainer={"max_epochs": 5})
    resumed = run(setting, tmp_path / "resumed", kills)
    assert resumed.runs == len(kills) + 1
    assert_same(resumed, run(setting, tmp_path / "expected"))


EXHAUSTIVE = {
    "every step": Setting(samples=7, scheduler="plateau", stopping=STOPPINGS[1]),
    "epochs": Setting(
        samples=7, saves=SAVES["epochs"], scheduler="plateau of training", stopping=STOPPINGS[2]
    ),
    "accumulates": Setting(
        samples=10,
        saves=SAVES["batches"],
        scheduler="plateau of steps",
        trainer={"accumulate_grad_batches": 2, "val_check_interval": 1},
    ),
    "steps": Setting(samples=7, trainer={"max_epochs": -1, "max_steps": 5}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXHAUSTIVE)
def test_kills_at_every_hook(tmp_path: Path, name: str) -> None:
    """Kill the first process at every hook, and the second at a varying hook."""
    setting = EXHAUSTIVE[name]
    setting.trainer = {"max_epochs": 2, **setting.trainer}
    expected = run(setting, tmp_path / "expected")
    for hook in range(1, 100):
        resumed = run(setting, tmp_path / f"{hook}", (hook, 1 + hook * 7 % 11))
        assert_same(resumed, expected)
        if resumed.runs == 1:
            return
    raise AssertionError("the training has more hooks than this")


# in parts, which run side by side
@pytest.mark.parametrize(
    ("start", "stop"),
    [
        *((0, 3), (3, 6)),
        *(pytest.param(start, start + 6, marks=pytest.mark.slow) for start in range(6, 36, 6)),
    ],
)
def test_randomly_killed_runs_end_with_the_same_result(
    tmp_path: Path, start: int, stop: int
) -> None:
    """One to four kills, with random validation, accumulation, schedulers and checkpoints."""
    for number in range(start, stop):
        setting, kills, name = draw(random.Random(number))
        expected = run(setting, tmp_path / f"{number} expected")
        resumed = run(setting, tmp_path / f"{number} resumed", kills)
        try:
            assert_same(resumed, expected)
        except AssertionError as error:
            raise AssertionError(f"number {number}: {name}") from error


@pytest.mark.parametrize(
    "trainer", [{}, {"accumulate_grad_batches": 3}, {"val_check_interval": 1}], ids=str
)
def test_run_stopped_by_sigterm_ends_with_the_same_result(
    tmp_path: Path, trainer: dict[str, Any]
) -> None:
    """If a cluster sends SIGTERM, Lightning ends the step and then writes a checkpoint."""
    saves = ({"every_n_epochs": 1, "save_on_exception": True, "save_top_k": -1},)
    setting = Setting(samples=10, saves=saves, scheduler="plateau of training", trainer=trainer)
    expected = run(setting, tmp_path / "expected")
    for hook in (3, 8, 16, 19):
        resumed = run(setting, tmp_path / str(hook), (hook, hook), by_signal=True)
        assert resumed.runs == 3
        assert_same(resumed, expected)


@pytest.mark.parametrize("stopping", STOPPINGS[1:], ids=["validation", "epoch"])
def test_early_stopping_after_a_kill(tmp_path: Path, stopping: dict[str, Any]) -> None:
    """A kill at the end of the last epoch changes neither the last step nor the learning rate."""
    saves = SAVES["epochs, at their end"]
    setting = Setting(7, "plateau of steps", saves, stopping, {"max_epochs": 9})
    expected = run(setting, tmp_path / "expected")
    assert 1 < expected.epoch < 9
    kills = (expected.epoch,)
    resumed = run(setting, tmp_path / "resumed", kills, hooks=("on_train_epoch_end",))
    assert resumed.runs == 2
    assert_same(resumed, expected)


def fit(*callbacks: Any, **options: Any) -> Outcome:
    """Train with the given callbacks, from ``ckpt_path`` if it is given."""
    outcome = Outcome()
    model = TinyModel()
    model.trace = outcome.trace
    path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, SeededSteps(seed=2)],
        plugins=[InMemoryCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **options},
    )
    data = NumberedSamples(10)
    loader = DataLoader(data, batch_size=3, shuffle=True, drop_last=True)
    trainer.fit(model, resumable(loader, seed=3), DataLoader(data), ckpt_path=path)
    outcome.steps = trainer.global_step
    return outcome


def test_no_checkpoint_within_an_optimizer_step(tmp_path: Path) -> None:
    """A kill during the step keeps the checkpoint before it."""
    checkpoint = ModelCheckpoint(
        tmp_path, every_n_train_steps=2, save_last=True, save_on_exception=True
    )
    with pytest.raises(RuntimeError, match="SeededSteps: a checkpoint must hold .* completed step"):
        fit(checkpoint, Kill(4, hooks=("on_before_optimizer_step",)))
    assert InMemoryCheckpointIO.files[InMemoryCheckpointIO.path]["global_step"] == 2


@pytest.mark.filterwarnings("ignore:.*ckpt_path:UserWarning")
def test_checkpoint_of_an_exception_is_resumable(tmp_path: Path) -> None:
    """Within an accumulation, its state is that before the first accumulated batch."""
    InMemoryCheckpointIO.path = None
    callbacks = [OnExceptionCheckpoint(tmp_path), Kill(4, hooks=("on_after_backward",))]
    with pytest.raises(KilledError):
        fit(*callbacks, accumulate_grad_batches=2)
    loops = InMemoryCheckpointIO.files[InMemoryCheckpointIO.path]["loops"]["fit_loop"]
    assert loops["epoch_loop.batch_progress"]["current"]["ready"] == 0
    assert loops["epoch_progress"]["current"]["completed"] == 1


def test_validation_checkpoint_is_not_saved_twice(tmp_path: Path) -> None:
    """The resumed run repeats the validation, but its checkpoint exists already."""
    options = {"monitor": "val_loss", "save_top_k": -1, "every_n_epochs": 1}
    with pytest.raises(KilledError):
        fit(ModelCheckpoint(tmp_path, **options), Kill(2, hooks=("on_train_epoch_end",)))
    assert fit(ModelCheckpoint(tmp_path, **options), ckpt_path=InMemoryCheckpointIO.path).steps == 6
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]


def test_complete_training_runs_no_more_steps(tmp_path: Path) -> None:
    assert fit(ModelCheckpoint(tmp_path, save_last=True)).steps == 6
    path = InMemoryCheckpointIO.path
    assert fit(ModelCheckpoint(tmp_path, save_last=True), ckpt_path=path).trace == {}
    extended = fit(ModelCheckpoint(tmp_path, save_last=True), ckpt_path=path, max_epochs=3)
    assert sorted(extended.trace) == [6, 7, 8]
    assert extended.trace[6][:2] == (2, 0)


# Lightning


def test_lightning_has_the_attributes_that_are_set(tmp_path: Path) -> None:
    """If a new release of Lightning moves a counter, this test names it."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    loop = trainer.fit_loop
    for owner, names in (
        (loop, "_restarting _data_fetcher restarting"),
        (loop.epoch_loop, "_batches_that_stepped _results restarting _should_check_val_fx"),
        (loop.epoch_loop, "_num_ready_batches_reached update_lr_schedulers"),
        (loop.epoch_loop.val_loop, "_has_run"),
        (trainer._logger_connector, "_first_loop_iter"),
        (ModelCheckpoint(), "_last_global_step_saved best_k_models last_model_path"),
    ):
        for name in names.split():
            assert hasattr(owner, name), f"{type(owner).__name__}.{name}"
    state = loop.state_dict()
    counts = {"ready", "started", "processed", "completed"}
    for name in (
        "epoch_progress",
        "epoch_loop.batch_progress",
        "epoch_loop.val_loop.batch_progress",
    ):
        assert set(state[name]["total"]) == set(state[name]["current"]) == counts, name
    assert "_batches_that_stepped" in state["epoch_loop.state_dict"]
    assert "state_dict" in state
