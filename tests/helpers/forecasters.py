"""Forecasters that are fitted in a second, their tables, and one whose network is naive."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster import Forecaster, forecaster
from pytorch_forecasting_mlstm.forecaster.panel.panel import Panel, make_panel
from pytorch_forecasting_mlstm.forecaster.tables.records import read_records
from pytorch_forecasting_mlstm.forecaster.tables.roles import read_roles
from pytorch_forecasting_mlstm.forecaster.times.time_axis import TimeAxis
from pytorch_forecasting_mlstm.forecaster.training import forecasting
from pytorch_forecasting_mlstm.forecaster.training.calibration import Calibration
from pytorch_forecasting_mlstm.forecaster.training.fitted import Fitted
from pytorch_forecasting_mlstm.forecaster.training.fitting import Settings
from pytorch_forecasting_mlstm.forecaster.training.layout import SERIES, TIME, Layout
from pytorch_forecasting_mlstm.forecaster.training.recipe import Recipe
from pytorch_forecasting_mlstm.forecaster.training.scaling import Scaling
from pytorch_forecasting_mlstm.forecaster.training.splits import split_panel

HORIZON = 3
#: One step of training, of one tiny network.
TINY: dict[str, Any] = {
    "epochs": 1,
    "history": 4,
    "members": 1,
    "model_kwargs": {"hidden_size": 4, "num_heads": 1},
    "trainer_kwargs": {"limit_train_batches": 1, "limit_val_batches": 1},
    "verbose": False,
}
COVARIATES: dict[str, Any] = {
    "known": ["promo", "day"],
    "past": ["rain", "sky"],
    "static": ["size", "type"],
}


def fit_settings(**parameters: Any) -> Settings:
    """Return the settings of a fit with a history of 7 and a horizon of 4 steps."""
    given: dict[str, Any] = {
        "horizon": 4,
        "quantiles": (0.1, 0.5, 0.9),
        "history": 7,
        "minimum": "auto",
        "calibrate": True,
        "recipe": Recipe(),
        "seed": 0,
        "trainer_kwargs": {},
    }
    return Settings(**{**given, **parameters})


def tiny(**parameters: Any) -> Forecaster:
    """Return a forecaster of ``sales`` by ``store`` and ``date`` that is fitted in a second."""
    options = {"horizon": HORIZON, "time": "date", "target": "sales", "group": "store"}
    return Forecaster(**{**options, **TINY, **parameters})


def rich_stores(
    length: int = 30, stores: Any = ("a", "b"), start: str = "2024-01-01"
) -> pd.DataFrame:
    """Return stores with covariates of all sorts, which end on the same day."""
    parts = []
    for seed, store in enumerate(stores):
        rng = np.random.default_rng(seed)
        parts.append(
            pd.DataFrame(
                {
                    "store": store,
                    "date": pd.date_range(start, periods=length),
                    "sales": 100.0 * seed + noisy_season(length, seed=seed),
                    "returns": rng.normal(5, 1, length),
                    "promo": rng.integers(0, 2, length),
                    "day": rng.choice(["x", "y"], length),
                    "rain": rng.normal(size=length),
                    "sky": rng.choice(["clear", "cloudy"], length),
                    "size": float(seed),
                    "type": f"type {seed}",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def make_plan(table: pd.DataFrame, horizon: int = HORIZON) -> pd.DataFrame:
    """Return the known covariates of the days after the end of every store."""
    parts = []
    for store, rows in table.groupby("store", sort=False):
        days = pd.date_range(rows["date"].max(), periods=horizon + 1)[1:]
        parts.append(pd.DataFrame({"store": store, "date": days, "promo": 1, "day": "x"}))
    return pd.concat(parts, ignore_index=True)


def panel_from(table: pd.DataFrame, **roles: Any) -> Panel:
    """Read a table with daily rows."""
    names = {"time": "date", "target": "sales", "group": None, "known": None, "past": None}
    read = read_roles(**{**names, "static": None, "quantiles": (0.5,), **roles})
    records = read_records(table, read, timezone=None)
    axis = TimeAxis(records.times.min(), pd.offsets.Day())
    return make_panel(records, read, axis, axis.place(records.times))


def panel_of_values(*values: Any) -> Panel:
    """Return a panel of daily series that end on the same day."""
    end = pd.Timestamp("2024-04-30")
    parts = [
        pd.DataFrame(
            {
                "store": str(number),
                "date": pd.date_range(end=end, periods=len(series)),
                "sales": np.asarray(series, dtype=float),
            }
        )
        for number, series in enumerate(values)
    ]
    return panel_from(pd.concat(parts), group="store")


def use_naive_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network by one that repeats the last observed target, plus or minus a spread.

    Everything around it stays: reading, panels, windows, scales and the forecast table.
    """

    def fit(panel: Panel, settings: Settings, on_progress: Any = None) -> Fitted:
        split = split_panel(panel, settings.horizon)
        split = split.with_history(panel, settings.history or 4)
        network: Any = None
        dataset: Any = SimpleNamespace(
            min_encoder_length=split.min_history, max_prediction_length=split.horizon
        )
        return Fitted(
            models=(network,),
            linear=None,
            share=1.0,
            dataset=dataset,
            layout=Layout.fit(panel, split.validation),
            scaling=Scaling.fit(panel, split.end - split.validation),
            calibration=Calibration.none(split.horizon, np.array(settings.quantiles)),
            lower_bound=-np.inf,
            history=split.history,
            memory_length=split.history,
            epochs=1,
            learning_rate=1e-3,
            validation_loss=0.0,
            trials={},
        )

    def predict(
        model: Any, frame: pd.DataFrame, end: int, horizon: int, levels: list[float]
    ) -> np.ndarray:
        target = frame.columns[2]
        past = frame[(frame[TIME] < end) & frame[target].notna()]
        last = past.groupby(SERIES, sort=False)[target].last()
        offsets = np.array(levels) - 0.5
        return np.tile(last.to_numpy()[:, None, None] + offsets, (1, horizon, 1))

    monkeypatch.setattr(forecaster, "fit_panel", fit)
    monkeypatch.setattr(forecasting, "predict_future", predict)
