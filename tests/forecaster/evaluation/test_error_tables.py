"""Tables of errors, against loops and scikit-learn, with gaps and awkward columns."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_pinball_loss, mean_squared_error

from helpers.products import spread
from pytorch_forecasting_mlstm.forecaster.evaluation.error_tables import (
    error_table,
    quantile_columns,
    symmetric_intervals,
)

LEVELS = (0.05, 0.1, 0.5, 0.9)  # the widest symmetric pair is neither first nor last


def random_forecasts(group: str = "store", seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return forecasts of two models, three series, two cutoffs and four steps, with gaps."""
    rng = np.random.default_rng(seed)
    rows = pd.MultiIndex.from_product(
        [["b", "a", "c"], ["2024-01", "2024-02"], [1, 2, 3, 4], ["net", "naive"]],
        names=[group, "cutoff", "step", "model"],
    ).to_frame(index=False)
    rows["actual"] = rng.normal(size=len(rows)).round(1)
    rows.loc[rng.random(len(rows)) < 0.2, "actual"] = np.nan
    rows["prediction"] = rng.normal(size=len(rows))
    quantiles = np.sort(rng.normal(size=(len(rows), len(LEVELS))), axis=1)
    rows[[f"q{level:g}" for level in LEVELS]] = quantiles
    rows.loc[(rows[group] == "a") & (rows["model"] == "naive"), "prediction"] = np.nan
    scales = rows[[group, "cutoff"]].drop_duplicates()
    return rows, scales.assign(scale=[0.5, 1.0, 2.0, np.nan, 4.0, 8.0])


def expected_errors(rows: pd.DataFrame, scales: pd.DataFrame, group: str) -> dict[str, float]:
    known = rows[rows["actual"].notna()]
    scored = known[known["prediction"].notna()]
    scale = {(row[group], row["cutoff"]): row["scale"] for _, row in scales.iterrows()}
    error = (scored["actual"] - scored["prediction"]).abs()
    scaled = [
        e / scale[row[group], row["cutoff"]]
        for e, (_, row) in zip(error, scored.iterrows(), strict=True)
    ]
    inside = (known["q0.1"] <= known["actual"]) & (known["actual"] <= known["q0.9"])
    pinball = [
        mean_pinball_loss(known["actual"], known[f"q{level:g}"], alpha=level) for level in LEVELS
    ]
    few = not len(scored)
    return {
        "MAE": np.nan if few else error.mean(),
        "RMSE": np.nan
        if few
        else mean_squared_error(scored["actual"], scored["prediction"]) ** 0.5,
        "MASE": np.nan if np.isnan(scaled).all() else np.nanmean(scaled),
        "pinball": np.mean(pinball),
        "coverage": inside.mean(),
        "nominal": 0.8,
        "values": len(scored),
        "no forecast": len(known) - len(scored),
    }


@spread(
    "by, group",
    [(), "group", ("cutoff",), ("step",), ("step", "cutoff")],
    ["store", "absolute", "MAE", "inside"],
)
def test_error_table_matches_scikit_learn(by: tuple[str, ...] | str, group: str) -> None:
    rows, scales = random_forecasts(group)
    by = (group,) if by == "group" else tuple(by)
    shuffled = rows.sample(frac=1, random_state=1)
    table = error_table(shuffled, scales, series=[group], by=by)
    assert list(table.index.names) == [*by, "model"]
    keys = [*by, "model"]
    for key, part in rows.groupby(keys if by else "model"):
        expected = expected_errors(part, scales, group)
        assert table.loc[key].to_dict() == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert len(table) == len(rows[keys].drop_duplicates())


def test_error_table_keeps_the_order_of_models_and_series() -> None:
    rows, scales = random_forecasts()
    table = error_table(rows, scales, series=["store"], by=["store"])
    assert table.index.tolist() == [(s, m) for s in "bac" for m in ("net", "naive")]


def test_error_table_without_actual_values_is_nan_not_zero() -> None:
    rows, scales = random_forecasts()
    table = error_table(rows.assign(actual=np.nan), scales, series=["store"])
    assert table[["MAE", "RMSE", "MASE", "pinball", "coverage"]].isna().all(axis=None)
    assert (table[["values", "no forecast"]] == 0).all(axis=None)


def test_error_table_without_quantiles_or_scales() -> None:
    rows, _ = random_forecasts()
    points = rows.drop(columns=list(quantile_columns(rows)))
    table = error_table(points)
    assert table[["MASE", "pinball", "coverage", "nominal"]].isna().all(axis=None)
    assert np.isfinite(table["MAE"]).all()


def test_error_table_reads_integers_and_nullable_numbers() -> None:
    rows = pd.DataFrame(
        {
            "model": "m",
            "cutoff": 0,
            "step": [1, 2, 3],
            "actual": pd.array([1, None, 4], dtype="Int64"),
            "prediction": [2, 2, 2],
        }
    )
    assert error_table(rows).loc["m", ["MAE", "values"]].tolist() == [1.5, 2]


@pytest.mark.parametrize(
    "cutoffs",
    [
        pd.period_range("2024-01", periods=2, freq="M"),
        pd.date_range("2024-03-30", periods=2, freq="D", tz="Europe/Berlin"),
        pd.Index([7, 9]),
    ],
)
def test_error_table_takes_cutoffs_in_the_form_of_the_user(cutoffs: pd.Index) -> None:
    rows, scales = random_forecasts()
    own = dict(zip(["2024-01", "2024-02"], cutoffs, strict=True))
    expected = error_table(rows, scales, series=["store"], by=["cutoff"])
    mine = [table.assign(cutoff=table["cutoff"].map(own)) for table in (rows, scales)]
    table = error_table(*mine, series=["store"], by=["cutoff"])
    assert table.index.get_level_values("cutoff").unique().tolist() == list(cutoffs)
    assert np.array_equal(table.to_numpy(float), expected.to_numpy(float), equal_nan=True)


def test_coverage_counts_the_bounds() -> None:
    rows = pd.DataFrame(
        {"model": "m", "cutoff": 0, "step": [1, 2, 3, 4], "actual": [1.0, 2.0, 0.9, 2.1]}
    ).assign(prediction=1.5, **{"q0.1": 1.0, "q0.9": 2.0})
    assert error_table(rows).loc["m", "coverage"] == 0.5


def test_symmetric_intervals_need_both_bounds() -> None:
    columns = ["q0.02", "q0.98", "q0.3", "q0.7", "q0.6", "q0.5", "q1e-05", "queue", 0.1]
    assert symmetric_intervals(pd.DataFrame(columns=columns)) == [
        ("q0.02", "q0.98", 0.96),
        ("q0.3", "q0.7", 0.4),
    ]
