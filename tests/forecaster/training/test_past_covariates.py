"""A past covariate that leads the series tells its forecast."""

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import tiny

LEAD = 3
NOISE = 0.1


def leading_table(length: int) -> pd.DataFrame:
    """Return sales that follow an indicator after `LEAD` days; nothing else tells them."""
    rng = np.random.default_rng(0)
    indicator = rng.normal(size=length + LEAD)
    sales = 20 + indicator[:length] + NOISE * rng.normal(size=length)
    return pd.DataFrame(
        {
            "date": pd.date_range("2020-01-01", periods=length),
            "sales": sales,
            "orders": indicator[LEAD:],
        }
    )


@pytest.mark.filterwarnings("ignore:the 80 % interval")
def test_indicator_that_leads_by_the_horizon_explains_it() -> None:
    table = leading_table(400)
    forecaster = tiny(
        horizon=LEAD,
        history=6,
        group=None,
        past=["orders"],
        epochs=10,
        learning_rate=1e-2,
        model_kwargs={"hidden_size": 16, "num_heads": 1},
        trainer_kwargs={},
    )
    forecasts = forecaster.backtest(table, cutoffs=20, baselines=False).forecasts
    error = (forecasts["prediction"] - forecasts["actual"]).abs().mean()
    spread = (forecasts["actual"] - 20).abs().mean()  # no forecast without orders is better
    assert len(forecasts) == 60 and error < 0.6 * spread, (error, spread)
