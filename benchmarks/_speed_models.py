"""Training steps of models, for mlstm_speed.py."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from _speed_bench import BATCH, HISTORY, HORIZON, WIDTH, Bench, Row, Workload
from _speed_memory import fresh_process
from pytorch_forecasting import (
    GroupNormalizer,
    NHiTS,
    RecurrentNetwork,
    TemporalFusionTransformer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.metrics import MAE
from pytorch_forecasting.models import TiDEModel, xLSTMTime
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMTime

COMMON: dict[str, Any] = dict(loss=MAE(), learning_rate=1e-3)
WIDE = COMMON | dict(hidden_size=WIDTH)
XLSTM = WIDE | dict(input_size=2, output_size=HORIZON, xlstm_type="mlstm")
#: Name, class, arguments, and whether it is recurrent or has attention.
COMPETITORS: list[tuple[str, type[BaseModel], dict[str, Any], bool]] = [
    ("RecurrentNetwork (LSTM), 1 layer", RecurrentNetwork, WIDE | dict(rnn_layers=1), True),
    ("RecurrentNetwork (LSTM), default", RecurrentNetwork, WIDE, True),
    ("TemporalFusionTransformer", TemporalFusionTransformer, WIDE, True),
    ("xLSTMTime, mlstm", xLSTMTime, XLSTM, True),
    ("NHiTS", NHiTS, WIDE, False),
    ("TiDEModel", TiDEModel, WIDE, False),
    ("mLSTMTime, patch_length 1", mLSTMTime, COMMON | dict(patch_length=1), False),
]


def time_training_step(bench: Bench) -> Iterator[Row]:
    """Time each model beside mLSTMTime, every pair in a process of its own.

    In one process for all, what a model leaves in caches and the allocator would slow the others.
    """
    case = f"{HISTORY} + {HORIZON} steps, batch {BATCH}"
    for place in bench.choose(range(len(COMPETITORS)), (0,)):
        name, _, _, serial = COMPETITORS[place]
        with fresh_process(bench, returns_memory=False) as process:
            (our_time, ours), (figure, theirs) = process.submit(time_pair, bench, place).result()
        against = f"mLSTMTime, {ours}"
        yield Row(
            case, f"{name}, {theirs}", figure, against, our_time, minimum=1.0 if serial else 0.0
        )


def time_pair(bench: Bench, place: int) -> list[tuple[float, str]]:
    """Return milliseconds per step and number of parameters: of mLSTMTime and of a competitor."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    dataset = sines()
    x, y = next(iter(dataset.to_dataloader(train=True, batch_size=BATCH)))
    x, y = on_device((x, y), bench.device)
    _, competitor, arguments, _ = COMPETITORS[place]
    models = [mLSTMTime.from_dataset(dataset, **COMMON)]
    models.append(competitor.from_dataset(dataset, **arguments))
    times = bench.medians(
        *(training_step(model.to(bench.device), x, y) for model in models), rounds=15
    )
    return [(time, parameters(model)) for time, model in zip(times, models, strict=True)]


def parameters(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def training_step(model: BaseModel, x: dict[str, Tensor], y: tuple[Tensor, Any]) -> Workload:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()

    def workload() -> None:
        optimizer.zero_grad()
        model.loss(model(x)["prediction"], y).backward()
        optimizer.step()

    return workload


def sines() -> TimeSeriesDataSet:
    """Make a dataset of noisy daily seasons, with one known covariate."""
    generator = np.random.default_rng(0)
    t = np.arange(HISTORY + HORIZON + BATCH)
    day = np.sin(2 * np.pi * t / 24)
    series = [
        pd.DataFrame(
            {
                "t": t,
                "series": str(number),
                "day": day,
                "y": 10 + number + 3 * day + generator.normal(scale=0.1, size=len(t)),
            }
        )
        for number in range(4)
    ]
    return TimeSeriesDataSet(
        pd.concat(series, ignore_index=True),
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_known_reals=["day"],
        time_varying_unknown_reals=["y"],
        target_normalizer=GroupNormalizer(groups=["series"]),
    )


def on_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: on_device(part, device) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(on_device(part, device) for part in batch)
    return batch
