"""Equal seeds give equal forecasts, and global states stay as they are."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

from helpers.forecasters import make_plan, rich_stores, tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster


def global_states() -> list[Any]:
    return [
        random.getstate(),
        np.random.get_state()[1].tobytes(),
        torch.get_rng_state().numpy().tobytes(),
        dict(os.environ),
        torch.get_default_dtype(),
    ]


@pytest.mark.filterwarnings("ignore:the .* interval:UserWarning")
def test_nothing_leaves_a_trace_in_global_states(tmp_path: Path) -> None:
    table, file = rich_stores(), tmp_path / "forecaster.ckpt"
    forecaster = tiny()
    calls = {
        "fit": lambda: forecaster.fit(table),
        "predict": lambda: forecaster.predict(horizon=5),
        "backtest": lambda: forecaster.backtest(table),
        "update": lambda: forecaster.update(table, epochs=1),
        "save": lambda: forecaster.save(file),
        "load": lambda: Forecaster.load(file),
        "plot": lambda: forecaster.plot(),
    }
    for name, call in calls.items():
        before = global_states()
        call()
        assert global_states() == before, name
    pyplot.close("all")


def test_seeds_decide_the_forecast_and_global_states_do_not(plain: Forecaster) -> None:
    table = rich_stores()
    torch.manual_seed(99)
    pd.testing.assert_frame_equal(tiny().fit(table).predict(), plain.predict(), check_exact=True)
    assert not tiny(seed=1).fit(table).predict().equals(plain.predict())


def test_order_of_rows_and_other_columns_do_not_matter(rich: Forecaster) -> None:
    table, plan = rich_stores(), make_plan(rich_stores())
    expected = rich.predict(future=plan)
    shuffled = table.assign(note="x").sample(frac=1, random_state=1)
    forecast = rich.predict(shuffled, future=plan.iloc[::-1])
    order = forecast.set_index(["store", "date"]).loc[list("ab")].reset_index()
    pd.testing.assert_frame_equal(order, expected, check_exact=True)
