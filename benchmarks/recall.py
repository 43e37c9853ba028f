"""Recall of the value that followed a cue once, hundreds of steps ago, among many pairs.

    python benchmarks/recall.py
    python benchmarks/recall.py --pairs 4 16 64 --distances 256 1024 --seconds 120 --seeds 0 1 2

A sequence starts with pairs of a cue, which is a random direction in ``--cue-size`` columns, and a
normally distributed value in the next step. After ``--distances`` steps of noise, one of the cues
appears again, and the task is to forecast its value. Cues and values are drawn anew for every
sequence, so that they cannot be memorized. The error is the mean squared error on new sequences
divided by that of forecasting the mean: 1 is no recall, 0 is perfect.

Steps are read in patches of four, as in mLSTMTime. Every layer has the same projection before it
and the same head after it, about the same number of parameters, and trains for the same time (by
default processor time) with the same optimizer.
"""

import argparse
import csv
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_forecasting.layers import mLSTMLayer as StockLayer
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMLayer

PATCH = 4
NOISE = 0.3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Task:
    """Sizes of the sequences.

    Attributes
    ----------
    pairs : int
        Pairs of a cue and a value in a sequence.
    distance : int
        Steps between the last pair and the query.
    cue_size : int
        Columns of a cue.
    """

    pairs: int
    distance: int
    cue_size: int

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw sequences (B, T, cue_size + 1), and the values to forecast (B,)."""
        cues = torch.randn(size, self.pairs, self.cue_size, generator=generator)
        cues = cues / cues.norm(dim=-1, keepdim=True) * math.sqrt(self.cue_size)
        values = torch.randn(size, self.pairs, generator=generator)
        queried = torch.randint(self.pairs, (size,), generator=generator)
        rows = torch.arange(size)

        pairs = torch.zeros(size, self.pairs, PATCH, self.cue_size + 1)
        pairs[:, :, 0, :-1] = cues
        pairs[:, :, 1, -1] = values
        noise = torch.zeros(size, self.distance, self.cue_size + 1)
        noise[..., -1] = NOISE * torch.randn(size, self.distance, generator=generator)
        query = torch.zeros(size, PATCH, self.cue_size + 1)
        query[:, 0, :-1] = cues[rows, queried]
        return torch.cat([pairs.flatten(1, 2), noise, query], dim=1), values[rows, queried]


class Forecaster(nn.Module):
    """Patches as tokens, a recurrent layer, and a head at the last token."""

    def __init__(self, step_size: int, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.tokens = nn.Linear(PATCH * step_size, width)
        self.layer = layer
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences (B, T, step_size) to forecasts (B,)."""
        tokens = self.tokens(x.unflatten(1, (-1, PATCH)).flatten(2)).transpose(0, 1)
        return self.head(self.layer(tokens)[0][-1])[:, 0]


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "mLSTM": lambda width: mLSTMLayer(width, width, dropout=0.0),
    "nn.LSTM": lambda width: nn.LSTM(width, width),
    "stock mLSTM": lambda width: StockLayer(width, width, 1, dropout=0.0),
}


def build(name: str, step_size: int, parameters: int) -> Forecaster:
    """Make the widest model with at most ``parameters`` parameters; its width divides by 4."""
    for width in itertools.count(4, 4):
        model = Forecaster(step_size, width, LAYERS[name](width))
        if sum(weights.numel() for weights in model.parameters()) > parameters:
            width -= 4
            return Forecaster(step_size, width, LAYERS[name](width))
    raise AssertionError


def batches(task: Task, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield task.draw(size, generator)


def train(
    model: Forecaster, task: Task, seed: int, seconds: float, learning_rate: float, clock: str
) -> int:
    """Train for ``seconds`` while the learning rate decays to zero; return the number of steps."""
    now = CLOCKS[clock]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    start = now()
    for step, (x, y) in enumerate(batches(task, 64, seed)):
        progress = (now() - start) / seconds
        if progress >= 1:
            return step
        warm_up = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm_up * (1 + math.cos(math.pi * progress)) / 2
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    raise AssertionError


@torch.no_grad()
def relative_error(model: Forecaster, task: Task) -> float:
    """Return the squared error on new sequences; forecasting the mean gives 1."""
    model.eval()
    test_batches = itertools.islice(batches(task, 256, seed=10**6), 8)
    forecast, truth = zip(*((model(x), y) for x, y in test_batches), strict=True)
    return ((torch.cat(forecast) - torch.cat(truth)).square().mean()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--distances", type=int, nargs="+", default=[256])
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cue-size", type=int, default=8)
    parser.add_argument("--parameters", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each layer")
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--csv", type=Path, help="append one row per run to this file")
    arguments = parser.parse_args()
    if any(distance < 0 or distance % PATCH for distance in arguments.distances):
        parser.error(f"--distances: expected multiples of {PATCH}, got {arguments.distances}")

    torch.set_num_threads(1)
    print("| pairs | distance | layer | seed | parameters | steps | relative squared error |")
    print("|" + " --- |" * 7, flush=True)
    settings = itertools.product(arguments.pairs, arguments.distances, arguments.seeds)
    for pairs, distance, seed in settings:
        task = Task(pairs, distance, arguments.cue_size)
        for name in arguments.layers:
            torch.manual_seed(seed)
            model = build(name, task.cue_size + 1, arguments.parameters)
            steps = train(
                model, task, seed, arguments.seconds, arguments.learning_rate, arguments.clock
            )
            row = [
                pairs,
                distance,
                name,
                seed,
                sum(weights.numel() for weights in model.parameters()),
                steps,
                round(relative_error(model, task), 4),
            ]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            if arguments.csv:
                new = not arguments.csv.exists()
                with arguments.csv.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file)
                    if new:
                        writer.writerow(
                            ["pairs", "distance", "layer", "seed", "parameters", "steps", "error"]
                        )
                    writer.writerow(row)


if __name__ == "__main__":
    main()
