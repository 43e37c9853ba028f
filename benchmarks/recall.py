"""Recall: what followed a cue that was seen once, hundreds of steps ago, among many pairs.

    python benchmarks/recall.py
    python benchmarks/recall.py --pairs 4 16 64 --distances 256 1024 --seconds 120 --seeds 0 1 2

A sequence holds pairs: a cue, a random direction in ``--cue-size`` columns, and in the step after
it a value, drawn from a normal distribution. Then follow ``--distance`` steps of noise, and one of
the cues once more: the forecast is the value that followed it. No cue or value is ever seen in two
sequences, so that nothing can be learned by heart. The error is the mean squared error of new
sequences, divided by that of the mean: 1 is no recall, 0 is perfect.

Steps are read in patches of four, as mLSTMTime reads a long history. Every layer stands between the
same projection to tokens and the same head, has its width chosen for an equal number of
parameters, and trains for an equal time, by default of the processor, with the same optimizer.
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
    """What is to be recalled.

    Attributes
    ----------
    pairs : int
        Pairs of a cue and a value in a sequence.
    distance : int
        Steps between the last pair and the cue that is asked for.
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
        asked = torch.randint(self.pairs, (size,), generator=generator)
        rows = torch.arange(size)

        stored = torch.zeros(size, self.pairs, PATCH, self.cue_size + 1)
        stored[:, :, 0, :-1] = cues
        stored[:, :, 1, -1] = values
        between = torch.zeros(size, self.distance, self.cue_size + 1)
        between[..., -1] = NOISE * torch.randn(size, self.distance, generator=generator)
        again = torch.zeros(size, PATCH, self.cue_size + 1)
        again[:, 0, :-1] = cues[rows, asked]
        return torch.cat([stored.flatten(1, 2), between, again], dim=1), values[rows, asked]


class Forecaster(nn.Module):
    """Tokens of patches, a recurrent layer, a head at the last token."""

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
    """Make the widest model with at most so many parameters; widths are multiples of 4."""
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
    """Train for a time; the learning rate falls to zero over it. Return the number of steps."""
    now = CLOCKS[clock]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    start = now()
    for step, (x, y) in enumerate(batches(task, 64, seed)):
        progress = (now() - start) / seconds
        if progress >= 1:
            return step
        warm = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm * (1 + math.cos(math.pi * progress)) / 2
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    raise AssertionError


@torch.no_grad()
def relative_error(model: Forecaster, task: Task) -> float:
    """Return the squared error of new sequences, relative to that of the mean, which is 1."""
    model.eval()
    fresh = itertools.islice(batches(task, 256, seed=10**6), 8)
    forecast, truth = zip(*((model(x), y) for x, y in fresh), strict=True)
    return ((torch.cat(forecast) - torch.cat(truth)).square().mean()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--distances", type=int, nargs="+", default=[256])
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cue-size", type=int, default=8)
    parser.add_argument("--parameters", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, for each layer")
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--csv", type=Path, help="append a row per run to this file")
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
