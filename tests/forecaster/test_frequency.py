"""Frequencies of times that need nanoseconds."""

import numpy as np
import pandas as pd
import pytest

from helpers.times import INT
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.frequency import infer_frequency


def test_infer_frequency_at_the_limits_of_nanoseconds() -> None:
    """A table that needs nanoseconds is limited to their range."""
    latest = pd.Series(pd.DatetimeIndex(INT.max - 700 * np.arange(40)[::-1]))
    axis, _ = infer_frequency(latest, np.zeros(40, dtype=int), str)
    assert axis.unit == "ns"
    with pytest.raises(InputError, match="beyond 2262-04-11 23:47:16.854775807"):
        axis.at(np.array([40]))
    earliest = pd.Series(pd.DatetimeIndex(INT.min + 1 + 700 * np.arange(40)))
    axis, positions = infer_frequency(earliest, np.zeros(40, dtype=int), str)
    assert (axis.at(positions) == pd.DatetimeIndex(earliest)).all()
