"""Building a dataset copies a table no more often than it must."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from pytorch_forecasting import GroupNormalizer

from helpers.datasets import HISTORY, HORIZON, make_table
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet, sample_index
from pytorch_forecasting_mlstm.data.label_encoding import text_to_categories

ROWS, SERIES = 40_000, 40
#: Most bytes per row that NumPy, pandas and Python allocate at a time, beside the tensors. They are
#: 106, and 180 if the index is computed for all rows at once. With pandas 2, they are 190, for the
#: scales of pytorch-forecasting's GroupNormalizer.
LIMIT = 130 if int(pd.__version__.partition(".")[0]) >= 3 else 215


def build(table: pd.DataFrame) -> BatchedTimeSeriesDataSet:
    return BatchedTimeSeriesDataSet(
        table,
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_known_reals=["price"],
        time_varying_unknown_reals=["y"],
        target_normalizer=GroupNormalizer(groups=["series"]),
    )


def test_building_a_dataset_allocates_little_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_index, "_BLOCK", 4000)  # as small a part of the table as usual
    rng = np.random.default_rng(0)
    names = np.array([f"series {number}" for number in range(SERIES)])
    table = pd.DataFrame(
        {
            "series": np.repeat(names, ROWS // SERIES),
            "t": np.tile(np.arange(ROWS // SERIES), SERIES),
            "y": rng.normal(size=ROWS),
            "price": rng.uniform(size=ROWS),
        }
    )
    build(table.head(2000))  # loads what is loaded late
    tracemalloc.start()
    try:
        build(table)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / ROWS < LIMIT


def test_labels_of_text_are_one_object_each() -> None:
    """Python keeps the memory around a string as long as an encoder keeps the string."""
    table = make_table().astype({"series": "string", "region": "string"})
    expected = table["series"].tolist()
    text_to_categories(table, ["series"])
    labels = table["series"].to_numpy()
    assert labels.tolist() == expected
    assert len(set(map(id, labels))) == 3
    assert table["region"].dtype == "string"


def test_table_of_the_user_is_left_as_it_is() -> None:
    """Whether its rows are in order or not."""
    for table in (make_table(), make_table().sample(frac=1, random_state=0)):
        table = table.astype({"series": "string"})
        before = table.copy(deep=True)
        build(table)
        pd.testing.assert_frame_equal(table, before)


def test_labels_that_are_missing_stay_text() -> None:
    table = make_table().astype({"series": "string"})
    table.loc[3, "series"] = pd.NA
    text_to_categories(table, ["series"])
    assert table["series"].dtype == "string"


def test_numbers_beyond_float32_are_named() -> None:
    table = make_table()
    table.loc[5, "y"] = 1e300
    with pytest.raises(ValueError, match=r"column 'y' must hold .* series='s0' at t=5"):
        build(table)
