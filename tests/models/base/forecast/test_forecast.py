"""``model.forecast`` returns what ``predict`` forecasts, but reads only the history."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    NaNLabelEncoder,
    TimeSeriesDataSet,
)
from pytorch_forecasting.metrics import (
    MAE,
    SMAPE,
    CrossEntropy,
    LogNormalDistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from pytorch_forecasting.utils import to_list

from helpers.datasets import (
    CONFIGURATIONS,
    HISTORY,
    HORIZON,
    QUIET,
    fit,
    make_dataset,
    make_gaps,
    make_table,
    with_target,
)
from helpers.models import SMALL
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm._messages import format_times
from pytorch_forecasting_mlstm.data.rows import Labels, Rows, to_array
from pytorch_forecasting_mlstm.models.base.forecast import forecast as forecast_module
from pytorch_forecasting_mlstm.models.base.forecast.rows import build_future_rows

pytestmark = [
    # pytorch-forecasting passes read-only arrays of pandas 3 to torch, which only reads them
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    # pytorch-forecasting passes single values to scalers that it fitted to a table
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
]

ENDS = {"s0": 21, "s1": 18, "s2": 21}  # last time index of every series
KNOWN = ["holiday", "promotion", "price"]
UNKNOWN_REALS = ["y", "signed", "volume", "share", "count", "whole", "noise", "weight"]
UNKNOWN_LABELS = ["label", "state"]


TABLE = make_table(steps=30)


def split(table: pd.DataFrame, horizon: int = HORIZON) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split every series at its end: its history, and a horizon that follows."""
    end = table["series"].map(ENDS)
    return table[table["t"] <= end], table[(table["t"] > end) & (table["t"] <= end + horizon)]


def make_model(dataset: TimeSeriesDataSet, **changes: Any) -> mLSTMTime:
    """Make a small model with no weight at a special value."""
    model = mLSTMTime.from_dataset(dataset, **SMALL, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def with_dummies(ahead: pd.DataFrame) -> pd.DataFrame:
    """Replace everything that is not known of the future."""
    rng = np.random.default_rng(0)
    return ahead.assign(
        **{name: ahead[name].mul(0).add(0.25).astype(ahead[name].dtype) for name in UNKNOWN_REALS},
        label=rng.choice(["up", "mid", "down"], len(ahead)),
        state=rng.choice(["open", "closed"], len(ahead)),
    )


def close(got: Any, expected: Any) -> None:
    """Compare numbers of two runs of the model, in batches that may be sorted differently."""
    assert np.allclose(np.asarray(got, float), np.asarray(expected, float), rtol=1e-5, atol=1e-5)


def oracle(
    model: mLSTMTime, dataset: TimeSeriesDataSet, rows: pd.DataFrame, mode: str
) -> dict[tuple, Any]:
    """Predict the last horizon of every series: arrays by the name of the series."""
    whole = TimeSeriesDataSet.from_dataset(dataset, rows, predict=True, stop_randomization=True)
    predicted = model.predict(whole, mode="raw", return_index=True, trainer_kwargs=dict(QUIET))
    names = predicted.index[dataset.group_ids].itertuples(index=False, name=None)
    torch.manual_seed(0)  # the default seed of forecast
    convert = model.to_prediction if mode == "prediction" else model.to_quantiles
    outputs = to_list(convert(predicted.output))
    return {
        name: [output[number].numpy() for output in outputs] for number, name in enumerate(names)
    }


def known_of(dataset: TimeSeriesDataSet, ahead: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the dataset needs of the future, and nothing else."""
    schema = [*dataset._time_varying_known_reals, *dataset._time_varying_known_categoricals]
    groups = dataset._variable_groups
    flat = [column for name in schema for column in groups.get(name, [name])]
    needed = [name for name in flat if name in KNOWN]
    return ahead[[*dataset.group_ids, "t", *needed]] if needed else None


@cache
def configured(name: str) -> tuple[TimeSeriesDataSet, pd.DataFrame, pd.DataFrame]:
    """Return the dataset of a configuration, its history, and a horizon that follows."""
    changes = dict(CONFIGURATIONS[name])
    table = make_gaps(TABLE) if "table" in changes else TABLE
    history, ahead = split(table, changes.get("max_prediction_length", HORIZON))
    return make_dataset(**{**changes, "table": history}), history, ahead


@alternate("name", CONFIGURATIONS, every=4)
def test_forecast_equals_predict_with_placeholders_for_the_future(name: str) -> None:
    dataset, history, ahead = configured(name)
    model = make_model(dataset)
    shuffled = history.sample(frac=1, random_state=0)
    forecast = model.forecast(shuffled, known_of(dataset, ahead), trainer_kwargs=QUIET)

    groups = dataset.group_ids
    assert list(forecast.columns[: len(groups) + 2]) == [*groups, "t", "step"]
    order = [key for key in shuffled[groups].drop_duplicates().itertuples(index=False, name=None)]
    targets = dataset.target_names
    by_series = forecast.groupby(groups, sort=False)
    assert [key for key, _ in by_series] == order
    for key, rows in by_series:
        end = history.loc[(history[groups] == list(key)).all(axis=1), "t"].max()
        steps = np.arange(1, dataset.max_prediction_length + 1)
        assert rows["step"].tolist() == steps.tolist() * len(targets)
        assert rows["t"].tolist() == (end + steps).tolist() * len(targets)
        if len(targets) > 1:
            assert rows["target"].tolist() == np.repeat(targets, len(steps)).tolist()

    table = pd.concat([history, with_dummies(ahead)])
    expected = oracle(model, dataset, table, "prediction")
    for key, rows in by_series:
        for target, normalizer, value in zip(
            targets, dataset.target_normalizers, expected[key], strict=True
        ):
            got = rows if len(targets) == 1 else rows[rows["target"] == target]
            if isinstance(normalizer, NaNLabelEncoder):
                assert got["prediction"].tolist() == normalizer.inverse_transform(value).tolist()
            else:
                close(got["prediction"], value)


@pytest.mark.parametrize("name", ["all covariates", "target scales of the history", "lags"])
def test_forecast_does_not_depend_on_placeholders_for_the_future(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to the last bit."""
    changes = CONFIGURATIONS.get(
        name, {"add_target_scales": True, "target_normalizer": EncoderNormalizer()}
    )
    history, ahead = split(TABLE)
    dataset = make_dataset(history, **changes)
    model = make_model(dataset)
    future = known_of(dataset, ahead)
    forecasts = [model.forecast(history, future)]

    def other_rows(*arguments: Any) -> Rows:
        rows = build_future_rows(*arguments)
        rows = rows.assign(y=to_array(rows.columns["y"]) + 1000.0)
        if "noise" in rows.columns:
            state = Labels.from_series(pd.Series(["closed"] * len(rows)))
            rows = rows.assign(noise=np.full(len(rows), -77.0), state=state)
        return rows

    monkeypatch.setattr(forecast_module, "build_future_rows", other_rows)
    forecasts.append(model.forecast(history, future))
    pd.testing.assert_frame_equal(*forecasts, check_exact=True)


LOSSES: dict[str, tuple[dict[str, Any], Any]] = {
    "quantiles": ({}, QuantileLoss([0.1, 0.5, 0.9])),
    "quantiles in any order": ({}, QuantileLoss([0.5, 0.05, 0.975])),
    "composite": ({}, SMAPE() + MAE()),
    "Poisson": (CONFIGURATIONS["count"] | {"target_normalizer": GroupNormalizer()}, PoissonLoss()),
    "normal": ({}, NormalDistributionLoss(quantiles=[0.2, 0.5, 0.8])),
    "log-normal": (
        with_target("volume", GroupNormalizer(transformation="log")),
        LogNormalDistributionLoss(),
    ),
    "negative binomial": (CONFIGURATIONS["count"], NegativeBinomialDistributionLoss()),
    "multivariate normal": ({}, MultivariateNormalDistributionLoss()),
    "several": (
        CONFIGURATIONS["two targets"],
        MultiLoss([QuantileLoss([0.1, 0.5, 0.9]), NormalDistributionLoss(quantiles=[0.5, 0.9])]),
    ),
    "quantiles and classes": (
        CONFIGURATIONS["mixed targets"],
        MultiLoss([QuantileLoss([0.1, 0.5, 0.9]), CrossEntropy()]),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_forecast_has_the_points_and_quantiles_of_the_loss(name: str) -> None:
    changes, loss = LOSSES[name]
    history, ahead = split(TABLE)
    dataset = make_dataset(history, **changes)
    model = make_model(dataset, loss=loss)
    forecast = model.forecast(history, trainer_kwargs=QUIET)
    table = pd.concat([history, with_dummies(ahead)])
    points, quantiles = (
        oracle(model, dataset, table, mode) for mode in ("prediction", "quantiles")
    )
    parts = loss.metrics if isinstance(loss, MultiLoss) else [loss]
    all_columns = []
    for key, rows in forecast.groupby("series"):
        for number, (target, part) in enumerate(zip(dataset.target_names, parts, strict=True)):
            got = rows[rows["target"] == target] if len(parts) > 1 else rows
            if isinstance(part, CrossEntropy):
                labels = sorted(TABLE["label"].unique())
                columns = [f"p_{label}" for label in labels]
                logits = torch.tensor(quantiles[(key,)][number])
                close(got[columns], logits.softmax(-1).numpy())
                assert got["prediction"].tolist() == [labels[k] for k in logits.argmax(-1)]
                all_columns += columns
                continue
            point, expected = points[(key,)][number], quantiles[(key,)][number]
            levels = getattr(part, "quantiles", None) or []
            if isinstance(part, QuantileLoss):  # those of the network may cross
                expected = np.sort(expected)[..., np.argsort(np.argsort(levels))]
                point = expected[..., levels.index(0.5)]
            close(got["prediction"].astype(float), point)
            columns = [f"q{level:g}" for level in levels]
            if name == "multivariate normal":  # other samples: the point forecast draws first
                assert (np.diff(got[columns]) >= 0).all()
            elif columns:
                close(got[columns], expected)
            all_columns += columns
            absent = [c for c in forecast if c[:1] in "qp" and c not in [*columns, "prediction"]]
            assert got[absent].isna().all(axis=None)
    fixed = ["series", "t", "step", *(["target"] if len(parts) > 1 else []), "prediction"]
    assert list(forecast.columns) == [*fixed, *dict.fromkeys(all_columns)]


def test_forecast_of_a_reloaded_model_is_the_same(tmp_path: Path) -> None:
    history, ahead = split(TABLE)
    dataset = make_dataset(history, **CONFIGURATIONS["all covariates"])
    model = make_model(dataset, loss=QuantileLoss([0.1, 0.5, 0.9]))
    untrained = model.forecast(history, ahead)
    trainer = fit(model, dataset)
    training = model.training
    expected = model.forecast(history, ahead)
    assert model.training == training
    assert not np.allclose(expected["prediction"], untrained["prediction"])
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    reloaded = mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt", map_location="cpu")
    pd.testing.assert_frame_equal(reloaded.forecast(history, ahead), expected, check_exact=True)


# Which rows of the table are read


@pytest.fixture(scope="module")
def plain() -> tuple[mLSTMTime, pd.DataFrame]:
    """Return a model without covariates, and a history."""
    history, _ = split(TABLE)
    return make_model(make_dataset(history, target_normalizer=EncoderNormalizer())), history


@pytest.mark.parametrize("name", ["no covariates", "lags", "lags of covariates", "gaps"])
def test_forecast_reads_only_the_tail_of_the_history(name: str) -> None:
    dataset, history, ahead = configured(name)
    model, future = make_model(dataset), known_of(dataset, ahead)
    rows = HISTORY + dataset.max_lag
    expected = model.forecast(history, future)
    tail = history.groupby("series").tail(rows)
    assert len(tail) == 3 * rows < len(history)
    pd.testing.assert_frame_equal(model.forecast(tail, future), expected)
    blanked = history.copy()
    blanked.loc[~blanked.index.isin(tail.index), ["y", "noise", "price"]] = np.nan
    pd.testing.assert_frame_equal(model.forecast(blanked, future), expected)


def test_forecast_of_a_series_does_not_depend_on_others(
    plain: tuple[mLSTMTime, pd.DataFrame],
) -> None:
    model, history = plain
    expected = model.forecast(history)
    one_by_one = [model.forecast(rows) for _, rows in history.groupby("series")]
    pd.testing.assert_frame_equal(pd.concat(one_by_one, ignore_index=True), expected, rtol=1e-5)
    in_batches = model.forecast(history, batch_size=2)
    pd.testing.assert_frame_equal(in_batches, expected, rtol=1e-5)


def test_forecast_of_series_of_other_names_and_times(plain: tuple[mLSTMTime, pd.DataFrame]) -> None:
    """The model scales each series by its history: none needs to be in the training data."""
    model, history = plain
    expected = model.forecast(history)
    shift = {"s0": -5000, "s1": 0, "s2": 10**7}
    new = history.assign(
        t=history["t"] + history["series"].map(shift), series="new" + history["series"]
    )
    got = model.forecast(new)
    assert got["series"].tolist() == ("new" + expected["series"]).tolist()
    assert got["t"].tolist() == (expected["t"] + expected["series"].map(shift)).tolist()
    close(got["prediction"], expected["prediction"])


@pytest.mark.parametrize("kind", ["int64", "Int64"])
@pytest.mark.parametrize("last", [2**53 - HORIZON, -(2**52)])
def test_forecast_supports_times_up_to_the_limit(
    plain: tuple[mLSTMTime, pd.DataFrame], last: int, kind: str
) -> None:
    model, history = plain
    expected = model.forecast(history)
    shift = last - int(history["t"].max())
    got = model.forecast(history.assign(t=(history["t"] + shift).astype(kind)))
    got["t"] -= shift
    pd.testing.assert_frame_equal(got, expected)


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (2**53 - HORIZON + 1, "int64"),
        (2**63 - 1, "int64"),
        (2**63 - 1 - HORIZON, "Int64"),
        (2**63, "uint64"),
        (2**64 - 1, "UInt64"),
        (-(2**63) + 100, "int64"),
    ],
)
def test_forecast_rejects_times_beyond_the_limit(
    plain: tuple[mLSTMTime, pd.DataFrame], last: int, kind: str
) -> None:
    """They would overflow, or no longer be distinguished, in some of the conversions."""
    model, history = plain
    times = [int(t) - int(history["t"].max()) + last for t in history["t"]]
    table = history.assign(t=pd.array(times, dtype=kind))
    with pytest.raises(ValueError, match=r"'t' of data must hold time indices between -2\*\*53"):
        model.forecast(table)


def test_forecast_reports_a_long_gap_at_once(plain: tuple[mLSTMTime, pd.DataFrame]) -> None:
    """Its steps are not listed: there are 10^15."""
    model, history = plain
    series = history[history["series"] == "s0"]
    series = pd.concat([series, series.tail(1).assign(t=10**15)])
    last = series["t"].iloc[-2]
    with pytest.raises(ValueError, match="every series must have at least|none for series='s0'"):
        model.forecast(series)
    assert format_times(range(last, 10**15)) == f"{last} to {10**15 - 1}"


@pytest.mark.parametrize("kind", ["int64", "category"])
def test_forecast_keeps_the_type_of_group_columns(kind: str) -> None:
    table = TABLE.assign(series=TABLE["series"].str[1:].astype("int64"))
    history = table[table["t"] < 22].sort_values("series", ascending=False, kind="stable")
    dataset = make_dataset(history, group_ids=["region", "series"], target_normalizer=None)
    history = history.astype({"series": kind})
    forecast = make_model(dataset).forecast(history)
    assert forecast["series"].dtype == history["series"].dtype
    assert list(forecast.columns[:2]) == ["region", "series"]
    assert forecast["series"].tolist() == np.repeat([2, 1, 0], HORIZON).tolist()


def test_forecast_accepts_other_types_of_the_same_columns() -> None:
    model, history, future = known_model()
    expected = model.forecast(history, future)
    types = {"y": "Float64", "price": "Float32", "holiday": "category", "series": "category"}
    got = model.forecast(
        history.astype({**types, "t": "Int32"}), future.astype({"series": "string", "t": "int16"})
    )
    pd.testing.assert_frame_equal(
        got.astype({"series": expected["series"].dtype}), expected, rtol=1e-5, check_exact=False
    )


@pytest.mark.parametrize("kind", ["int64", "int8", "Int32", "bool"])
def test_forecast_reads_whole_numbers(plain: tuple[mLSTMTime, pd.DataFrame], kind: str) -> None:
    """An ``EncoderNormalizer`` of pytorch-forecasting fails on integers."""
    model, history = plain
    values = history["y"] > 7 if kind == "bool" else history["y"].round()
    whole = history.assign(y=values.astype(kind))
    expected = model.forecast(whole.astype({"y": float}))
    pd.testing.assert_frame_equal(model.forecast(whole), expected)


def test_forecast_changes_and_writes_nothing(
    plain: tuple[mLSTMTime, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, history = plain
    before, weights = history.copy(), {k: v.clone() for k, v in model.state_dict().items()}
    arguments = dict(QUIET)
    model.train()
    first = model.forecast(history, trainer_kwargs=arguments)
    assert model.training
    pd.testing.assert_frame_equal(model.forecast(history, trainer_kwargs=arguments), first)
    pd.testing.assert_frame_equal(history, before)
    assert arguments == QUIET
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_forecast_does_not_need_the_weight() -> None:
    history, _ = split(TABLE)
    dataset = make_dataset(history, weight="weight")
    model = make_model(dataset)
    pd.testing.assert_frame_equal(
        model.forecast(history.drop(columns="weight")), model.forecast(history)
    )


def test_forecast_from_a_single_row() -> None:
    """Where the dataset allows it, one row is enough: it says what series it is, and when."""
    dataset, history, ahead = configured("empty encoders")
    model = make_model(dataset)
    got = model.forecast(history.groupby("series").tail(1), known_of(dataset, ahead))
    assert got["prediction"].notna().all()
    assert got["t"].tolist() == ahead["t"].tolist()


def test_forecast_takes_static_variables_from_the_last_row() -> None:
    history, ahead = split(TABLE)
    dataset = make_dataset(history, static_reals=["size"], static_categoricals=["region"])
    model = make_model(dataset)
    expected = model.forecast(history)
    moved = history.assign(
        region=np.where(history["t"] == history["series"].map(ENDS), "west", history["region"])
    )
    got = model.forecast(moved)
    differ = got["prediction"] != expected["prediction"]
    assert differ.groupby(got["series"]).all().to_dict() == {"s0": True, "s1": True, "s2": False}


def test_forecast_fills_a_history_that_begins_in_a_gap() -> None:
    """pytorch-forecasting would drop the series; the gap is filled as in the middle."""
    history, ahead = split(TABLE)
    strategy = {"noise": 0.25, "state": "closed"}
    dataset = make_dataset(
        make_gaps(history),
        **CONFIGURATIONS["all covariates"],
        allow_missing_timesteps=True,
        constant_fill_strategy=strategy,
    )
    model, future = make_model(dataset), known_of(dataset, ahead)
    begin = history["series"].map(ENDS) - HISTORY + 1
    missing = history["t"].between(begin, begin + 1)
    before = history["t"] == begin - 1
    filled = history.copy()
    columns = filled.columns.difference(["t", "series"])
    for step in (0, 1):
        place = filled["t"] == begin + step
        filled.loc[place, columns] = filled.loc[before, columns].to_numpy()
        filled.loc[place, list(strategy)] = list(strategy.values())
    got = model.forecast(history[~missing], future)
    pd.testing.assert_frame_equal(got, model.forecast(filled.infer_objects(), future), rtol=1e-5)


def test_forecast_reads_the_groups_of_scalers() -> None:
    history, ahead = split(TABLE)
    table = history.assign(kind=history["region"].eq("west").astype("int64"))
    dataset = make_dataset(
        table,
        time_varying_known_reals=["price"],
        scalers={"price": GroupNormalizer(groups=["kind"])},
    )
    model = make_model(dataset)
    rows = with_dummies(ahead).assign(kind=ahead["region"].eq("west").astype("int64"))
    expected = oracle(model, dataset, pd.concat([table, rows]), "prediction")
    for key, got in model.forecast(table, ahead[["series", "t", "price"]]).groupby("series"):
        close(got["prediction"], expected[(key,)][0])


# Known variables of the future


def known_model(**changes: Any) -> tuple[mLSTMTime, pd.DataFrame, pd.DataFrame]:
    """Return a model with known variables, a history, and their values in the future."""
    history, ahead = split(TABLE)
    arguments = {
        "time_varying_known_reals": ["price"],
        "time_varying_known_categoricals": ["holiday"],
        **changes,
    }
    future = ahead[["series", "t", "price", "holiday"]]
    return make_model(make_dataset(history, **arguments)), history, future


def test_future_is_aligned_by_series_and_time() -> None:
    model, history, future = known_model()
    expected = model.forecast(history, future)
    everything = TABLE.drop(columns="y").sample(frac=1, random_state=0)  # all times, in any order
    pd.testing.assert_frame_equal(model.forecast(history, everything), expected)
    other = future.copy()
    other.loc[other["series"].eq("s1") & other["t"].eq(20), "price"] += 1
    got = model.forecast(history, other)
    differ = got["prediction"] != expected["prediction"]
    assert differ.groupby(got["series"]).any().to_dict() == {"s0": False, "s1": True, "s2": False}


def test_future_time_index_is_computed() -> None:
    history, ahead = split(TABLE)
    dataset = make_dataset(history, time_varying_known_reals=["t"], add_relative_time_idx=True)
    model = make_model(dataset)
    expected = oracle(model, dataset, pd.concat([history, with_dummies(ahead)]), "prediction")
    for key, got in model.forecast(history).groupby("series"):
        close(got["prediction"], expected[(key,)][0])


def test_future_rows_that_are_missing_take_the_constant_fill_strategy() -> None:
    model, history, future = known_model(constant_fill_strategy={"price": 1.25, "holiday": "xmas"})
    expected = model.forecast(history, future.assign(price=1.25, holiday="xmas"))
    pd.testing.assert_frame_equal(model.forecast(history), expected)
    some = model.forecast(history, future.drop(columns="price"))
    pd.testing.assert_frame_equal(some, model.forecast(history, future.assign(price=1.25)))
    last = future["t"] == future["series"].map(ENDS) + HORIZON
    rows = model.forecast(history, future[last])
    blank = future.assign(
        price=future["price"].where(last, 1.25), holiday=future["holiday"].where(last, "xmas")
    )
    pd.testing.assert_frame_equal(rows, model.forecast(history, blank))


def test_future_gaps_repeat_the_row_before() -> None:
    model, history, future = known_model(allow_missing_timesteps=True)
    step = future["t"] - future["series"].map(ENDS)
    carried = future.copy()
    last = history.groupby("series")[["price", "holiday"]].last()
    for name in ("price", "holiday"):
        carried.loc[step == 1, name] = last[name].to_numpy()
        carried.loc[step == 3, name] = future.loc[step == 2, name].to_numpy()
    got = model.forecast(history, future[step.isin([2, 4])])
    pd.testing.assert_frame_equal(got, model.forecast(history, carried))
    with pytest.raises(ValueError, match=r"'price' .* series='s0' at t=24, 25 \(and 2 more series"):
        model.forecast(history, future[step <= 2])


def test_future_labels_may_be_new_if_the_dataset_allows_them() -> None:
    encoder = NaNLabelEncoder(add_nan=True, warn=False)
    model, history, future = known_model(categorical_encoders={"holiday": encoder})
    expected = model.forecast(history, future.assign(holiday="never seen"))
    pd.testing.assert_frame_equal(model.forecast(history, future.assign(holiday=None)), expected)


# Errors


def at(table: pd.DataFrame, series: str, t: int, /, **values: Any) -> pd.DataFrame:
    """Return a table with other values in one row."""
    table = table.copy()
    for name, value in values.items():
        table[name] = table[name].where((table["series"] != series) | (table["t"] != t), value)
    return table


NAN = float("nan")
INVALID: dict[str, tuple[type[Exception], str, Any]] = {
    "no table": (TypeError, "data must be a pandas DataFrame, got dict", lambda h, f: ({}, f)),
    "no rows": (ValueError, "data must have rows .* got none", lambda h, f: (h[:0], f)),
    "no column": (
        ValueError,
        r"data must have the columns .* none named \['region'\]",
        lambda h, f: (h.drop(columns="region"), f),
    ),
    "column in the index": (
        ValueError,
        r"none named \['t'\]; call data.reset_index\(\) first",
        lambda h, f: (h.set_index("t"), f),
    ),
    "column twice": (
        ValueError,
        r"every column once, got \['price'\]",
        lambda h, f: (pd.concat([h, h["price"]], axis=1), f),
    ),
    "time of the wrong type": (
        TypeError,
        "column 't' of data must hold integers, got float64; number the steps",
        lambda h, f: (h.assign(t=h["t"] * 1.0), f),
    ),
    "time missing": (
        ValueError,
        "data must have a time index in every row, got 1 without 't'",
        lambda h, f: (at(h.astype({"t": "Int64"}), "s0", 3, t=pd.NA), f),
    ),
    "text for numbers": (
        TypeError,
        "column 'noise' of data must hold numbers, got (str|object)",
        lambda h, f: (h.assign(noise="x"), f),
    ),
    "complex numbers": (
        TypeError,
        "column 'noise' of data must hold numbers, got complex128",
        lambda h, f: (h.assign(noise=h["noise"] * 1j), f),
    ),
    "numbers for text": (
        TypeError,
        "categorical variable 'state' of data must hold text, got int64",
        lambda h, f: (h.assign(state=1), f),
    ),
    "no name": (
        ValueError,
        "name the series of every row, got 1 rows without 'series'",
        lambda h, f: (at(h, "s1", 3, series=None), f),
    ),
    "row twice": (
        ValueError,
        r"data must have one row .* series='s0' at t=3 \(and 1 more such rows\)",
        lambda h, f: (pd.concat([h, h[h["t"].isin([3, 4]) & (h["series"] == "s0")]]), f),
    ),
    "static variable missing": (
        ValueError,
        "'size' of data must hold finite numbers, got nan for series='s1' at t=17, 18; fill",
        lambda h, f: (at(at(h, "s1", 17, size=NAN), "s1", 18, size=NAN), f),
    ),
    "target missing in the history": (
        ValueError,
        r"value of target 'y' in its last 8 steps, got none for series='s1'; fill some in",
        lambda h, f: (h.assign(y=h["y"].where((h["series"] != "s1") | (h["t"] < 10))), f),
    ),
    "rows to forecast": (
        ValueError,
        r"no target in the last 4 steps of series='s0' \(and 2 more series\).*; drop these rows",
        lambda h, f: (
            h.assign(y=h["y"].where(h["t"] < h.groupby("series")["t"].transform("max") - 3)),
            f,
        ),
    ),
    "infinite": (
        ValueError,
        "'noise' of data .* got inf for series='s0' at t=20",
        lambda h, f: (at(h, "s0", 20, noise=np.inf), f),
    ),
    "unseen label": (
        ValueError,
        "'state' of data must hold one of the 2 labels .* got 'ajar' for series='s2' at t=20; "
        ".*NaNLabelEncoder",
        lambda h, f: (at(h, "s2", 20, state="ajar"), f),
    ),
    "unseen series": (
        ValueError,
        "'series' of data must hold one of the 3 labels .* got 's9'",
        lambda h, f: (h.assign(series=h["series"].replace("s2", "s9")), f),
    ),
    "gap": (
        ValueError,
        r"row for every time index, got none for series='s0' at t=16 to 18; .*allow_missing",
        lambda h, f: (h[~h["t"].between(16, 18) | (h["series"] != "s0")], f),
    ),
    "short": (
        ValueError,
        "at least 8 steps of history.* got 5 for series='s2'",
        lambda h, f: (h[(h["series"] != "s2") | (h["t"] > 16)], f),
    ),
    "no future": (
        ValueError,
        r"known variable 'price' .* series='s0' at t=22 to 25 \(and 2 more series\); pass future",
        lambda h, f: (h, None),
    ),
    "future of the wrong type": (
        TypeError,
        "future must be a pandas DataFrame, got list; .* or None",
        lambda h, f: (h, []),
    ),
    "future without column": (
        ValueError,
        r"future must have the columns .* none named \['holiday'\]",
        lambda h, f: (h, f.drop(columns="holiday")),
    ),
    "future too short": (
        ValueError,
        "known variable 'price' .* series='s1' at t=22; add rows",
        lambda h, f: (h, f[(f["series"] != "s1") | (f["t"] != 22)]),
    ),
    "future with a hole": (
        ValueError,
        "'price' of future must hold finite numbers, got nan for series='s1' at t=20",
        lambda h, f: (h, at(f, "s1", 20, price=NAN)),
    ),
    "unseen label in future": (
        ValueError,
        "'holiday' of future must hold one of the 3 labels .* got 'hols' for series='s1' at t=20",
        lambda h, f: (h, at(f, "s1", 20, holiday="hols")),
    ),
    "future twice": (
        ValueError,
        "future must have one row",
        lambda h, f: (h, pd.concat([f, f[:1]])),
    ),
    "future of another series": (
        ValueError,
        "future contains series that are missing from data, got series='s8'",
        lambda h, f: (h, pd.concat([f, f[:1].assign(series="s8")])),
    ),
}


@cache
def strict_model() -> tuple[mLSTMTime, pd.DataFrame, pd.DataFrame]:
    history, ahead = split(TABLE)
    changes = {**CONFIGURATIONS["all covariates"], "time_varying_known_categoricals": ["holiday"]}
    return make_model(make_dataset(history, **changes)), history, ahead


@pytest.mark.parametrize("name", INVALID)
def test_forecast_explains_invalid_tables(name: str) -> None:
    model, history, ahead = strict_model()
    kind, message, corrupt = INVALID[name]
    with pytest.raises(kind, match=f"^mLSTMTime.forecast: .*{message}"):
        model.forecast(*corrupt(history, ahead[["series", "t", "price", "holiday"]]))


def test_forecast_rejects_a_dataset() -> None:
    dataset, _, _ = configured("no covariates")
    with pytest.raises(TypeError, match="got TimeSeriesDataSet; pass the one"):
        make_model(dataset).forecast(dataset)  # type: ignore[arg-type]


def test_forecast_with_lags_needs_more_rows() -> None:
    dataset, history, _ = configured("lags")
    tail = history.groupby("series").tail(HISTORY + dataset.max_lag - 1)
    with pytest.raises(ValueError, match="8 steps of history after the 6 rows that lags .* got 7"):
        make_model(dataset).forecast(tail)


def test_forecast_with_lags_needs_rows_for_an_empty_history() -> None:
    """pytorch-forecasting would take the rows of the horizon for them."""
    history, _ = split(TABLE)
    dataset = make_dataset(
        history, lags={"y": [2, 5]}, min_encoder_length=0, max_prediction_length=2
    )
    model = make_model(dataset)
    lengths = {"s0": 5, "s1": 6, "s2": 20}
    tails = [rows.tail(lengths[name]) for name, rows in history.groupby("series")]
    forecast = model.forecast(pd.concat(tails), trainer_kwargs=QUIET)
    assert forecast.groupby("series")["t"].min().to_dict() == {n: ENDS[n] + 1 for n in ENDS}
    assert np.isfinite(forecast["prediction"]).all()
    tails[1] = tails[1].tail(4)
    with pytest.raises(ValueError, match="at least 0 steps .* 5 rows .* got 0, of 4 rows, .*'s1'"):
        model.forecast(pd.concat(tails), trainer_kwargs=QUIET)


def test_forecast_rejects_a_model_without_dataset() -> None:
    with pytest.raises(ValueError, match="make it with mLSTMTime.from_dataset"):
        mLSTMTime(target="y", output_transformer=GroupNormalizer()).forecast(TABLE)


def test_forecast_rejects_groups_named_as_its_columns() -> None:
    history, _ = split(TABLE.rename(columns={"series": "step"}).assign(series=TABLE["series"]))
    dataset = make_dataset(history, group_ids=["step"], target_normalizer=None)
    with pytest.raises(ValueError, match=r"of a column of the forecast, got \['step'\]"):
        make_model(dataset).forecast(history)


def test_forecast_rejects_groups_named_as_columns_of_classes() -> None:
    column = f"p_{TABLE['label'].iloc[0]}"
    history, _ = split(TABLE.assign(**{column: TABLE["series"]}))
    dataset = make_dataset(
        history,
        group_ids=[column],
        target="label",
        time_varying_unknown_categoricals=["label"],
        target_normalizer=NaNLabelEncoder(),
    )
    with pytest.raises(ValueError, match=rf"of a column of the forecast, got \['{column}'\]"):
        make_model(dataset).forecast(history)


def test_forecast_separates_columns_of_close_quantiles() -> None:
    history, _ = split(TABLE)
    levels = np.array([0.1, 0.5, 0.5000001])
    model = make_model(make_dataset(history), loss=QuantileLoss(levels))
    forecast = model.forecast(history, trainer_kwargs=QUIET)
    assert list(forecast.columns[-3:]) == ["q0.1", "q0.5", "q0.5000001"]
    assert (forecast["q0.5"] != forecast["q0.5000001"]).any()


def test_forecast_checks_its_arguments(plain: tuple[mLSTMTime, pd.DataFrame]) -> None:
    model, history = plain
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        model.forecast(history, batch_size=0)
    with pytest.raises(ValueError, match="see all 3 series.*leave out limit_predict_batches"):
        model.forecast(history, batch_size=1, trainer_kwargs={**QUIET, "limit_predict_batches": 1})


def test_forecast_works_in_inference_mode(plain: tuple[mLSTMTime, pd.DataFrame]) -> None:
    model, history = plain
    expected = model.forecast(history, batch_size=np.int64(2), trainer_kwargs=QUIET)
    with torch.inference_mode():
        got = model.forecast(history, batch_size=2, trainer_kwargs=QUIET)
    pd.testing.assert_frame_equal(got, expected)


# Numbers that can be used


@pytest.mark.parametrize("levels", [[0.1, 0.5, 0.9], [0.9, 0.1, 0.5], [0.2, 0.7]])
def test_quantiles_do_not_cross(levels: list[float]) -> None:
    """Those of the network may, and the raw output has them as they are."""
    dataset, table = make_dataset(), make_table()
    model = make_model(dataset, loss=QuantileLoss(levels))
    with torch.no_grad():
        model.network.residual_head.bias.normal_()
    forecast = model.forecast(table)
    names = [f"q{level:g}" for level in sorted(levels)]
    ordered = forecast[names].to_numpy()
    assert (np.diff(ordered) >= 0).all()
    future = table.groupby("series").tail(HORIZON).assign(t=lambda rows: rows["t"] + HORIZON)
    whole = pd.concat([table, future], ignore_index=True)
    raw = model.predict(whole, mode=("raw", "prediction"), trainer_kwargs={**QUIET}).numpy()
    network = raw.reshape(-1, len(levels))
    assert (np.diff(network[:, np.argsort(levels)]) < 0).any()
    np.testing.assert_allclose(np.sort(network), ordered, rtol=1e-5)
    if 0.5 in levels:
        np.testing.assert_array_equal(forecast["prediction"], forecast["q0.5"])
    assert forecast["prediction"].between(ordered.min(1), ordered.max(1)).all()


@pytest.mark.parametrize("loss", [MAE(), QuantileLoss([0.1, 0.5, 0.9])])
def test_forecast_that_is_not_finite_is_rejected(loss: Any) -> None:
    table = make_table()
    model = make_model(make_dataset(), loss=loss)
    with torch.no_grad():
        model.network.residual_head.bias[-1] = torch.nan
    message = "^mLSTMTime.forecast: a forecast must be finite, got nan as .* of 'y' for .* at t="
    with pytest.raises(ValueError, match=message):
        model.forecast(table)
