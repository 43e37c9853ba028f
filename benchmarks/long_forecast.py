"""Coverage of intervals beyond the horizon of training, on autoregressive series.

    python benchmarks/long_forecast.py
    python benchmarks/long_forecast.py --phi 0.9 --loss normal --epochs 5

Each series follows y[t] = phi y[t-1] + noise, with an optional season. The model sees 48 steps and
is trained on 12; it forecasts 48 steps of new series. For each block of 12 steps, the script prints
the share of values between the quantiles 0.1 and 0.9, which should be 0.8. The first block is the
usual forecast.
"""

import argparse
import logging
import warnings

import numpy as np
import pandas as pd
import torch
from lightning import Trainer, seed_everything
from pytorch_forecasting.metrics import NormalDistributionLoss, QuantileLoss

from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

HISTORY, HORIZON, STEPS = 48, 12, 48
BURN_IN, PERIOD = 100, 12
LOSSES = {"quantiles": lambda: QuantileLoss([0.1, 0.5, 0.9]), "normal": NormalDistributionLoss}
#: The settings of docs/guide/forecasting.md: coefficient, loss, amplitude of the season.
SETTINGS = [
    (0.9, "quantiles", 0.0),
    (0.9, "normal", 0.0),
    (0.5, "quantiles", 0.0),
    (1.0, "quantiles", 0.0),
    (0.5, "quantiles", 3.0),
]


def make_table(
    rng: np.random.Generator, n_series: int, steps: int, phi: float, season: float, name: str
) -> pd.DataFrame:
    """Make autoregressive series around 10."""
    noise = rng.normal(size=(n_series, BURN_IN + steps))
    values = np.zeros_like(noise)
    for step in range(1, noise.shape[1]):
        values[:, step] = phi * values[:, step - 1] + noise[:, step]
    t = np.arange(steps)
    values = 10 + values[:, BURN_IN:] + season * np.sin(2 * np.pi * t / PERIOD)
    series = np.repeat([f"{name} {number}" for number in range(n_series)], steps)
    return pd.DataFrame({"series": series, "t": np.tile(t, n_series), "y": values.ravel()})


def measure(phi: float, loss: str, season: float, epochs: int) -> pd.Series:
    """Train, forecast, and return the coverage of each block."""
    seed_everything(0, verbose=False)
    rng = np.random.default_rng(0)
    dataset = BatchedTimeSeriesDataSet(
        make_table(rng, 100, 200, phi, season, "training"),
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_unknown_reals=["y"],
    )
    model = mLSTMTime.from_dataset(dataset, loss=LOSSES[loss](), learning_rate=3e-3)
    trainer = Trainer(
        max_epochs=epochs,
        limit_train_batches=150,
        gradient_clip_val=0.1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, dataset.to_dataloader(batch_size=64))
    table = make_table(rng, 200, 2 * HISTORY + STEPS, phi, season, "new")
    is_history = table["t"] < 2 * HISTORY
    forecast = model.forecast(table[is_history], horizon=STEPS, quantiles=[0.1, 0.9])
    rows = forecast.merge(table[~is_history], on=["series", "t"])
    is_covered = rows["y"].between(rows["q0.1"], rows["q0.9"])
    return is_covered.groupby((rows["step"] - 1) // HORIZON).mean()


def main() -> None:
    """Measure all settings, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phi", type=float)
    parser.add_argument("--loss", choices=LOSSES, default="quantiles")
    parser.add_argument("--season", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    settings = SETTINGS
    if arguments.phi is not None:
        settings = [(arguments.phi, arguments.loss, arguments.season)]
    print(" phi | loss      | season | trained horizon | 2nd block | 3rd | 4th | beyond")
    for phi, loss, season in settings:
        coverage = measure(phi, loss, season, arguments.epochs)
        first, *later = coverage.tolist()
        blocks = " | ".join(f"{share:.2f}" for share in later)
        print(f"{phi:4} | {loss:<9} | {season:6} | {first:.2f} | {blocks} | {np.mean(later):.2f}")


if __name__ == "__main__":
    main()
