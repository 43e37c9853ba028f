"""Counts of constant histories, against a loop over the samples."""

from typing import Any

import numpy as np
import pytest
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import TorchNormalizer

from helpers.datasets import make_dataset, make_table
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.scales.flat import count_flat_histories


def stepwise_dataset(**changes: Any) -> TimeSeriesDataSet:
    table = make_table()
    table["y"] = table["y"].round(-1) + 0.1  # steps of 10, which last for several rows
    return make_dataset(table, target_normalizer=TorchNormalizer(), **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"min_encoder_length": 0}, {"min_prediction_length": 1}, {"max_encoder_length": 2}],
    ids=["fixed", "histories of all lengths", "horizons of all lengths", "two steps"],
)
def test_count_of_constant_histories(changes: dict[str, Any]) -> None:
    dataset = stepwise_dataset(**changes)
    expected = 0
    for number in range(len(dataset)):
        x, _ = dataset[number]
        history = x["encoder_target"] if "encoder_target" in x else None
        if history is None:  # a single sample holds the whole window
            history = x["target"][0][: x["encoder_length"]]
        expected += len(history) > 1 and np.ptp(np.asarray(history)) == 0
    assert count_flat_histories(dataset) == {"y": expected}
    assert 0 < expected < len(dataset)


def test_from_dataset_warns_of_constant_histories() -> None:
    dataset = stepwise_dataset()
    count = count_flat_histories(dataset)["y"]
    share = f"{100 * count / len(dataset):.1f}%"
    message = rf"mLSTMTime: {share} of the histories of target 'y' are constant \({count} of"
    with pytest.warns(UserWarning, match=message):
        mLSTMTime.from_dataset(dataset)
