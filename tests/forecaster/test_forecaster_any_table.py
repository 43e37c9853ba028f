"""Whatever the table, every series gets its horizon, right after its last observed target."""

import datetime
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helpers.forecasters import tiny, use_naive_network
from pytorch_forecasting_mlstm.forecaster import Forecaster

#: Tables hardly shrink, but trying takes minutes.
PHASES = (Phase.explicit, Phase.generate)
FIRST = 12  # rows of the first series, which show the spacing

#: How users write the times of steps 0, 1, 2, ...
TIMES: dict[str, Any] = {
    "days": lambda steps: pd.Timestamp("2024-02-20") + pd.to_timedelta(steps, "D"),
    "text": lambda steps: pd.Index(
        (pd.Timestamp("2023-12-25") + pd.to_timedelta(steps, "D")).strftime("%d.%m.%Y")
    ),
    "zone": lambda steps: pd.DatetimeIndex(
        pd.Timestamp("2024-03-30 20:00", tz="Europe/Berlin") + pd.to_timedelta(steps, "h")
    ),
    "months": lambda steps: pd.Index(
        [f"{2019 + step // 12}-{step % 12 + 1:02d}" for step in steps.tolist()]
    ),
    "numbers": lambda steps: pd.Index(7 * steps - 40),
    "floats": lambda steps: pd.Index(2.0 * steps),
    "objects": lambda steps: pd.Index(
        [datetime.date(2024, 2, 20) + datetime.timedelta(days=k) for k in steps.tolist()],
        dtype=object,
    ),
    "quarters": lambda steps: pd.PeriodIndex(
        [pd.Period("2020Q1", freq="Q") + k for k in steps.tolist()]
    ),
}
GROUPS: dict[str, Any] = {
    "text": ["z", "10", "9", "ü b"],
    "numbers": [7, -1, 10, 9],
    "booleans": [True, False],
    "categories": pd.Categorical(["b", "a", "d", "c"], categories=list("dcba")),
}


#: Names that pytorch-forecasting reserves or refuses.
COVARIATES: dict[str, Any] = {
    "known": ["weight"],
    "past": ["time_idx", "a.b"],
    "static": ["series", "encoder_length"],
}


@dataclass
class Drawn:
    """A table, a forecaster for it, and the truth about it."""

    table: pd.DataFrame
    parameters: dict[str, Any]
    expected: pd.DataFrame  # keys of the forecast, and the last observed target
    library: str


def steps_and_values(draw: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the steps of one series and their targets, some of them missing."""
    start = 0 if number == 0 else draw(st.integers(0, 15))
    length = FIRST if number == 0 else draw(st.integers(1, 14))
    steps = start + np.arange(length)
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=length)
    kind = draw(st.sampled_from(["noise", "constant", "zero", "whole"]))
    values = {"noise": values, "constant": 0 * values + 2, "zero": 0 * values}.get(
        kind, np.round(5 * values)
    )
    size, level = draw(st.sampled_from([(1, 0), (1e-12, 0), (1e9, 0), (1, 1e15), (3, -100)]))
    values = size * values + level
    if number:
        kept = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
        kept[draw(st.integers(0, length - 1))] = True
        steps, values = steps[kept], values[kept]
    missing = np.array(draw(st.lists(st.integers(0, 3), min_size=len(steps), max_size=len(steps))))
    missing[draw(st.integers(0, len(steps) - 1))] = 1
    if number == 0:
        missing[[0, -1]] = 1
    return steps, np.where(missing == 0, np.nan, values)


@st.composite
def drawn_tables(draw: Any) -> Drawn:
    form = draw(st.sampled_from(sorted(TIMES)))
    sort = draw(st.sampled_from(sorted(GROUPS)))
    names = GROUPS[sort][: draw(st.integers(1, len(GROUPS[sort])))]
    horizon = draw(st.integers(1, 4))
    several = draw(st.booleans())
    targets = ["sales", "q0.5"] if several else ["sales"]
    rows, expected = [], []
    for number in range(len(names)):
        steps, sales = steps_and_values(draw, number)
        other = np.where(np.isnan(sales), 1.0, np.nan)
        other[draw(st.integers(0, len(steps) - 1))] = -2.0
        size = len(steps)
        classes = draw(st.permutations(["u", "v", "", None])) * 4
        classes = ["u", *classes[: size - 1]]
        past = pd.DataFrame(
            {
                "step": steps,
                "sales": sales,
                "q0.5": other,
                "time_idx": np.where(np.arange(size) % 3 == 1, np.nan, steps),
                "a.b": classes,
            }
        )
        ahead = pd.DataFrame({"step": np.setdiff1d(np.arange(steps[0], steps[-1] + 12), steps)})
        if not several:  # the plan: without it, steps without a row stay so
            ended = steps[np.isfinite(sales)][-1]
            ahead = ahead[ahead["step"] > ended]
        part = pd.concat([past, ahead], ignore_index=True).assign(
            weight=number % 2, series=draw(st.sampled_from(["s", "t"])), encoder_length=1.5
        )
        rows.append(part.assign(store=number))
        for target, values in (("sales", sales), ("q0.5", other))[: len(targets)]:
            last = np.flatnonzero(np.isfinite(values))[-1]
            seen = values[np.isfinite(values)]
            spread = np.ptp(seen) or np.abs(seen).max()
            tolerance = 1e-5 * spread + 1e-14 * np.abs(seen).max()
            for step in range(1, horizon + 1):
                expected.append((number, steps[last] + step, target, values[last], tolerance))
    table = pd.concat(rows, ignore_index=True)
    truth = pd.DataFrame(expected, columns=["store", "step", "target", "last", "tolerance"])
    for frame in (table, truth):
        frame["date"] = TIMES[form](frame.pop("step").to_numpy())
        frame["store"] = pd.Series(names).take(frame["store"]).to_numpy()
        if sort == "categories":
            frame["store"] = frame["store"].astype(names.dtype)
    if draw(st.booleans()):
        table["sales"] = table["sales"].astype("Float64")
    table = table.sample(frac=1, random_state=draw(st.integers(0, 9)))
    if draw(st.booleans()):
        table.index = pd.Index([0] * len(table))
    libraries = ["pandas"] if form == "quarters" else ["pandas", "polars", "pyarrow"]
    parameters = {
        "horizon": horizon,
        "target": targets if several else "sales",
        "group": ["store"],
        **(draw(st.sampled_from([COVARIATES, {}, {}]))),
        "missing": draw(st.sampled_from(["mask", 0, "previous", "interpolate"])),
        "outliers": "keep",
        "minimum": None,
        "history": draw(st.integers(1, 4)),
        "quantiles": draw(st.sampled_from([(0.1, 0.9), (0.5,), (0.025, 0.3, 0.975)])),
    }
    return Drawn(table, parameters, truth, draw(st.sampled_from(libraries)))


def convert(table: pd.DataFrame, library: str) -> Any:
    if library == "polars":
        return pl.from_pandas(table.reset_index(drop=True))
    if library == "pyarrow":
        return pa.Table.from_pandas(table, preserve_index=False)
    return table


def merge(forecast: Any, truth: Any, keys: list[str], library: str) -> pd.DataFrame:
    """Merge two tables in their library, which compares types, too."""
    if library == "polars":
        return forecast.join(truth, on=keys, how="inner").to_pandas()
    if library == "pyarrow":
        return forecast.join(truth, keys=keys, join_type="inner").to_pandas()
    return forecast.merge(truth, on=keys, how="inner", validate="one_to_one")


def check(forecaster: Forecaster, drawn: Drawn) -> pd.DataFrame:
    """Check what holds for all forecasts, and return them beside the last observed targets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of constant stretches and the like
        forecaster.fit(convert(drawn.table, drawn.library))
    forecast = forecaster.predict()
    several = isinstance(forecaster.target, list)
    truth = drawn.expected if several else drawn.expected.drop(columns="target")
    keys = ["store", "date", *(["target"] if several else [])]
    # Types of keys alone would be those of another table.
    merged = merge(forecast, convert(truth, drawn.library), keys, drawn.library)
    assert len(merged) == len(forecast) == len(truth)
    names = [f"q{level:g}" for level in sorted({0.5, *forecaster.quantiles})]
    numbers = merged[["prediction", *names]].to_numpy()
    assert np.isfinite(numbers).all()
    assert (np.diff(numbers[:, 1:], axis=1) >= 0).all()
    np.testing.assert_array_equal(merged["prediction"], merged["q0.5"])
    return merged


def draw_examples(count: int) -> Any:
    """Return the settings of a test of the same drawn tables in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("examples", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_any_table_is_forecast_after_its_last_targets(examples: int) -> None:
    """The network repeats the last observed target, which comes through every scale and window."""

    @draw_examples(examples)
    @given(drawn=drawn_tables())
    def check_last_targets(drawn: Drawn) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            use_naive_network(monkeypatch)
            merged = check(tiny(**drawn.parameters), drawn)
        assert (np.abs(merged["prediction"] - merged["last"]) <= merged["tolerance"]).all()

    check_last_targets()


@pytest.mark.parametrize("examples", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_any_table_can_be_learned(examples: int) -> None:
    @draw_examples(examples)
    @given(drawn=drawn_tables())
    def check_forecast(drawn: Drawn) -> None:
        check(tiny(**drawn.parameters), drawn)

    check_forecast()
