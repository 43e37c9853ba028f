"""An update goes on from where the model is."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import COVARIATES, make_plan, rich_stores, tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster, InputError


@pytest.fixture
def fitted(plain: Forecaster) -> Forecaster:
    return deepcopy(plain)


def test_update_learns_new_rows_and_series_and_keeps_known_scales(fitted: Forecaster) -> None:
    before, dataset = fitted._state.fitted, fitted.dataset
    weights = {name: value.clone() for name, value in before.models[0].state_dict().items()}
    new = rich_stores(34)
    new["sales"] *= 3
    new = pd.concat([new[new["date"] >= "2024-01-31"], rich_stores(20, ("c",), "2024-01-15")])
    assert fitted.update(new.sample(frac=1, random_state=0), epochs=2) is fitted
    after = fitted._state.fitted
    np.testing.assert_array_equal(after.scaling.center[:2], before.scaling.center)
    np.testing.assert_array_equal(after.scaling.spread[:2], before.scaling.spread)
    sales = new.loc[new["store"] == "c", "sales"]
    assert after.scaling.center[2] == pytest.approx(sales.mean())
    assert after.scaling.spread[2] == pytest.approx(sales.std(ddof=0))
    assert after.calibration is before.calibration and after.history == before.history
    assert any(
        (after.models[0].state_dict()[name] != value).any() for name, value in weights.items()
    )
    # The old model stays as it was.
    assert all(
        (before.models[0].state_dict()[name] == value).all() for name, value in weights.items()
    )
    # All rows are learned, those of the new series too.
    rows = fitted.dataset.data["groups"].flatten().bincount()
    assert sorted(rows.tolist()) == [20, 34, 34]
    assert len(dataset.data["time"]) == 60
    forecast = fitted.predict()
    assert forecast["store"].unique().tolist() == ["a", "b", "c"]
    ends = forecast.groupby("store")["date"].min()
    assert (ends == pd.Timestamp("2024-02-04")).all()
    assert (fitted.predict(new[new["store"] == "c"])["store"] == "c").all()


def test_new_rows_replace_those_of_the_same_time(fitted: Forecaster) -> None:
    corrected = rich_stores()[25:30].assign(sales=7.0)
    fitted.update(corrected, epochs=1)
    records = fitted._state.records
    rows = (records.series == 0) & (records.times >= "2024-01-26").to_numpy()
    assert (records.columns["sales"][rows] == 7).all()
    assert len(records.series) == 60


def test_update_is_reproducible_and_can_be_repeated(fitted: Forecaster, plain: Forecaster) -> None:
    other = deepcopy(plain)
    for forecaster in (fitted, other):
        forecaster.update(rich_stores(33), epochs=1).update(rich_stores(36), epochs=1)
    pd.testing.assert_frame_equal(fitted.predict(), other.predict(), check_exact=True)
    assert fitted.predict()["date"].min() == plain.predict()["date"].min() + pd.Timedelta(days=6)


def test_new_classes_and_lower_values_are_learned() -> None:
    forecaster = tiny(**COVARIATES).fit(rich_stores(16).assign(sales=lambda t: t["sales"].round()))
    assert forecaster._state.fitted.lower_bound == 0
    new = rich_stores(18).assign(sky="storm", day="holiday", sales=-5.5)
    forecaster.update(new[new["date"] > "2024-01-16"], epochs=1)
    forecast = forecaster.predict(future=make_plan(new))
    assert len(forecast) == 6
    assert forecaster._state.fitted.lower_bound == -np.inf


def test_unusable_updates_are_refused(plain: Forecaster) -> None:
    expected = plain.predict()
    table = rich_stores()
    for change, words in (
        (table.drop(columns="sales"), "no column 'sales'"),
        (table.assign(date=range(60)), "whole numbers, but held dates"),
        (table.assign(store=7), "holds numbers, but held text"),
        (table.assign(date=table["date"] + pd.Timedelta(hours=3)), "does not fit the spacing"),
        (table.assign(sales="many"), "'many'"),
        (pd.concat([table, table]), "the same time"),
        (None, "must be a table"),
    ):
        with pytest.raises(InputError, match=words):
            plain.update(change)
    for epochs in (0, 1.5, None):
        with pytest.raises(InputError, match="epochs must be a whole number"):
            plain.update(table, epochs)
    with pytest.raises(InputError, match=r"Forecaster\.update: .*call fit first"):
        tiny().update(table)
    pd.testing.assert_frame_equal(plain.predict(), expected)
