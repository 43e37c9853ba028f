"""A tiny training run that is killed in any of its hooks, for ``test_resume_points.py``."""

import random
import signal
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_forecasting_mlstm.resume import SeededSteps, resumable


class KilledError(BaseException):
    """Simulates a killed process: nothing in the training catches it."""


class NumberedSamples(Dataset):
    """Samples that contain their number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[int, torch.Tensor]:
        return number, torch.tensor([float(number % 5), 1.0, float(number % 3)])


class TinyModel(LightningModule):
    """A model with dropout, a running mean, losses per step and epoch, and a scheduler."""

    def __init__(self, scheduler: str = "none") -> None:
        super().__init__()
        self.scheduler = scheduler
        self.norm = nn.BatchNorm1d(3)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.trace: dict[int, Any] = {}

    def loss(self, batch: Any) -> torch.Tensor:
        number, x = batch
        return (self.network(self.norm(x))[:, 0] - number / 10).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        record = (self.current_epoch, batch_idx, batch[0].tolist(), loss.item())
        # a step that a resumed run repeats must be the same
        assert self.trace.setdefault(step, record) == record
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        schedulers: dict[str, Callable[[], Any]] = {
            "none": lambda: None,
            "cycle": lambda: {
                "scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=60),
                "interval": "step",
            },
            "epochs": lambda: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7),
            "plateau": lambda: {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(
                    optimizer, patience=0, threshold=0.2
                ),
                "monitor": "val_loss",
            },
            "plateau of training": lambda: {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(
                    optimizer, patience=0, threshold=0.2
                ),
                "monitor": "train_loss_epoch",
            },
            "plateau of steps": lambda: {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(
                    optimizer, factor=0.9, patience=1, threshold=0.2
                ),
                "monitor": "train_loss_step",
                "interval": "step",
            },
        }
        scheduler = schedulers[self.scheduler]()
        return ([optimizer], [scheduler]) if scheduler else optimizer


class MetricsLogger(DummyLogger):
    """Keeps the last value of every metric at every step, as a plot shows it."""

    def __init__(self, values: dict[Any, float]) -> None:
        super().__init__()
        self.values = values

    def log_metrics(self, metrics: Any, step: Any = None, *args: Any, **kwargs: Any) -> None:
        for name, value in metrics.items():
            self.values[step, name] = value


_EPOCH_METRICS = ("val_loss", "train_loss_epoch")
HOOKS = (
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
)


class Kill(Checkpoint):
    """Ends the training after ``countdown`` hooks; Lightning runs it after other callbacks."""

    def __init__(
        self, countdown: int | None, hooks: tuple[str, ...] = HOOKS, by_signal: bool = False
    ) -> None:
        self.countdown = countdown
        self.hooks = hooks
        self.by_signal = by_signal
        self.calls = 0

    def state_dict(self) -> dict[str, Any]:
        return {}


def _count(name: str) -> Callable[..., None]:
    def hook(self: Kill, trainer: Trainer, *args: Any) -> None:
        if trainer.sanity_checking or name not in self.hooks:
            return
        self.calls += 1
        if self.calls == self.countdown and self.by_signal:
            signal.raise_signal(signal.SIGTERM)  # Lightning ends the training after the step
        elif self.calls == self.countdown:
            raise KilledError(name)

    return hook


for _name in (*HOOKS, "on_before_optimizer_step"):
    setattr(Kill, _name, _count(_name))


class InMemoryCheckpointIO(TorchCheckpointIO):
    """Keeps checkpoints in memory, and the path of the last one."""

    files: ClassVar[dict[str, Any]] = {}
    path: ClassVar[str | None] = None

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
        InMemoryCheckpointIO.path = str(path)
        InMemoryCheckpointIO.files[InMemoryCheckpointIO.path] = deepcopy(checkpoint)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        return deepcopy(InMemoryCheckpointIO.files[str(path)])


@dataclass
class Setting:
    """The settings of a training run."""

    samples: int = 13
    scheduler: str = "none"
    saves: tuple[dict[str, Any], ...] = ({"every_n_train_steps": 1, "save_top_k": -1},)
    stopping: dict[str, Any] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """The results of a training run, over all of its processes."""

    steps: int = 0
    epoch: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    trace: dict[int, Any] = field(default_factory=dict)
    logged: dict[Any, float] = field(default_factory=dict)
    final_states: dict[str, Any] = field(default_factory=dict)
    runs: int = 0
    has_max_steps: bool = False


def run(
    setting: Setting, folder: Path, kills: tuple[int, ...] = (), **kill_options: Any
) -> Outcome:
    """Train, kill each process after its number of hooks, and resume from the last checkpoint."""
    outcome = Outcome(has_max_steps="max_steps" in setting.trainer)
    InMemoryCheckpointIO.path = None
    InMemoryCheckpointIO.files.clear()
    for countdown in (*kills, None):
        outcome.runs += 1
        try:
            trainer = _train(
                setting, folder, Kill(countdown, **kill_options), outcome, InMemoryCheckpointIO.path
            )
        except (KilledError, SIGTERMException):
            continue
        outcome.steps, outcome.epoch = trainer.global_step, trainer.current_epoch
        model = trainer.lightning_module
        outcome.weights = {k: v.clone() for k, v in model.state_dict().items()}
        outcome.final_states = {
            "optimizer": [group["lr"] for group in trainer.optimizers[0].param_groups],
            "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
            "stopping": [c.state_dict() for c in trainer.early_stopping_callbacks],
        }
        break
    return outcome


def assert_same(resumed: Outcome, expected: Outcome) -> None:
    """Assert that two runs took the same steps, and logged and learned the same."""
    assert resumed.steps == expected.steps
    assert resumed.trace == expected.trace
    for name, weight in expected.weights.items():
        assert torch.equal(resumed.weights[name], weight), name
    if expected.has_max_steps:  # max_steps may end a run before the end of an epoch
        return
    assert resumed.epoch == expected.epoch
    assert resumed.final_states == expected.final_states
    epoch_metrics = [
        {key: value for key, value in outcome.logged.items() if key[1] in _EPOCH_METRICS}
        for outcome in (resumed, expected)
    ]
    assert epoch_metrics[0] == epoch_metrics[1]


def _train(
    setting: Setting, folder: Path, killer: Kill, outcome: Outcome, resume: str | None
) -> Trainer:
    # a resumed run must not depend on the global seed
    seed_everything(1 if resume is None else 999, verbose=False)
    model = TinyModel(setting.scheduler)
    if resume is None:
        seed_everything(1, verbose=False)
    model.trace = outcome.trace
    data = NumberedSamples(setting.samples)
    callbacks: list[Callback] = [
        ModelCheckpoint(folder, filename=f"{number}-{{step}}", **save)
        for number, save in enumerate(setting.saves)
    ]
    if setting.stopping is not None:
        callbacks.append(EarlyStopping(**setting.stopping))
    options = {"max_epochs": 3, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    trainer = Trainer(
        accelerator="cpu",
        logger=MetricsLogger(outcome.logged),
        callbacks=[*callbacks, SeededSteps(seed=2), killer],
        plugins=[InMemoryCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**options, **setting.trainer},
    )
    trainer.fit(
        model,
        resumable(DataLoader(data, batch_size=3, shuffle=True, drop_last=True), seed=3),
        DataLoader(data, batch_size=20),
        ckpt_path=resume,
    )
    return trainer


SAVES: dict[str, tuple[dict[str, Any], ...]] = {
    **{
        f"every {n}": ({"every_n_train_steps": n, "save_top_k": -1, "save_last": True},)
        for n in (1, 2, 3, 5, 7)
    },
    "epochs": ({"save_last": True},),
    "epochs, at their end": ({"save_top_k": -1, "save_on_train_epoch_end": True},),
    "validations": ({"monitor": "val_loss", "save_top_k": 2, "save_on_train_epoch_end": False},),
    "batches": ({"train_time_interval": timedelta(0), "save_last": True},),
    "several": (
        {"every_n_train_steps": 2, "save_top_k": -1, "save_last": True},
        {"monitor": "val_loss", "save_top_k": 2, "save_on_train_epoch_end": False},
        {"save_on_train_epoch_end": True, "every_n_epochs": 1},
    ),
    "exceptions": ({"every_n_train_steps": 3, "save_on_exception": True, "save_top_k": -1},),
}
TRAINERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "interval of 2": {"val_check_interval": 2},
    "interval of a half": {"val_check_interval": 0.5},
    "interval over epochs": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "every second epoch": {"check_val_every_n_epoch": 2},
    "sanity": {"num_sanity_val_steps": 1},
    "no validation": {"limit_val_batches": 0},
    "accumulates 2": {"accumulate_grad_batches": 2},
    "accumulates 3": {"accumulate_grad_batches": 3},
    "accumulates 2, interval of 1": {"accumulate_grad_batches": 2, "val_check_interval": 1},
    "accumulates 3, interval of 2": {"accumulate_grad_batches": 3, "val_check_interval": 2},
    "limited": {"limit_train_batches": 3},
    "steps": {"max_epochs": -1, "max_steps": 10},
    "steps of whole epochs": {"max_epochs": -1, "max_steps": 12},
    "steps, accumulates 2": {"max_epochs": -1, "max_steps": 5, "accumulate_grad_batches": 2},
}
SCHEDULERS = (
    "none",
    "cycle",
    "epochs",
    "plateau",
    "plateau of training",
    "plateau of steps",
)
STOPPINGS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"monitor": "val_loss", "patience": 1, "min_delta": 0.5},
    {
        "monitor": "train_loss_epoch",
        "patience": 1,
        "min_delta": 0.5,
        "check_on_train_epoch_end": True,
    },
)


def draw(random_: random.Random) -> tuple[Setting, tuple[int, ...], str]:
    """Draw a setting, one to four kills, and a name for messages."""
    while True:
        names = [random_.choice(list(table)) for table in (SAVES, TRAINERS)]
        scheduler, stopping = random_.choice(SCHEDULERS), random_.choice(STOPPINGS)
        trainer = TRAINERS[names[1]]
        has_val_loss = (
            trainer.get("limit_val_batches", 1) and trainer.get("check_val_every_n_epoch", 1) == 1
        )
        needs_val_loss = (
            scheduler == "plateau"
            or names[0] in ("validations", "several")
            or (stopping or {}).get("monitor") == "val_loss"
        )
        if needs_val_loss and not has_val_loss:
            continue
        setting = Setting(
            samples=random_.choice([13, 15, 16]),
            scheduler=scheduler,
            saves=SAVES[names[0]],
            stopping=stopping,
            trainer=trainer,
        )
        kills = tuple(random_.randint(1, 60) for _ in range(random_.randint(1, 4)))
        return setting, kills, f"{names} {scheduler} {stopping} {setting.samples} {kills}"
