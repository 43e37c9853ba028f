"""A table of a single series, without group columns, is compared with what happened."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pytorch_forecasting_mlstm.forecaster.evaluation.backtesting import _actual, _at_cutoff
from pytorch_forecasting_mlstm.forecaster.panel.panel import make_panel
from pytorch_forecasting_mlstm.forecaster.tables.records import read_records
from pytorch_forecasting_mlstm.forecaster.tables.roles import read_roles
from pytorch_forecasting_mlstm.forecaster.times.frequency import infer_frequency


def test_actual_of_a_single_series() -> None:
    roles = read_roles(
        time="t", target="y", group=None, known=None, past=None, static=None, quantiles=(0.5,)
    )
    table = pd.DataFrame({"t": range(12), "y": np.arange(12.0)})
    records = read_records(table, roles, timezone=None)
    axis, _ = infer_frequency(records.times, records.series, str)
    panel = make_panel(records, roles, axis, axis.place(records.times))
    actual = _actual(panel, _at_cutoff(panel, panel, 9, 4), 9, 4)
    np.testing.assert_equal(actual, [[9.0, 10.0, 11.0, np.nan]])
