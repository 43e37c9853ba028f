"""Forecasts beyond the horizon of training, and quantiles on request."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    CrossEntropy,
    ImplicitQuantileNetworkDistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
)
from scipy import stats

from helpers.datasets import CONFIGURATIONS, HISTORY, HORIZON, make_dataset, make_table
from helpers.models import SMALL
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data.rows import Rows
from pytorch_forecasting_mlstm.models.base.forecast import beyond as module
from pytorch_forecasting_mlstm.models.base.forecast.sampling import draw_levels, sample_quantiles

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
]

TABLE = make_table(steps=60)
STEPS = 2 * HORIZON + 3
QUANTILES = QuantileLoss([0.1, 0.5, 0.9])
KNOWN = {
    "static_categoricals": ["region"],
    "time_varying_known_categoricals": ["holiday", "promotion"],
    "time_varying_known_reals": ["price", "t"],
    "add_relative_time_idx": True,
    "lags": {"y": [2, 6]},
    "target_normalizer": EncoderNormalizer(),
}


def history() -> pd.DataFrame:
    return TABLE[TABLE["t"] < 26].reset_index(drop=True)


def make_model(loss: Any = None, **changes: Any) -> mLSTMTime:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mLSTMTime.from_dataset(make_dataset(**changes), **SMALL, loss=loss)


def after(table: pd.DataFrame, steps: int = STEPS) -> pd.DataFrame:
    """Make the known variables of the steps after a table."""
    age = TABLE["t"] - table["t"].max()
    return TABLE[age.between(1, steps)].drop(columns=["y", "noise", "state", "label"])


@spread(
    "loss, changes",
    {str(loss): loss for loss in (MAE(), QUANTILES, NormalDistributionLoss())},
    {"plain": {}, "known variables and lags": KNOWN},
)
def test_first_steps_are_those_of_the_horizon(loss: Any, changes: dict[str, Any]) -> None:
    table, model = history(), make_model(loss, **changes)
    direct = model.forecast(table, after(table))
    for steps in (1, HORIZON - 1, HORIZON, HORIZON + 1, STEPS):
        forecast = model.forecast(table, after(table), horizon=steps, num_paths=8)
        assert list(forecast.columns) == list(direct.columns)
        assert forecast.groupby("series")["step"].apply(list).tolist() == 3 * [
            list(range(1, steps + 1))
        ]
        assert (forecast["t"] == table["t"].max() + forecast["step"]).all()
        common = forecast[forecast["step"] <= HORIZON].reset_index(drop=True)
        expected = direct[direct["step"] <= steps].reset_index(drop=True)
        pd.testing.assert_frame_equal(common, expected, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, KNOWN], ids=["plain", "known variables and lags"])
def test_point_forecasts_are_fed_back(changes: dict[str, Any]) -> None:
    """The oracle appends each forecast to the table and forecasts again."""
    table, model = history(), make_model(**changes)
    future = after(table)
    forecast = model.forecast(table, future, horizon=STEPS)
    parts, known_rows = [], table
    for _ in range(3):
        known = after(known_rows, HORIZON)
        part = model.forecast(known_rows, known)
        values = part[["series", "t", "prediction"]].rename(columns={"prediction": "y"})
        known_rows = pd.concat([known_rows, known.merge(values)], ignore_index=True)
        known_rows = known_rows.fillna({"noise": 0.0, "state": "open", "label": "up"})
        parts.append(part)
    expected = pd.concat(parts).sort_values(["series", "t"])
    expected = expected[expected["t"] <= table["t"].max() + STEPS]
    np.testing.assert_allclose(forecast["prediction"], expected["prediction"], rtol=1e-4)


def test_paths_are_fed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle forecasts the table of each path on its own."""
    table, model = history(), make_model(QUANTILES, lags={"y": [3]})
    drawn = []

    def draw(*arguments: Any) -> torch.Tensor:
        drawn.append(original(*arguments))
        return drawn[-1]

    original = module.draw
    monkeypatch.setattr(module, "draw", draw)
    forecast = model.forecast(table, horizon=2 * HORIZON, num_paths=3)
    first, second = drawn  # (paths, series, steps)
    at = forecast[forecast["step"] > HORIZON]
    np.testing.assert_allclose(at["prediction"], second.median(0).values.flatten(), rtol=1e-6)
    expected = np.quantile(second.numpy(), 0.9, axis=0).ravel()
    np.testing.assert_allclose(at["q0.9"], expected, rtol=1e-5)
    noise = torch.Generator().manual_seed(0)
    outputs = []
    for path in first:
        later = after(table, HORIZON).assign(y=path.flatten().numpy())
        outputs.append(model.forecast(pd.concat([table, later], ignore_index=True)))
    levels = draw_levels(torch.zeros(3), 3, HORIZON, noise)  # has the shape of those of the model
    assert levels.shape == second.shape
    for path, output in zip(second, outputs, strict=True):
        low, high = (torch.tensor(output[name].to_numpy()).view(3, -1) for name in ("q0.1", "q0.9"))
        tail = 0.5 * (high - low) + 1e-4
        assert ((path >= low - tail) & (path <= high + tail)).all()


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        (QUANTILES, {"target_normalizer": None}),
        (NormalDistributionLoss(), {}),
        (MultivariateNormalDistributionLoss(rank=2), {}),
        (ImplicitQuantileNetworkDistributionLoss(hidden_size=4, n_loss_samples=8), {}),
        (NegativeBinomialDistributionLoss(), CONFIGURATIONS["count"]),
        (
            PoissonLoss(quantiles=[0.1, 0.9]),
            {**CONFIGURATIONS["count"], "target_normalizer": GroupNormalizer()},
        ),
        (QUANTILES, CONFIGURATIONS["log"]),
        (QUANTILES, CONFIGURATIONS["logit"]),
        (MultiLoss([QUANTILES, MAE()]), CONFIGURATIONS["two targets"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_quantiles_beyond_the_horizon_are_in_order_and_repeatable(
    loss: Any, changes: dict[str, Any]
) -> None:
    table, model = history(), make_model(loss, **changes)
    state = torch.get_rng_state()
    forecast = model.forecast(table, horizon=STEPS, num_paths=8)
    assert torch.equal(torch.get_rng_state(), state)
    rows = forecast[forecast["target"] == "y"] if "target" in forecast else forecast
    names = [name for name in forecast if name.startswith("q")]
    values = rows[sorted(names, key=lambda name: float(name[1:]))].to_numpy()
    assert np.isfinite(values).all() and (np.diff(values) >= 0).all()
    pd.testing.assert_frame_equal(model.forecast(table, horizon=STEPS, num_paths=8), forecast)
    other = model.forecast(table, horizon=STEPS, num_paths=8, seed=1)
    assert not other.equals(forecast)


def test_series_do_not_depend_on_others_beyond_the_horizon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, model = history(), make_model(QUANTILES, target_normalizer=EncoderNormalizer())
    expected = model.forecast(table, horizon=STEPS, num_paths=8)
    one_by_one = [
        model.forecast(rows, horizon=STEPS, num_paths=8) for _, rows in table.groupby("series")
    ]
    pd.testing.assert_frame_equal(pd.concat(one_by_one, ignore_index=True), expected, rtol=1e-4)
    monkeypatch.setattr(module, "_MAX_WINDOWS", 20)  # one series at a time
    got = model.forecast(table, horizon=STEPS, num_paths=8)
    pd.testing.assert_frame_equal(got, expected, rtol=1e-4)


def test_datasets_that_cannot_be_refilled_are_built_path_by_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, model = history(), make_model(QUANTILES)
    expected = model.forecast(table, horizon=STEPS, num_paths=4)
    monkeypatch.setattr(
        "pytorch_forecasting_mlstm.models.base.forecast.dataset.refill", lambda *_: None
    )
    got = model.forecast(table, horizon=STEPS, num_paths=4)
    pd.testing.assert_frame_equal(got, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["categorical target alone", "mixed targets"])
def test_sampled_classes_are_fed_back(name: str) -> None:
    table, model = history(), make_model(**CONFIGURATIONS[name])
    forecast = model.forecast(table, horizon=STEPS, num_paths=8)
    rows = forecast[forecast["target"] == "label"] if "target" in forecast else forecast
    labels = ["p_down", "p_mid", "p_up"]
    np.testing.assert_allclose(rows[labels].sum(axis=1).astype(float), 1, rtol=1e-5)
    best = rows[labels].astype(float).idxmax(axis=1).str[2:]
    assert rows["prediction"].tolist() == best.tolist()


def test_horizon_needs_known_variables_of_all_steps() -> None:
    table, model = history(), make_model(time_varying_known_reals=["price"])
    model.forecast(table, after(table, STEPS), horizon=STEPS)  # not of the rest of the last block
    model.forecast(table, after(table, 2), horizon=2)
    with pytest.raises(
        ValueError,
        match=r"known variable 'price' .* series='s0' at t=36 \(and 2 more series\); add",
    ):
        model.forecast(table, after(table, STEPS - 1), horizon=STEPS)


def test_past_covariates_are_rejected_beyond_the_horizon() -> None:
    table = history()
    model = make_model(
        time_varying_unknown_reals=["y", "noise"], time_varying_unknown_categoricals=["state"]
    )
    model.forecast(table, horizon=HORIZON)
    with pytest.raises(ValueError, match=r"horizon .* 4.* got 5 with \['noise', 'state'\]"):
        model.forecast(table, horizon=HORIZON + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"horizon": 9, "num_paths": 1}, "num_paths must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"quantiles": []}, "quantiles must be levels between 0 and 1"),
        ({"quantiles": [0.5, 1.2]}, "quantiles must be levels between 0 and 1"),
        (
            {"quantiles": [0.05]},
            "quantiles must be between the lowest and .* 0.1 and 0.9, got",
        ),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^mLSTMTime.forecast: {message}"):
        make_model(QUANTILES).forecast(history(), **arguments)


def test_requested_quantiles_are_interpolated() -> None:
    table, model = history(), make_model(QUANTILES)
    trained = model.forecast(table)
    forecast = model.forecast(table, quantiles=[0.8, 0.3, 0.5])
    assert list(forecast.columns[3:]) == ["prediction", "q0.8", "q0.3", "q0.5"]
    expected = 0.25 * trained["q0.5"] + 0.75 * trained["q0.9"]
    np.testing.assert_allclose(forecast["q0.8"], expected, rtol=1e-5)
    np.testing.assert_array_equal(forecast["q0.5"], trained["q0.5"])
    beyond = model.forecast(table, quantiles=[0.3, 0.8], horizon=STEPS, num_paths=8)
    assert (beyond["q0.3"] <= beyond["q0.8"]).all()


@pytest.mark.parametrize("quantiles", [0.5, "0.5", ["0.5"], [None]])
def test_requested_quantiles_must_be_numbers(quantiles: Any) -> None:
    with pytest.raises(TypeError, match=r"^mLSTMTime.forecast: quantiles must be a list of levels"):
        make_model(QUANTILES).forecast(history(), quantiles=quantiles)


def test_requested_quantiles_of_several_targets() -> None:
    table = history()
    model = make_model(
        **CONFIGURATIONS["mixed targets"], loss=MultiLoss([QUANTILES, CrossEntropy()])
    )
    forecast = model.forecast(table, quantiles=[0.2])
    assert forecast.loc[forecast["target"] == "y", "q0.2"].notna().all()
    assert forecast.loc[forecast["target"] == "label", "q0.2"].isna().all()
    with pytest.raises(ValueError, match="MAE, which forecasts a point"):
        make_model().forecast(table, quantiles=[0.2])


def test_quantile_function_of_a_normal_distribution() -> None:
    trained = [0.9, 0.1, 0.5]
    known = torch.tensor(stats.norm.ppf(sorted(trained)))[None, None]
    levels = (torch.arange(20000, dtype=torch.float64) + 0.5)[None] / 20000
    values = sample_quantiles(known.expand(1, levels.shape[1], 3), trained, levels)[0]
    assert (values.diff() >= 0).all()
    assert abs(float(values.std()) - 1) < 0.03
    np.testing.assert_allclose(np.quantile(values, sorted(trained)), known.flatten(), atol=1e-3)
    bounded = sample_quantiles(known.expand(1, levels.shape[1], 3), trained, levels, "logit")
    assert (bounded.min(), bounded.max()) == (known.min(), known.max())


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.9])
def test_levels_are_evenly_spaced_and_correlated(correlation: float) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = draw_levels(torch.tensor([correlation, 0.2]), 4000, 5, generator)
    evenly = (torch.arange(4000) + 0.5) / 4000
    assert torch.allclose(levels.sort(0).values, evenly[:, None, None].expand_as(levels))
    scores = stats.norm.ppf(levels[:, 0].numpy())
    assert abs(np.corrcoef(scores[:, 2], scores[:, 3])[0, 1] - correlation) < 0.05


@pytest.mark.parametrize("kind", ["white noise", "random walk"])
def test_correlation_of_errors(kind: str) -> None:
    """Errors of the mean are as correlated as the series."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 120))
    values = noise if kind == "white noise" else noise.cumsum(1)
    table = make_table(steps=120).assign(y=values.ravel())
    model = make_model(QUANTILES, target_normalizer=EncoderNormalizer())
    seen = []
    original = module.draw_levels

    def record(correlation: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(correlation)
        return original(correlation, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw_levels", record)
        model.forecast(table, horizon=HORIZON + 1, num_paths=2)
    assert (seen[0] < 0.6).all() if kind == "white noise" else (seen[0] > 0.6).all()


def test_short_series_go_beyond_the_horizon() -> None:
    """No row is left to estimate the correlation of errors from."""
    table, model = history(), make_model(QUANTILES)
    forecast = model.forecast(table.groupby("series").tail(HISTORY), horizon=STEPS, num_paths=4)
    assert forecast["q0.9"].notna().all()


def test_values_that_are_not_finite_are_not_fed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*arguments: Any) -> torch.Tensor:
        return torch.full_like(arguments[2], torch.inf)

    monkeypatch.setattr(module, "draw", draw)
    with pytest.raises(ValueError, match="fed back must be finite, got .*Quantile.* steps 1 to 4;"):
        make_model(QUANTILES).forecast(history(), horizon=STEPS)


@pytest.mark.parametrize(
    "loss",
    [NormalDistributionLoss(), pytest.param(QUANTILES, marks=pytest.mark.slow)],
    ids=["normal", "quantiles"],
)
def test_threads_draw_the_same_paths(loss: Any) -> None:
    table, model = history(), make_model(loss)
    expected = [model.forecast(table, horizon=STEPS, num_paths=4, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        seeds = list(range(4)) * 2
        got = pool.map(lambda s: model.forecast(table, horizon=STEPS, num_paths=4, seed=s), seeds)
        for seed, forecast in zip(seeds, got, strict=True):
            pd.testing.assert_frame_equal(forecast, expected[seed], rtol=1e-4)


@pytest.mark.parametrize("transformation", ["log", "log1p", None])
@pytest.mark.parametrize("level", [1.0, 0.25])
def test_counts_of_zero_are_fed_back(transformation: str | None, level: float) -> None:
    """A Poisson distribution draws 0, which has no logarithm."""
    table = history()
    table["few"] = level * (1 + table["t"] % 2)
    model = make_model(
        PoissonLoss(quantiles=[0.1, 0.9]),
        table=table,
        target="few",
        time_varying_unknown_reals=["few"],
        target_normalizer=EncoderNormalizer(transformation=transformation),
    )
    forecast = model.forecast(table, horizon=STEPS, num_paths=8)
    later = forecast[forecast["step"] > HORIZON]
    assert (later["q0.1"] == 0).any()  # it was drawn, and is returned as it is
    assert later["prediction"].between(0, 20 * level).all()


def test_values_at_a_limit_go_as_far_as_their_series_went() -> None:
    series = np.array([0, 0, 1, 1])
    before = Rows({"y": np.array([0.5, 0.2, 0.7, np.nan])}, series, np.arange(4))
    values = np.array([0.0, 1.0, 0.0, 1.0])
    for transformation, expected in {
        None: [0.0, 1.0, 0.0, 1.0],
        "log1p": [0.0, 1.0, 0.0, 1.0],
        "log": [0.2, 1.0, 0.7, 1.0],
        "logit": [0.2, 0.5, 0.7, 0.7],
    }.items():
        normalizer = EncoderNormalizer(transformation=transformation)
        got = module._into_support(values, series, before, "y", normalizer)
        np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"seed": 2**70},
            r"seed must be at most 9223372036854775807, got 11805916",
        ),
        ({"seed": 1.5}, "seed must be an int, got 1.5"),
        ({"seed": float("nan")}, "seed must be an int, got nan"),
        ({"num_paths": 2**70}, "num_paths must be at most 100000, got"),
        ({"num_paths": "9"}, "num_paths must be an int, got '9'"),
        ({"horizon": 2**70}, "horizon must be at most 1000000, got"),
        ({"horizon": float("nan")}, "horizon must be an int, got nan"),
        ({"horizon": True}, "horizon must be an int, got True"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"quantiles": 0.5}, "quantiles must be a list of levels between 0 and 1, got 0.5; for"),
        ({"quantiles": ["0.5"]}, "quantiles must be a list of levels between 0 and 1, got ..0.5"),
        ({"quantiles": {0.5: 1}}, "quantiles must be a list of levels between 0 and 1, got {0.5"),
        ({"quantiles": [float("nan")]}, r"quantiles must be levels between 0 and 1, got \[nan\]"),
        ({"quantiles": [[0.5]]}, "quantiles must be a list of levels between 0 and 1, got"),
        ({"trainer_kwargs": 5}, "trainer_kwargs must be a dict, got 5; for example {'precision'"),
    ],
    ids=str,
)
def test_arguments_of_a_wrong_type_or_size_raise(arguments: dict[str, Any], message: str) -> None:
    model = make_model(QUANTILES)
    with pytest.raises((TypeError, ValueError), match=f"^mLSTMTime.forecast: {message}"):
        model.forecast(history(), **arguments)


def test_integers_and_levels_of_other_kinds_are_taken() -> None:
    model = make_model(QUANTILES)
    expected = model.forecast(history(), quantiles=[0.2, 0.8], horizon=STEPS, num_paths=4)
    for levels in (torch.tensor([0.2, 0.8]).double(), np.array([0.2, 0.8]), iter([0.2, 0.8])):
        got = model.forecast(
            history(),
            quantiles=levels,
            horizon=np.int64(STEPS),
            num_paths=np.int64(4),
            seed=np.uint8(0),
            batch_size=2**70,
        )
        pd.testing.assert_frame_equal(got, expected)
    model.forecast(history(), horizon=STEPS, num_paths=2, seed=2**63 - 1)
