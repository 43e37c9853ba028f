"""Wrong arguments are refused in one sentence that names them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import pytorch as pl
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from helpers.forecasters import COVARIATES, make_plan, rich_stores, tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster, InputError
from pytorch_forecasting_mlstm.forecaster.arguments import read_quantiles

NAN = float("nan")
WRONG: list[tuple[str, Any, str]] = [
    *[("horizon", value, "horizon must be a whole") for value in (0, -1, 1.5, True, None, "3")],
    *[("history", value, "history must be a whole number") for value in (0, 2.0, "4")],
    ("history", 99, "history 99 is longer than the .* steps"),
    ("epochs", 0, "epochs must be a whole number, from 1 to 100000, got 0"),
    ("epochs", 10**9, "epochs must be"),
    *[
        ("members", value, "members must be a whole number, from 1 to 100, got ")
        for value in (0, -1, 2.5, True, 101, None, "3")
    ],
    *[("seed", value, "seed must be a whole number, from 0") for value in (-1, 2**32, None, 0.5)],
    *[("learning_rate", value, "learning_rate must be") for value in (0, -1, NAN, "a", True, 1e9)],
    *[("minimum", value, "minimum must be") for value in ("0", NAN, float("inf"), True, [0])],
    *[("outliers", value, "outliers must be") for value in (None, "drop", 0)],
    *[("calibrate", value, "calibrate must be True or False") for value in (None, 1, "yes")],
    ("calendar_effects", "DE", "calendar_effects must be True or False"),
    ("verbose", 0, "verbose must be True or False"),
    *[("missing", value, "missing must be") for value in (None, "drop", NAN, True, [0])],
    *[
        ("quantiles", value, "quantiles must be numbers between 0 and 1")
        for value in ((), None, (0, 0.5), (0.1, 1), (NAN,), "0.1", (True,), ((0.1,),), 2)
    ],
    ("quantiles", (0.1, 0.10000001), "quantiles must differ in the first six digits"),
    ("quantiles", (0.99999999,), "quantiles must differ in the first six digits"),
    ("model_kwargs", 3, "model_kwargs must be a dictionary"),
    ("model_kwargs", {1: 2}, "model_kwargs must be a dictionary"),
    ("model_kwargs", {"hiden_size": 3}, "model_kwargs: .*did you mean hidden_size"),
    ("model_kwargs", {"learning_rate": 3}, "model_kwargs must not hold 'learning_rate': use"),
    ("model_kwargs", {"loss": 3}, "model_kwargs must not hold 'loss': use quantiles"),
    ("model_kwargs", {"hidden_size": 5, "num_heads": 2}, "model_kwargs .* do not fit: .*multiple"),
    ("model_kwargs", {"dropout": "a"}, "model_kwargs .* do not fit"),
    ("model_kwargs", {"memory_length": "x"}, "memory_length must be a whole number.*got 'x'"),
    ("model_kwargs", {"memory_length": 0}, "memory_length must be a whole number.*got 0"),
    ("model_kwargs", {"memory_length": 3.0}, "memory_length must be a whole number.*got 3.0"),
    ("model_kwargs", {"memory_length": 99}, "memory_length must be .* from 1 to .*got 99"),
    ("trainer_kwargs", [], "trainer_kwargs must be a dictionary"),
    ("trainer_kwargs", {"max_epochs": 3}, "trainer_kwargs must not hold 'max_epochs': use epochs"),
    ("trainer_kwargs", {"acc": 3}, "trainer_kwargs do not fit Lightning's Trainer: .*'acc'"),
    ("trainer_kwargs", {"precision": "x"}, "trainer_kwargs do not fit"),
    ("trainer_kwargs", {"accelerator": "moon"}, "trainer_kwargs do not fit"),
    ("trainer_kwargs", {"callbacks": [3]}, "callbacks must be callbacks of Lightning, got 3"),
    ("time", None, "time must be one column"),
    ("time", ["date", "rain"], "time must be one column"),
    ("time", 3, "time must be a name"),
    ("time", "day of sale", "no column 'day of sale'"),
    ("target", [], "target must be a column"),
    ("target", "Sales", "no column 'Sales'.*did you mean 'sales'"),
    ("target", ["sales", 3], "target must name columns by text, got 3"),
    ("target", "date", "column 'date' is named twice"),
    ("target", ["sales", "sales"], "column 'sales' is named twice"),
    ("target", "sky", "'sky'.*text such as"),
    ("group", {"store": 1}, "group must be a name"),
    ("known", "sales", "column 'sales' is named twice"),
    ("known", "nothing", "no column 'nothing'"),
    ("past", 1.5, "past must be a name"),
    ("static", "sky", "column 'sky' changes from"),
    ("frequency", "parsec", "frequency"),
    ("holidays", "Atlantis", "holidays"),
    ("timezone", "Mars/Olympus", "Mars/Olympus"),
    ("timezone", 2, "timezone must be the name of a time zone, got 2"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_wrong_parameters_are_refused(name: str, value: Any, words: str) -> None:
    """Before anything is trained, and in one short line."""
    forecaster = tiny(**{name: value})
    assert forecaster.get_params()[name] is value
    with pytest.raises(InputError, match=words) as error:
        forecaster.fit(rich_stores())
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    with pytest.raises(InputError, match="call fit first"):
        forecaster.predict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cutoffs": 0}, "cutoffs must be a whole number"),
        ({"cutoffs": 2.0}, "cutoffs must be a whole number"),
        ({"step": 0}, "step must be a whole number"),
        ({"refit": "no"}, "refit must be True or False"),
        ({"baselines": "naive"}, "baselines must be True or False"),
        ({"cutoffs": 99}, "cutoffs 99, 3 steps apart, begin before"),
    ],
)
def test_wrong_arguments_of_backtest_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny().backtest(rich_stores(), **arguments)
    with pytest.raises(InputError, match="horizon must be a whole number"):
        tiny(horizon=0).backtest(rich_stores())


@pytest.mark.parametrize(
    "use",
    [
        lambda forecaster: forecaster.predict(),
        lambda forecaster: forecaster.update(rich_stores()),
        lambda forecaster: forecaster.save("file"),
        lambda forecaster: forecaster.plot(),
        lambda forecaster: forecaster.model,
        lambda forecaster: forecaster.dataset,
        lambda forecaster: forecaster.history_,
        lambda forecaster: forecaster.epochs_,
    ],
)
def test_unfitted_use_is_refused(use: Any) -> None:
    with pytest.raises(InputError, match=r"^Forecaster\.\w+: .* call fit first$"):
        use(tiny())
    assert not hasattr(tiny(), "model")


def test_conventions_of_scikit_learn(plain: Forecaster) -> None:
    """Parameters stay as they are given; clones are unfitted; the text shows what was changed."""
    quantiles, known = [0.9, 0.1], ("promo",)
    forecaster = Forecaster(7, time="date", target="sales", quantiles=quantiles, known=known)
    assert forecaster.quantiles is quantiles and forecaster.known is known
    copy = clone(plain)
    assert copy.get_params() == plain.get_params()
    assert not hasattr(copy, "model") and hasattr(plain, "model")
    assert repr(copy).startswith("Forecaster(") and "target='sales'" in repr(copy)
    assert copy.set_params(horizon=2, seed=3) is copy
    assert (copy.horizon, copy.seed) == (2, 3)
    with pytest.raises(ValueError, match="horizons"):
        copy.set_params(horizons=2)
    check_is_fitted(plain)
    assert tiny().fit(rich_stores(12)).set_params(horizon=2).predict()["store"].tolist() == list(
        "aabb"
    )


def test_failed_fit_keeps_the_old_model() -> None:
    forecaster = tiny().fit(rich_stores(12))
    expected = forecaster.predict()
    with pytest.raises(InputError):
        forecaster.fit(rich_stores().drop(columns="sales"))
    pd.testing.assert_frame_equal(forecaster.predict(), expected)


def test_quantiles_are_sorted_and_the_median_is_added() -> None:
    assert read_quantiles(np.array([0.9, 0.1])) == (0.1, 0.5, 0.9)
    assert read_quantiles(0.25) == (0.25, 0.5)
    assert read_quantiles([0.5, 0.5]) == (0.5,)


PLAN = make_plan(rich_stores())
PLANS: list[tuple[str, Any, str]] = [
    ("none", None, "store=a .and 1 more series.: table lacks .promo. and .day. for"),
    ("too short", PLAN[PLAN["date"] < "2024-02-02"], "lacks .* for 2024-02-02.*for all 3 steps"),
    ("a hole", PLAN[PLAN["date"] != "2024-02-01"], "future lacks .* for 2024-02-01"),
    ("no value", PLAN.assign(promo=[1, np.nan, 1] * 2), "lacks .* for 2024-02-01"),
    ("one series", PLAN[:3], "store=b: future lacks"),
    ("unknown series", pd.concat([PLAN, PLAN[:3].assign(store="z")]), "future: store=z: is not"),
    ("no column", PLAN.drop(columns="day"), "future: has no column 'day'"),
    ("twice", pd.concat([PLAN, PLAN]), "future, store=a: rows 1, 7 have the same time"),
    ("other times", PLAN.assign(date=range(6)), "holds whole numbers, but held dates"),
    ("other spacing", PLAN.assign(date=PLAN["date"] + pd.Timedelta("1h")), "does not fit"),
    ("other groups", PLAN.assign(store=[1, 1, 1, 2, 2, 2]), "holds numbers, but held text"),
    ("text", PLAN.assign(promo="much"), "'much'"),
    ("infinite", PLAN.assign(promo=np.inf), "infinite"),
    ("no table", 3, "future must be a table, got int"),
    ("no rows", PLAN[:0], "future has no rows"),
]


@pytest.mark.parametrize(("plan", "words"), [plan[1:] for plan in PLANS], ids=[p[0] for p in PLANS])
def test_unusable_plans_are_refused(rich: Forecaster, plan: Any, words: str) -> None:
    """None is filled in silently: a forecast would depend on what nobody has planned."""
    with pytest.raises(InputError, match=words):
        rich.predict(future=plan)


def test_plans_are_used_as_they_are_meant(rich: Forecaster) -> None:
    table = rich_stores()
    expected = rich.predict(future=PLAN)
    # Within the table, which then needs no other; longer; or overlapping with the past.
    columns = ["store", "date", "promo", "day"]
    longer = make_plan(table, 9)
    for past, plan in (
        (pd.concat([table, PLAN]), None),
        (table, longer),
        (table, pd.concat([table[columns].assign(promo=9), PLAN])),
        (pd.concat([table, PLAN.assign(promo=np.nan)]), PLAN),
        (pd.concat([table, PLAN.assign(promo=99)]), PLAN),
        (table, PLAN.sample(frac=1, random_state=3).assign(other="x")),
        (pd.concat([table, longer[longer["date"] > "2024-02-02"]]), PLAN),
    ):
        pd.testing.assert_frame_equal(rich.predict(past, plan), expected, check_exact=True)
    assert not rich.predict(future=PLAN.assign(promo=0)).equals(expected)
    unknown = rich.predict(future=PLAN.assign(day="a class that is new"))
    assert np.isfinite(unknown["prediction"]).all()


def test_horizon_of_predict(rich: Forecaster, plain: Forecaster) -> None:
    """Shorter ones are the first steps; longer ones are fed back, unless there is a past."""
    with pytest.raises(InputError, match="horizon must be at most 3.*past columns"):
        rich.predict(future=make_plan(rich_stores(), 4), horizon=4)
    expected = plain.predict()
    for horizon in (1, 5):
        forecast = plain.predict(horizon=horizon)
        assert forecast.groupby("store").size().tolist() == [horizon, horizon]
        both = forecast.merge(expected, on=["store", "date"])
        np.testing.assert_array_equal(both["prediction_x"], both["prediction_y"])
        assert len(both) == 2 * min(horizon, 3)
    for horizon in (0, 1.0, "2"):
        with pytest.raises(InputError, match="horizon must be a whole number"):
            plain.predict(horizon=horizon)
    with pytest.raises(InputError, match="the last possible time"):
        plain.predict(horizon=10**9)


def test_fitted_objects_work_with_pytorch_forecasting(rich: Forecaster) -> None:
    model, dataset = rich.model, rich.dataset
    trainer_kwargs = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    raw = model.predict(
        dataset, mode="raw", return_x=True, trainer_kwargs=trainer_kwargs, batch_size=64
    )
    assert raw.output.prediction.shape[1:] == (3, 3)
    model.plot_prediction(raw.x, raw.output, idx=0)
    loader = dataset.to_dataloader(train=False, batch_size=64, num_workers=0)
    pl.Trainer(**trainer_kwargs, enable_model_summary=False).validate(model, loader, verbose=False)


def test_long_tables_of_covariates_are_described_by_the_right_name() -> None:
    table = rich_stores(12)
    table.loc[table["store"] == "b", "returns"] = np.nan
    with pytest.raises(InputError, match="store=b, target=returns: has no value of 'returns'"):
        tiny(target=["sales", "returns"]).fit(table)
    with pytest.raises(InputError, match="column 'target' is also a column of the forecast"):
        tiny(target=["sales", "returns"], past="target").fit(table.assign(target=1.0))
    for name in ("prediction", "step", "q0.1", "cutoff", "actual", "model"):
        with pytest.raises(InputError, match=f"column '{name}' is also a column"):
            tiny(group=name).fit(table.rename(columns={"store": name}))
    with pytest.raises(InputError, match="store=b: column 'rain' is empty in all rows"):
        tiny(known="rain").fit(table.assign(rain=table["rain"].where(table["store"] == "a")))
    with pytest.raises(InputError, match="store=b: column 'size' is empty"):
        tiny(**COVARIATES).fit(table.assign(size=table["size"].where(table["store"] == "a")))
