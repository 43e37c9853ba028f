"""Speed of forecasts in a service: latency of one series, throughput of many.

    python benchmarks/forecast_speed.py                    # 1, 100 and 10,000 series, one thread
    python benchmarks/forecast_speed.py --series 1,100 --repeats 20
    python benchmarks/forecast_speed.py --clock cpu        # on a machine that others use, too

The history has 336 steps, the horizon 96. Models are untrained: their time does not depend on the
weights. ``mLSTMTime.forecast`` reads a table and returns one; its network is timed alone on the
batches of the same tables. DeepAR and NHiTS of pytorch-forecasting get what their ``predict``
needs: a table that already contains rows for the horizon. Calls alternate, so that other load on
the machine slows all down alike. The figures are minima and medians of wall time, or of processor
time with ``--clock cpu``: one thread does all the work, so both agree on an idle machine.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting import DeepAR, EncoderNormalizer, NHiTS, TimeSeriesDataSet
from pytorch_forecasting.metrics import QuantileLoss

from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.inference import inference_view

HISTORY, HORIZON = 336, 96
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
QUANTILES = [0.1, 0.5, 0.9]
#: Most series that the models of pytorch-forecasting are timed with.
MAX_SERIES = {"DeepAR": 1000, "NHiTS": 10_000}


def make_table(n_series: int, steps: int) -> pd.DataFrame:
    """Make noisy daily cycles."""
    rng = np.random.default_rng(0)
    t = np.tile(np.arange(steps), n_series)
    values = 10 + np.sin(2 * np.pi * t / 24) + 0.3 * rng.normal(size=len(t))
    series = np.repeat(np.arange(n_series), steps).astype(str)
    return pd.DataFrame({"series": series, "t": t, "y": values})


def make_models() -> dict[str, Any]:
    """Make the models for one target without covariates."""
    dataset = TimeSeriesDataSet(
        make_table(3, HISTORY + HORIZON),
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_unknown_reals=["y"],
        target_normalizer=EncoderNormalizer(),
    )
    return {
        "mLSTMTime": mLSTMTime.from_dataset(dataset, loss=QuantileLoss(QUANTILES)),
        "DeepAR": DeepAR.from_dataset(dataset),
        "NHiTS": NHiTS.from_dataset(dataset, loss=QuantileLoss(QUANTILES)),
    }


def record_batches(model: Any, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the batches that the network receives in a forecast."""
    batches: list[dict[str, Any]] = []
    kind, original = type(model), type(model).forward

    def forward(self: Any, x: dict[str, Any]) -> Any:
        batches.append(x)
        return original(self, x)

    kind.forward = forward
    try:
        model.forecast(table)
    finally:
        kind.forward = original
    return batches


def alternate(
    calls: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Time calls in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def measure(
    models: dict[str, Any], n_series: int, repeats: int, clock: Callable[[], float]
) -> None:
    """Print one row for each model."""
    whole = make_table(n_series, HISTORY + HORIZON)
    history = whole[whole["t"] < HISTORY].reset_index(drop=True)
    model = models["mLSTMTime"]
    batches, view = record_batches(model, history), inference_view(model)

    def run_network() -> None:
        with torch.no_grad():
            for x in batches:
                view(x)

    def predict(other: Any) -> Callable[[], Any]:
        arguments = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
        return lambda: other.predict(whole, mode="quantiles", trainer_kwargs=arguments)

    calls = {"mLSTMTime.forecast": lambda: model.forecast(history), "its network": run_network}
    for name, largest in MAX_SERIES.items():
        if n_series <= largest:
            calls[f"{name}.predict"] = predict(models[name])
    times = alternate(calls, repeats, clock)
    network = min(times["its network"])
    for name, values in times.items():
        best, median = min(values), statistics.median(values)
        row = f"{n_series:>6} | {name:<18} | {1e3 * best:>9.1f} | {1e3 * median:>9.1f} | "
        row += f"{n_series / best:>8.0f}"
        if name == "mLSTMTime.forecast":
            row += f" | {1e3 * (best - network):.1f} ms beyond the network, "
            row += f"{network / best:.0%} network"
        print(row, flush=True)


def main() -> None:
    """Measure all numbers of series."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", default="1,100,10000", help="numbers of series")
    parser.add_argument("--repeats", type=int, default=30, help="calls at one series")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    models = make_models()
    print("series | call               |  least ms | median ms | series/s")
    for n_series in map(int, arguments.series.split(",")):
        repeats = max(
            1, arguments.repeats // (1 if n_series == 1 else 5 if n_series < 1000 else 15)
        )
        measure(models, n_series, repeats, CLOCKS[arguments.clock])


if __name__ == "__main__":
    main()
