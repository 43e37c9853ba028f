"""`BatchedTimeSeriesDataSet` carries missing values (NaN), and fits scales to what is there."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, MultiNormalizer
from pytorch_forecasting.data import TimeSeriesDataSet, TorchNormalizer
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from helpers.datasets import HISTORY, HORIZON, make_table
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

ARGUMENTS: dict[str, Any] = {
    "time_idx": "t",
    "target": "y",
    "group_ids": ["series"],
    "max_encoder_length": HISTORY,
    "max_prediction_length": HORIZON,
    "static_reals": ["size"],
    "time_varying_known_reals": ["price"],
    "time_varying_unknown_reals": ["y", "noise"],
}


def make_holes() -> pd.DataFrame:
    """Hide a run and single values of a target and of two covariates."""
    table = make_table()
    table.loc[[3, 4, 5, 30, 60], "y"] = np.nan
    table.loc[[1, 2, 40], "price"] = np.nan
    table.loc[table.index % 3 == 0, "noise"] = np.nan
    return table


def build(table: pd.DataFrame, **changes: Any) -> BatchedTimeSeriesDataSet:
    return BatchedTimeSeriesDataSet(table, **{**ARGUMENTS, **changes})


def test_batches_carry_missing_values() -> None:
    table = make_holes()
    dataset = build(table, target_normalizer=GroupNormalizer(groups=["series"]))
    x, (target, _) = dataset.__getitems__(range(len(dataset))).collate()
    begin = dataset.index["index_start"].to_numpy()[:, None]
    y = torch.from_numpy(table["y"].to_numpy(np.float32))[begin + np.arange(HISTORY + HORIZON)]
    torch.testing.assert_close(x["encoder_target"], y[:, :HISTORY], equal_nan=True)
    torch.testing.assert_close(target, y[:, HISTORY:], equal_nan=True)
    prices = x["encoder_cont"][..., dataset.reals.index("price")]
    hidden = table["price"].isna().to_numpy()[begin + np.arange(HISTORY)]
    assert torch.equal(prices.isnan(), torch.from_numpy(hidden))
    assert not x["encoder_cont"][..., dataset.reals.index("size")].isnan().any()
    again = pickle.loads(pickle.dumps(dataset)).__getitems__(range(len(dataset))).collate()[0]
    assert torch.equal(again["encoder_target"].isnan(), x["encoder_target"].isnan())


# torch says so once per process, so it depends on the tests before
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize(
    "normalizer",
    [
        GroupNormalizer(groups=["series"]),
        GroupNormalizer("robust", transformation="log"),
        TorchNormalizer(),
        TorchNormalizer("robust", transformation="log1p"),
        MultiNormalizer([GroupNormalizer(), TorchNormalizer("robust")]),
    ],
)
def test_normalizers_are_fitted_to_observed_rows(normalizer: Any) -> None:
    table = make_holes()
    several = isinstance(normalizer, MultiNormalizer)
    changes: dict[str, Any] = {"target_normalizer": normalizer}
    if several:
        changes |= {"target": ["y", "noise"]}
    dataset = build(table, **changes)
    parts = dataset.target_normalizers if several else [dataset.target_normalizer]
    for name, part in zip(dataset.target_names, parts, strict=True):
        assert "fit" not in vars(part)
        rows = table.dropna(subset=[name])
        rows = rows.assign(series=dataset.transform_values("series", rows["series"]))
        fresh = type(part)(**part.get_params(deep=False))
        is_group = isinstance(part, GroupNormalizer)
        values = rows[name].to_numpy(copy=True)
        fresh.fit(values, rows) if is_group else fresh.fit(values)
        for row in dataset.data["groups"].unique(dim=0):
            group = (row, dataset.group_ids)
            np.testing.assert_allclose(
                np.asarray(part.get_parameters(*group)),
                np.asarray(fresh.get_parameters(*group)),
                rtol=1e-5,
            )


@pytest.mark.parametrize(
    "scaler", [StandardScaler(), RobustScaler(), MinMaxScaler(), GroupNormalizer()]
)
def test_scalers_are_fitted_to_observed_rows(scaler: Any) -> None:
    table = make_holes()
    dataset = build(table, scalers={"price": scaler}, target_normalizer=None)
    values = table.dropna(subset=["price"])
    complete = TimeSeriesDataSet(
        values.assign(t=values.groupby("series").cumcount(), noise=0.0, y=1.0),
        **{**ARGUMENTS, "scalers": {"price": type(scaler)()}, "target_normalizer": None},
    )
    column = dataset.reals.index("price")
    scaled = dataset.data["reals"][:, column]
    observed = scaled[~scaled.isnan()]
    torch.testing.assert_close(observed, complete.data["reals"][:, column], rtol=1e-4, atol=1e-5)


def test_series_without_values_takes_the_median_scale() -> None:
    table = make_holes()
    table.loc[table["series"] == "s1", "y"] = np.nan
    dataset = build(table, target_normalizer=GroupNormalizer(groups=["series"]))
    scales = dataset.__getitems__(range(len(dataset))).collate()[0]["target_scale"]
    assert scales.isfinite().all()
    median = dataset.target_normalizer.missing_
    start = int((table["series"] == "s0").sum()) - HISTORY - HORIZON + 1
    assert scales[start].tolist() == pytest.approx([median["center"], median["scale"]])


@pytest.mark.parametrize("method", ["standard", "robust"])
@pytest.mark.parametrize("max_length", [None, 5])
@pytest.mark.parametrize("lengths", ["equal", "variable"])
def test_encoder_normalizer_reads_observed_steps(
    method: str, max_length: int | None, lengths: str
) -> None:
    table = make_holes()
    table.loc[9:20, "y"] = np.nan
    table.loc[19, "y"] = 4.0
    normalizer = EncoderNormalizer(method, max_length=max_length)
    shortest = {"equal": HISTORY, "variable": 2}[lengths]
    dataset = build(
        table,
        target_normalizer=normalizer,
        min_encoder_length=shortest,
        scalers={"noise": EncoderNormalizer()},
    )
    x, _ = dataset.__getitems__(range(len(dataset))).collate()
    assert x["target_scale"].isfinite().all()
    kinds = set()
    for sample, length in enumerate(x["encoder_lengths"].tolist()):
        steps = x["encoder_target"][sample, :length][-(max_length or 0) :]
        observed = steps[~steps.isnan()]
        group = x["groups"][sample]
        series = dataset.data["target"][0][(dataset.data["groups"] == group).all(1)]
        whole = EncoderNormalizer(method).fit(series[~series.isnan()]).get_parameters()
        expected = whole.clone()
        if len(observed) > 1:
            expected = EncoderNormalizer(method).fit(observed).get_parameters()
        elif len(observed) == 1:
            expected[0] = observed[0]
        kinds.add(min(len(observed), 2))
        torch.testing.assert_close(x["target_scale"][sample], expected, rtol=1e-4, atol=1e-5)
    assert kinds == {0, 1, 2}


def test_gaps_filled_with_nan_are_missing() -> None:
    table = make_table()
    table = table[table["t"] % 7 != 3]
    dataset = build(
        table,
        allow_missing_timesteps=True,
        constant_fill_strategy={"y": np.nan},
        target_normalizer=EncoderNormalizer(),
    )
    x, (target, _) = dataset.__getitems__(range(len(dataset))).collate()
    assert x["target_scale"].isfinite().all()
    time = x["decoder_time_idx"]
    assert torch.equal(target.isnan(), time % 7 == 3)


def test_automatic_normalizer_ignores_missing_values() -> None:
    complete, holes = build(make_table()), build(make_holes())
    assert holes.target_normalizer.transformation == complete.target_normalizer.transformation
    assert complete.target_normalizer.transformation == "relu"


def test_nullable_numbers_are_read() -> None:
    table = make_holes()
    nullable = table.assign(y=table["y"].astype("Float64"), price=table["price"].astype("Float64"))
    for key in ("target", "reals"):
        expected, actual = build(table).data[key], build(nullable).data[key]
        if key == "target":
            expected, actual = expected[0], actual[0]
        torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.inf}, "column 'y' must hold a finite number or NaN in every row, got inf for"),
        ({"noise": -np.inf}, "column 'noise' must hold a finite number or NaN .* got -inf for"),
        ({"size": np.nan}, "column 'size' must hold a finite number in every row, got nan for"),
        ({"weight": np.nan}, "column 'weight' must hold a finite number in every row, got nan"),
    ],
)
def test_other_numbers_are_rejected(change: dict[str, float], message: str) -> None:
    table = make_table()
    for name, value in change.items():
        table.loc[30, name] = value
    scalers = dict.fromkeys(["size", "noise", "price"])
    with pytest.raises(ValueError, match=f"^BatchedTimeSeriesDataSet: {message}.*series='s1'.*t=4"):
        build(table, weight="weight", scalers=scalers, target_normalizer=None)


@pytest.mark.parametrize("name", ["y", "price"])
def test_columns_without_any_value_are_rejected(name: str) -> None:
    message = f"^BatchedTimeSeriesDataSet: column '{name}' must have a value .* NaN in all 78;"
    with pytest.raises(ValueError, match=message):
        build(make_table().assign(**{name: np.nan}))
