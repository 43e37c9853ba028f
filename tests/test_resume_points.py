"""A training that is killed anywhere, any number of times, ends as one that was not."""

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
    Kill,
    KilledError,
    LastFile,
    Numbers,
    Outcome,
    Setting,
    Tiny,
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
    """Killed in the validation after the last of two steps, and again."""
    setting = Setting(samples=7, trainer={"max_epochs": 5})
    cut = run(setting, tmp_path / "cut", kills)
    assert cut.runs == len(kills) + 1
    assert_same(cut, run(setting, tmp_path / "whole"))


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
    """Of the first process, and then within the second, at a place that differs each time."""
    setting = EXHAUSTIVE[name]
    setting.trainer = {"max_epochs": 2, **setting.trainer}
    whole = run(setting, tmp_path / "whole")
    for first in range(1, 100):
        cut = run(setting, tmp_path / f"{first}", (first, 1 + first * 7 % 11))
        assert_same(cut, whole)
        if cut.runs == 1:
            return
    raise AssertionError("the training has more hooks than this")


@pytest.mark.parametrize("part", range(4))
def test_drawn_settings_and_kills(tmp_path: Path, part: int) -> None:
    """Of one to four kills, over intervals of validation, accumulation, schedulers and files."""
    for number in range(8 * part, 8 * part + 8):
        setting, kills, name = draw(random.Random(number))
        whole = run(setting, tmp_path / f"{number} whole")
        cut = run(setting, tmp_path / f"{number} cut", kills)
        try:
            assert_same(cut, whole)
        except AssertionError as error:
            raise AssertionError(f"number {number}: {name}") from error


@pytest.mark.parametrize(
    "trainer", [{}, {"accumulate_grad_batches": 3}, {"val_check_interval": 1}], ids=str
)
def test_signal_to_end(tmp_path: Path, trainer: dict[str, Any]) -> None:
    """Of a cluster's scheduler: Lightning ends the step, and a file is written then."""
    saves = ({"every_n_epochs": 1, "save_on_exception": True, "save_top_k": -1},)
    setting = Setting(samples=10, saves=saves, scheduler="plateau of training", trainer=trainer)
    whole = run(setting, tmp_path / "whole")
    for first in (3, 8, 16, 19):
        cut = run(setting, tmp_path / str(first), (first, first), by_signal=True)
        assert cut.runs == 3
        assert_same(cut, whole)


@pytest.mark.parametrize("stopping", STOPPINGS[1:], ids=["validation", "epoch"])
def test_a_training_that_was_stopped_stops_again(tmp_path: Path, stopping: dict[str, Any]) -> None:
    """At the same step, after a kill at the end of its last epoch, with the same learning rate."""
    saves = SAVES["epochs, at their end"]
    setting = Setting(7, "plateau of steps", saves, stopping, {"max_epochs": 9})
    whole = run(setting, tmp_path / "whole")
    assert 2 < whole.epoch < 9
    last = run(setting, tmp_path / "cut", (whole.epoch,), hooks=("on_train_epoch_end",))
    assert last.runs == 2
    assert_same(last, whole)


def fit(*callbacks: Any, **options: Any) -> Outcome:
    """Train with other callbacks, from the last file where there is one."""
    outcome = Outcome()
    model = Tiny()
    model.trace = outcome.trace
    path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, SeededSteps(seed=2)],
        plugins=[LastFile()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **options},
    )
    loader = DataLoader(Numbers(10), batch_size=3, shuffle=True, drop_last=True)
    trainer.fit(model, resumable(loader, seed=3), DataLoader(Numbers(10)), ckpt_path=path)
    outcome.steps = trainer.global_step
    return outcome


def test_no_file_of_half_a_step(tmp_path: Path) -> None:
    """While the optimizer changes the weights, the file before is left."""
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_last=True, save_on_exception=True)
    with pytest.raises(RuntimeError, match="SeededSteps: a checkpoint must hold .* completed step"):
        fit(saved, Kill(4, hooks=("on_before_optimizer_step",)))
    assert LastFile.files[LastFile.path]["global_step"] == 2


@pytest.mark.filterwarnings("ignore:.*ckpt_path:UserWarning")
def test_file_of_an_exception_is_resumed(tmp_path: Path) -> None:
    """In the middle of an accumulation: its file is from before the first batch of it."""
    LastFile.path = None
    callbacks = [OnExceptionCheckpoint(tmp_path), Kill(4, hooks=("on_after_backward",))]
    with pytest.raises(KilledError):
        fit(*callbacks, accumulate_grad_batches=2)
    loops = LastFile.files[LastFile.path]["loops"]["fit_loop"]
    assert loops["epoch_loop.batch_progress"]["current"]["ready"] == 0
    assert loops["epoch_progress"]["current"]["completed"] == 1


def test_a_validation_is_not_saved_twice(tmp_path: Path) -> None:
    """It is run again on resume, but its file is there."""
    options = {"monitor": "val_loss", "save_top_k": -1, "every_n_epochs": 1}
    with pytest.raises(KilledError):
        fit(ModelCheckpoint(tmp_path, **options), Kill(2, hooks=("on_train_epoch_end",)))
    assert fit(ModelCheckpoint(tmp_path, **options), ckpt_path=LastFile.path).steps == 6
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]


def test_a_training_that_is_complete_stays_so(tmp_path: Path) -> None:
    assert fit(ModelCheckpoint(tmp_path, save_last=True)).steps == 6
    path = LastFile.path
    assert fit(ModelCheckpoint(tmp_path, save_last=True), ckpt_path=path).trace == {}
    more = fit(ModelCheckpoint(tmp_path, save_last=True), ckpt_path=path, max_epochs=3)
    assert sorted(more.trace) == [6, 7, 8]
    assert more.trace[6][:2] == (2, 0)


# Lightning


def test_lightning_has_what_is_set(tmp_path: Path) -> None:
    """By name, so that a new release that moves a counter fails here first."""
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
