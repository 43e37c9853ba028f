"""A dataset with other rows gives the batches of one that is built from them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet

from helpers.batch_comparison import assert_batches_match
from helpers.datasets import CONFIGURATIONS, configured, make_dataset, make_gaps, make_table
from helpers.products import alternate
from pytorch_forecasting_mlstm.data.batched import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.refill import can_refill, empty_copy, refill
from pytorch_forecasting_mlstm.data.rows import Labels, Rows, to_array
from pytorch_forecasting_mlstm.models.base.forecast.schema import Schema

pytestmark = [
    # pytorch-forecasting passes read-only arrays of pandas 3 to torch, which only reads them
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:Found .* unknown classes:UserWarning"),
]

#: Their rows need a dataset of their own: a constant is scaled by the first row of the table.
NOT_REFILLED = {"filled gaps"}


def build(dataset: TimeSeriesDataSet, table: pd.DataFrame) -> BatchedTimeSeriesDataSet:
    return BatchedTimeSeriesDataSet.from_parameters(
        dataset.get_parameters(), table, predict=True, weight=None, min_prediction_idx=None
    )


def read(dataset: TimeSeriesDataSet, table: pd.DataFrame) -> Rows:
    schema = Schema.from_parameters(dataset.get_parameters(), "test")
    return schema.select(table, "data", schema.columns).rows


def batch(dataset: BatchedTimeSeriesDataSet) -> Any:
    return dataset.__getitems__(range(len(dataset))).collate()


@alternate("name", CONFIGURATIONS, first=3, every=4)  # forecast() refills others
def test_refilled_dataset_equals_one_that_is_built(name: str) -> None:
    changes = CONFIGURATIONS[name]
    training = configured(name)
    table = make_table(steps=31).sort_values(["region", "series", "t"])
    table["whole"] = table["whole"].astype(float)  # as the schema reads it
    if "table" in changes:
        table = make_gaps(table)
    template = build(training, table[(table["t"] < 24) & (table["series"] != "s1")])
    if name in NOT_REFILLED:
        assert not can_refill(template)
        return
    assert can_refill(template)
    refilled = refill(empty_copy(template), read(training, table))
    assert refilled is not None
    expected = build(training, table)
    codes = refilled.data["groups"][refilled.index["index_start"].to_numpy(copy=True)]
    order = np.lexsort(codes.numpy().T[::-1])  # the built one sorts series by their codes
    actual = refilled.__getitems__(order.tolist()).collate()
    assert_batches_match([actual], [batch(expected)], expected)


def test_template_is_left_as_it_is() -> None:
    """Also its normalizers, which pytorch-forecasting fits to the last sample of a batch."""
    normalizer = EncoderNormalizer()
    training = make_dataset(
        target_normalizer=normalizer,
        time_varying_known_reals=["price"],
        scalers={"price": EncoderNormalizer()},
        lags={"y": [2]},
    )
    template = empty_copy(build(training, make_table()))
    fitted = [template.target_normalizer, template._scalers["price"]]
    before = [vars(part).copy() for part in fitted]
    refilled = refill(template, read(training, make_table()))
    assert refilled is not None
    batch(refilled)
    assert [vars(part) for part in fitted] == before
    assert template.data == {} and template.index is None
    assert vars(refilled.target_normalizer) != before[0]


def test_rows_that_need_a_dataset_of_their_own() -> None:
    table = make_table()
    training = make_dataset(
        **{"target": "volume", "time_varying_unknown_reals": ["volume"]},
        target_normalizer=GroupNormalizer(transformation="log"),
    )
    template = empty_copy(build(training, table))
    assert refill(template, read(training, table)) is not None
    assert refill(template, read(training, table[table["t"] < 6])) is None  # too short
    negative = table.assign(volume=table["volume"].where(table["t"] != 20, -1.0))
    assert refill(template, read(training, negative)) is None  # it has no logarithm


def test_labels_are_appended_and_replaced() -> None:
    first = Labels.from_series(pd.Series(["b", "a", "b"]))
    second = Labels.from_series(pd.Series(["c", "a"], dtype="category"))
    assert first.values.tolist() == ["b", "a"]
    assert to_array(first.append(second)).tolist() == ["b", "a", "b", "c", "a"]
    assert to_array(first.append(second)[[0, 3]]).tolist() == ["b", "c"]
    mask = np.array([True, False, False])
    assert to_array(first.where(mask, "d")).tolist() == ["d", "a", "b"]
    assert first[[1]].used().tolist() == [False, True]


def test_rows_are_extended_series_by_series() -> None:
    rows = Rows({"y": np.array([1.0, 2.0, 3.0])}, np.array([0, 0, 1]), np.array([5, 6, 9]))
    later = Rows({"y": np.array([7, 8, 9])}, np.array([0, 1, 1]), np.array([7, 10, 11]))
    extended = rows.extend(later)
    assert extended.columns["y"].tolist() == [1, 2, 7, 3, 8, 9]
    assert extended.times.tolist() == [5, 6, 7, 9, 10, 11]
    assert extended.to_frame("t")["t"].tolist() == extended.times.tolist()
