"""Data in the layouts of sktime, and a forecaster whose network is naive."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import use_naive_network
from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster import forecaster


def use_naive_forecaster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecast the last observed value; an update trains nothing."""
    use_naive_network(monkeypatch)

    def update(fitted: Any, groups: Any, panel: Any, *settings: Any) -> Any:
        return fitted, panel.groups

    monkeypatch.setattr(forecaster, "update_fit", update)


def make_series(index: pd.Index, seed: int = 0) -> pd.Series:
    """Return a series with a season of seven steps."""
    return pd.Series(noisy_season(len(index), seed=seed), index=index, name="sales")


def make_panel(ends: dict[Any, int], length: int = 30, freq: str = "D") -> pd.DataFrame:
    """Return series that end after a number of days of their own, by label."""
    days = pd.date_range("2024-01-01", periods=max(ends.values()), freq=freq)
    parts = {
        label: make_series(days[max(0, end - length) : end], seed)
        for seed, (label, end) in enumerate(ends.items())
    }
    panel = pd.concat(parts).to_frame()
    depth = panel.index.nlevels - 1
    return panel.rename_axis([*(["region", "store"][-depth:]), "date"])


def make_exogenous(index: pd.Index, ahead: int, seed: int = 1) -> pd.DataFrame:
    """Return a number, a flag and a class for the times of a DatetimeIndex and some days later."""
    days = pd.date_range(index[0], periods=len(index) + ahead, freq=index.freq)
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "price": rng.normal(size=len(days)),
            "promo": rng.random(len(days)) < 0.3,
            "kind": rng.choice(["x", "y"], len(days)),
        },
        index=days,
    )
