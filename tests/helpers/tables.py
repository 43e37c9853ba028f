"""Typical tables of users."""

import numpy as np
import pandas as pd


def noisy_season(length: int, period: float = 7.0, seed: int = 0) -> np.ndarray:
    """Return positive numbers with a season, a slow trend and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    return 50 + 0.05 * t + 10 * np.sin(2 * np.pi * t / period) + rng.normal(0, 1, length)


def daily(length: int = 60, start: str = "2024-01-01", seed: int = 0) -> pd.DataFrame:
    """Return one series with columns ``date`` and ``sales``."""
    times = pd.date_range(start, periods=length, freq="D")
    return pd.DataFrame(
        {"date": times.strftime("%Y-%m-%d"), "sales": noisy_season(length, seed=seed)}
    )


def stores(lengths: dict[str, int]) -> pd.DataFrame:
    """Return one series per store, which end on the same day, in columns store, date and sales."""
    end = pd.Timestamp("2024-04-30")
    parts = []
    for seed, (store, length) in enumerate(lengths.items()):
        start = (end - pd.Timedelta(days=length - 1)).strftime("%Y-%m-%d")
        parts.append(daily(length, start, seed).assign(store=store))
    return pd.concat(parts, ignore_index=True)
