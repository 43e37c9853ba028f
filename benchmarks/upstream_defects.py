"""Measure the defects of pytorch-forecasting's mLSTM beside this package's mLSTM.

    python benchmarks/upstream_defects.py [--csv FILE]

Prints a Markdown table; ``--csv`` also writes its rows to a file. Takes a minute on one core.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from pytorch_forecasting import GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.layers import mLSTMCell as StockCell
from pytorch_forecasting.layers import mLSTMLayer as StockLayer
from pytorch_forecasting.metrics import MAE
from pytorch_forecasting.models import xLSTMTime
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer, mLSTMTime

Row = tuple[str, str, str]  # measurement, stock, ours

WIDTH = 32  # hidden units of the cells and models
HISTORY, HORIZON, BATCH, STEPS = 48, 12, 64, 105
SPLIT = 340  # first step of the sines that is not training data


def cells() -> list[Row]:
    """Measure both cells with default arguments, but no dropout: its noise would hide the rest."""
    rows = [_signal_and_gradients(cell) for cell in (StockCell, mLSTMCell)]
    names = (
        "cell: largest abs(h) after 20 steps",
        "cell: norm of all gradients",
        "cell: norm of the query's gradients",
    )
    return [
        *zip(names, *rows, strict=True),
        ("cell: memory c after one step", _stock_memory(), _our_memory()),
    ]


def _signal_and_gradients(cell_class: type[nn.Module]) -> tuple[str, str, str]:
    torch.manual_seed(0)
    cell = cell_class(8, WIDTH, dropout=0.0)
    h, c, n = cell.init_hidden(16)
    for x in torch.randn(20, 16, 8):
        h, c, n = cell(x, h, c, n)
    h.square().mean().backward()
    gradients = [p.grad for p in cell.parameters() if p.grad is not None]
    total = torch.stack([gradient.norm() for gradient in gradients]).norm()
    if isinstance(cell, StockCell):
        query = cell.Wq.weight.grad
    else:
        query = cell.projection.weight.grad[:WIDTH]
    return (
        f"{h.abs().max():.1e}",
        f"{total:.1e}",
        "None" if query is None else f"{query.norm():.1e}",
    )


def _stock_memory() -> str:
    """Compare c with i (Σk) v, a vector."""
    torch.manual_seed(0)
    cell = StockCell(8, WIDTH, dropout=0.0, layer_norm=False)  # layer norm makes the sum of k 0
    x = torch.randn(16, 8)
    _, c, _ = cell(x, *cell.init_hidden(16))
    k, v = cell.Wk(x) / math.sqrt(WIDTH), cell.Wv(x)
    error = (c - torch.sigmoid(cell.Wi(x)) * k.sum(1, keepdim=True) * v).abs().max()
    return f"i·(Σk)·v, {c[0].numel()} numbers (off by {error:.0e})"


def _our_memory() -> str:
    """Compare c with i v kᵀ, a matrix per head."""
    torch.manual_seed(0)
    cell = mLSTMCell(8, WIDTH, dropout=0.0, layer_norm=False, num_heads=1)
    x = torch.randn(16, 8)
    _, c, _ = cell(x, *cell.init_hidden(16))
    _, k, v, i, _, _ = cell.projection(x).split([WIDTH] * 3 + [1, 1, WIDTH], dim=1)
    i = (15 * torch.tanh(i / 15)).exp()
    outer = torch.einsum("bv,bk->bvk", v, k / math.sqrt(WIDTH))
    error = (c.squeeze(1) - i[..., None] * outer).abs().max()
    return f"i·v kᵀ, {c[0].numel()} numbers (off by {error:.0e})"


def speed() -> list[Row]:
    """Time forward and backward of one layer over a sequence, relative to ``nn.LSTM``."""
    steps, batch, width = 256, 32, 64
    x = torch.randn(steps, batch, width)
    layers = [
        nn.LSTM(width, width),
        StockLayer(width, width, 1, dropout=0.0),
        mLSTMLayer(width, width, 1, dropout=0.0),
    ]
    durations: list[list[float]] = [[] for _ in layers]
    for _ in range(6):
        # alternately, under the same load
        for seconds, layer in zip(durations, layers, strict=True):
            seconds.append(_time(lambda layer=layer: layer(x)[0].square().sum().backward()))
    lstm, stock, ours = (statistics.median(seconds[1:]) for seconds in durations)
    name = f"layer: time of {steps} steps, nn.LSTM = 1"
    return [(name, f"{stock / lstm:.1f}", f"{ours / lstm:.1f}")]


def _time(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def models() -> list[Row]:
    """Measure both models on eight noisy sines around 10, on windows after the training data."""
    training, test = _sines()
    columns = [_model(_stock_model, training, test), _model(_our_model, training, test)]
    truth = torch.cat([y[0] for _, y in _batches(test)]).mean()
    names = (
        "model: MAE before training",
        f"model: MAE after {STEPS} steps",
        f"model: mean forecast after training (truth {truth:.1f})",
        "model: change of a forecast when its batch changes",
        "model: batch of one",
    )
    return list(zip(names, *columns, strict=True))


def _sines() -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    generator = np.random.default_rng(0)
    t = np.arange(400)
    series = [
        pd.DataFrame(
            {
                "t": t,
                "series": str(number),
                "y": 10
                + 3 * np.sin(2 * np.pi * (t / 24 + number / 8))
                + generator.normal(scale=0.05, size=len(t)),
            }
        )
        for number in range(8)
    ]
    data = pd.concat(series, ignore_index=True)
    training = TimeSeriesDataSet(
        data[data["t"] < SPLIT],
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_unknown_reals=["y"],
        target_normalizer=GroupNormalizer(groups=["series"]),
    )
    test = TimeSeriesDataSet.from_dataset(training, data, min_prediction_idx=SPLIT)
    return training, test


def _stock_model(training: TimeSeriesDataSet) -> BaseModel:
    return xLSTMTime.from_dataset(
        training,
        input_size=1,
        hidden_size=WIDTH,
        output_size=HORIZON,
        xlstm_type="mlstm",
        loss=MAE(),
        learning_rate=1e-2,
    )


def _our_model(training: TimeSeriesDataSet) -> BaseModel:
    return mLSTMTime.from_dataset(training, hidden_size=WIDTH, loss=MAE(), learning_rate=1e-2)


def _model(
    build: Callable[[TimeSeriesDataSet], BaseModel],
    training: TimeSeriesDataSet,
    test: TimeSeriesDataSet,
) -> tuple[str, str, str, str, str]:
    pl.seed_everything(0, verbose=False)
    model = build(training)
    before, _ = _error_and_mean(model, test)
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, training.to_dataloader(train=True, batch_size=BATCH))
    after, mean = _error_and_mean(model, test)

    x, _ = _batches(test)[0]
    in_full_batch, in_batch_of_3 = _forecast(model, x), _forecast(model, _rows(x, [0, 20, 40]))
    change = (in_full_batch[0] - in_batch_of_3[0]).abs().max()
    try:
        _forecast(model, _rows(x, [0]))
        batch_of_one = "works"
    except ValueError as error:
        batch_of_one = f"{type(error).__name__}"
    return f"{before:.3f}", f"{after:.3f}", f"{mean:.1f}", f"{change:.1e}", batch_of_one


def _batches(dataset: TimeSeriesDataSet) -> list[tuple[dict[str, Tensor], tuple[Tensor, None]]]:
    return list(dataset.to_dataloader(train=False, batch_size=BATCH))


def _rows(x: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: tensor[rows] for name, tensor in x.items()}


@torch.no_grad()
def _forecast(model: BaseModel, x: dict[str, Tensor]) -> Tensor:
    return model.eval()(x)["prediction"][..., 0]


def _error_and_mean(model: BaseModel, dataset: TimeSeriesDataSet) -> tuple[float, float]:
    batches = _batches(dataset)
    forecast = torch.cat([_forecast(model, x) for x, _ in batches])
    truth = torch.cat([y for _, (y, _) in batches])
    return (forecast - truth).abs().mean().item(), forecast.mean().item()


def main() -> None:
    """Measure, print, and write the CSV file if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="also write the table to this file"
    )
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # advice on data loaders

    header = (
        f"torch {version('torch')}",
        f"pytorch-forecasting {version('pytorch-forecasting')}",
        "this package",
    )
    rows = [*cells(), *speed(), *models()]
    for row in (header, ("---",) * 3, *rows):
        print("| " + " | ".join(row) + " |")
    if arguments.csv:
        with arguments.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()
