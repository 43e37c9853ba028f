"""Errors name arguments; only the command line turns them into options."""

import pickle

import pandas as pd
import pytest

from helpers.tables import daily, stores
from pytorch_forecasting_mlstm import Forecaster, InputError


def test_input_error_names_arguments() -> None:
    with pytest.raises(ValueError, match="table: rows 1, 61 have the same time") as caught:
        Forecaster(7, time="date", target="sales").check(stores({"a": 60, "b": 60}))
    error = caught.value
    assert isinstance(error, InputError)
    assert str(error).endswith("or tell the series apart by group")
    assert error.message(lambda name: f"--{name}").endswith("tell the series apart by --group")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_input_error_does_not_change_names_of_the_data() -> None:
    """A column may have the name of an argument."""
    table: pd.DataFrame = daily().rename(columns={"sales": "horizon"}).astype({"horizon": object})
    table.loc[4, "horizon"] = "many"
    with pytest.raises(InputError) as caught:
        Forecaster(7, time="date", target="horizon").check(table)
    assert "column 'horizon'" in caught.value.message(lambda name: f"--{name}")
