"""A panel holds the rows of a table, and those that are missing between them."""

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import make_plan, panel_from, panel_of_values, rich_stores
from pytorch_forecasting_mlstm.forecaster import InputError
from pytorch_forecasting_mlstm.forecaster.panel.panel import clean_targets, find_faults

NAN = np.nan


def table_with_gaps() -> pd.DataFrame:
    """Return two stores; store a lacks January 3 and the target of the 5th, and begins empty."""
    table = rich_stores(8)
    table.loc[[0, 4], "sales"] = NAN
    return table.drop(index=2)


def test_rows_are_those_of_the_table_and_gaps_are_empty() -> None:
    table = pd.concat([table_with_gaps(), make_plan(rich_stores(8))])
    names = {"known": ["promo", "day"], "past": ["rain", "sky"], "static": ["size", "type"]}
    panel = panel_from(table.sample(frac=1, random_state=0), group="store", **names)
    a = panel.groups["store"].tolist().index("a")
    assert panel.starts[a] == 1 and panel.lengths[a] == 7 and panel.ends.tolist() == [8, 8]
    rows = slice(panel.begins[a], panel.begins[a + 1])
    expected = rich_stores(8).iloc[:8]
    sales = expected["sales"].where(~expected.index.isin([2, 4]))[1:].to_numpy()
    np.testing.assert_array_equal(panel.target[rows], [*sales, NAN, NAN, NAN])
    # The missing row has the last known covariates and class, and no past number.
    part = panel.covariates[rows].reset_index(drop=True)
    assert part.loc[1, "promo"] == part.loc[0, "promo"] and part.loc[1, "day"] == part.loc[0, "day"]
    assert np.isnan(part.loc[1, "rain"]) and part.loc[1, "sky"] == part.loc[0, "sky"]
    assert part["promo"].tolist()[-3:] == [1, 1, 1]
    assert panel.is_given[rows].tolist() == [True, False, *[True] * 8]
    assert panel.statics["type"].tolist() == [
        f"type {'ab'.index(s)}" for s in panel.groups["store"]
    ]


def test_targets_are_series_of_their_own() -> None:
    table = table_with_gaps()
    table.loc[table["date"] > "2024-01-06", "returns"] = NAN
    panel = panel_from(table, group="store", target=["sales", "returns"], past="rain")
    assert list(panel.groups.itertuples(index=False, name=None)) == [
        ("a", "sales"),
        ("a", "returns"),
        ("b", "sales"),
        ("b", "returns"),
    ]
    assert panel.lengths.tolist() == [7, 6, 8, 6]
    assert panel.starts.tolist() == [1, 0, 0, 0]
    b = rich_stores(8).iloc[8:]
    np.testing.assert_array_equal(panel.values[2], b["sales"])
    np.testing.assert_array_equal(panel.values[3], b["returns"][:6])
    for number in (2, 3):
        rows = slice(panel.begins[number], panel.begins[number + 1])
        np.testing.assert_array_equal(panel.covariates["rain"][rows], b["rain"])


def test_until_hides_what_came_later_but_not_what_is_planned() -> None:
    table = rich_stores(8)
    table = table[(table["store"] == "a") | (table["date"] >= "2024-01-06")]
    panel = panel_from(table, group="store", known="promo", past="rain")
    past = panel.until(5)
    assert past.groups["store"].tolist() == ["a"]  # b has no target before
    np.testing.assert_array_equal(past.target, [*panel.values[0][:5], NAN, NAN, NAN])
    np.testing.assert_array_equal(past.covariates["promo"], panel.covariates["promo"][:8])
    assert past.covariates["rain"].isna().tolist() == [False] * 5 + [True] * 3
    assert len(panel.until(0)) == 0
    assert panel.observed_within(3, 5).tolist() == [True, False]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("mask", [1, NAN, NAN, 4, NAN]),
        (0, [1, 0, 0, 4, 0]),
        ("previous", [1, 1, 1, 4, 4]),
        ("interpolate", [1, 2, 3, 4, NAN]),
    ],
)
def test_gaps_are_filled_up_to_the_end(missing: object, expected: list[float]) -> None:
    """The end is that of the panel: before a cutoff, it lies after the last observed target."""
    from dataclasses import replace

    panel = panel_of_values([1, NAN, NAN, 4, 5]).until(4)
    panel = replace(panel, lengths=panel.lengths + 1)
    filled = clean_targets(panel, [], missing=missing, outliers="mask")
    np.testing.assert_array_equal(filled.values[0], expected)


def test_outliers_are_hidden_even_at_the_ends_and_decide_no_filled_value() -> None:
    values = np.random.default_rng(0).normal(50, 3, 120)
    values[[0, 20, 119]] = 1e9
    values[21] = NAN
    panel = panel_of_values(values, np.arange(40.0))
    faults = find_faults(panel, 3)
    assert [(fault.kind, fault.rows) for fault in faults] == [("outlier", (0, 20, 119))]
    kept = clean_targets(panel, faults, missing="previous", outliers="keep")
    assert kept.values[0][[20, 21]].tolist() == [1e9, 1e9]
    masked = clean_targets(panel, faults, missing="previous", outliers="mask")
    assert masked.ends.tolist() == [120, 120]
    assert masked.starts.tolist() == [1, 80]
    assert np.isnan(masked.values[0][[19, 118]]).all()  # rows 20 and 119
    assert masked.values[0][20] == values[19]


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        ([0.0, 2.5], 0.0),
        ([3.0, 7.0], 0.0),
        ([0.5, 2.5], -np.inf),
        ([-1.0, 0.0], -np.inf),
        ([0.0, NAN, 0.0], 0.0),
    ],
)
def test_lower_bound(values: list[float], bound: float) -> None:
    assert panel_of_values(values).lower_bound == bound


def test_huge_targets_are_refused() -> None:
    with pytest.raises(InputError, match=r"store=0: holds 1e\+301, too large to add up"):
        panel_of_values([1.0, 1e301])
