"""Scaling of training over processes: windows per second, and parallel efficiency.

    python benchmarks/ddp_scaling.py
    python benchmarks/ddp_scaling.py --processes 1 2 4 --accelerator gpu

Every process has the same batch size (weak scaling) and one torch thread. Efficiency is the rate of
N processes divided by N times the rate of one. It is meaningful only if every process has a core or
a device. The bound is the efficiency of N independent training runs at the same time, the most that
the machine allows. Each number of processes is measured in fresh processes, without the first
steps.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import Callback, Trainer, seed_everything
from pytorch_forecasting import GroupNormalizer

from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

WARM_UP = 5


class Clock(Callback):
    """Times the steps after the warm-up."""

    def __init__(self) -> None:
        self.steps = 0
        self.start = self.end = 0.0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Record the time after the warm-up and at the end."""
        self.steps += 1
        if self.steps == WARM_UP or self.steps == trainer.max_steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.start, self.end = self.start or time.perf_counter(), time.perf_counter()


def make_dataset(history: int, horizon: int) -> BatchedTimeSeriesDataSet:
    rng = np.random.default_rng(0)
    steps = np.arange(2000)
    table = pd.concat(
        pd.DataFrame({"series": str(n), "t": steps, "y": rng.normal(size=2000).cumsum()})
        for n in range(8)
    )
    return BatchedTimeSeriesDataSet(
        table.reset_index(drop=True),
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=history,
        max_prediction_length=horizon,
        time_varying_unknown_reals=["y"],
        target_normalizer=GroupNormalizer(groups=["series"]),
    )


def measure(arguments: argparse.Namespace, processes: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    dataset = make_dataset(arguments.history, arguments.horizon)
    model = mLSTMTime.from_dataset(dataset, hidden_size=arguments.hidden_size)
    clock = Clock()
    trainer = Trainer(
        accelerator=arguments.accelerator,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_steps=arguments.steps + WARM_UP,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, dataset.to_dataloader(train=True, batch_size=arguments.batch, num_workers=0))
    if trainer.global_rank == 0:
        seconds = (clock.end - clock.start) / arguments.steps
        parameters = sum(p.numel() for p in model.parameters())
        print("RESULT", json.dumps({"seconds": seconds, "parameters": parameters}), flush=True)


def run_all(counts: list[int]) -> list[dict[str, Any]]:
    """Run one training loop for each count of processes, all at the same time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--run"]
    running = [
        subprocess.Popen(
            [*command, str(count)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for count in counts
    ]
    results = []
    for process in running:
        out, errors = process.communicate()
        lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
        if not lines:
            sys.exit(errors)
        results.append(json.loads(lines[0].removeprefix("RESULT ")))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64, help="windows per process and step")
    parser.add_argument("--history", type=int, default=336)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        measure(arguments, arguments.run)
        return
    print("processes  ms per step  windows per s  efficiency  bound")
    rate_of_one = 0.0
    for processes in arguments.processes:
        (result,) = run_all([processes])
        rate = processes * arguments.batch / result["seconds"]
        rate_of_one = rate_of_one or rate / processes
        independent = [arguments.batch / run["seconds"] for run in run_all([1] * processes)]
        print(
            f"{processes:9d}  {1000 * result['seconds']:11.1f}  {rate:13.0f}  "
            f"{rate / processes / rate_of_one:10.0%}  "
            f"{sum(independent) / processes / rate_of_one:5.0%}",
            flush=True,
        )
    print(
        f"{result['parameters']} parameters, {4 * result['parameters'] / 1e6:.2f} MB of gradients"
    )


if __name__ == "__main__":
    main()
