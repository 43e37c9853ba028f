"""Scales of series, against a loop over all windows."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.data import TorchNormalizer

from helpers.datasets import make_dataset, make_table
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.link import Link
from pytorch_forecasting_mlstm.models.base.scales import measure
from pytorch_forecasting_mlstm.models.base.scales.measure import measure_series_scales

HISTORY, HORIZON = 5, 3
LENGTHS = {"s0": 26, "s1": 8, "s2": 12}


def ragged_table() -> pd.DataFrame:
    """Three series of other lengths and of other scales; the shortest one is a single window."""
    table = make_table()
    table = table[table["t"] < table["series"].map(LENGTHS)].reset_index(drop=True)
    table["y"] *= table["series"].map({"s0": 1.0, "s1": 1e6, "s2": 1e-3})
    return table


@pytest.mark.parametrize(
    "normalizer",
    [EncoderNormalizer(), GroupNormalizer(groups=["series"]), TorchNormalizer(), None],
    ids=["history", "series", "all values", "none"],
)
def test_scale_is_the_root_mean_square_of_the_deviations_of_windows(normalizer: Any) -> None:
    table = ragged_table()
    dataset = make_dataset(
        table,
        target_normalizer=normalizer,
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
    )
    measured = measure_series_scales(dataset, [Link.AFFINE])
    assert measured.groups.tolist() == [[0], [1], [2]]
    for name, scale in zip(LENGTHS, measured.scales[:, 0].tolist(), strict=True):
        y = table.loc[table["series"] == name, "y"].to_numpy()
        windows = np.lib.stride_tricks.sliding_window_view(y, HISTORY + HORIZON)
        assert scale == pytest.approx(np.sqrt(windows.var(axis=1).mean()), rel=1e-4)


def test_series_shorter_than_a_window_is_one_window() -> None:
    table = ragged_table()
    dataset = make_dataset(
        table, max_encoder_length=20, min_encoder_length=1, max_prediction_length=3
    )
    scales = measure_series_scales(dataset, [Link.AFFINE]).scales[:, 0].tolist()
    for name, scale in list(zip(LENGTHS, scales, strict=True))[1:]:
        assert scale == pytest.approx(table.loc[table["series"] == name, "y"].std(ddof=0), rel=1e-4)


@pytest.mark.parametrize("level", [0.0, 0.1, 1234.567, 1e8])
def test_scale_of_a_constant_series_is_zero(level: float) -> None:
    table = make_table()
    table.loc[table["series"] == "s1", "y"] = level
    scales = measure_series_scales(make_dataset(table), [Link.AFFINE]).scales[:, 0]
    assert scales[1] == 0
    assert (scales[[0, 2]] > 0.5).all()


def test_scale_is_measured_in_the_space_of_the_transformation() -> None:
    table = make_table()
    dataset = make_dataset(table, target_normalizer=TorchNormalizer(transformation="log1p"))
    logs = make_dataset(table.assign(y=np.log1p(table["y"])))
    assert torch.allclose(
        measure_series_scales(dataset, [Link.AFFINE]).scales,
        measure_series_scales(logs, [Link.AFFINE]).scales,
        rtol=1e-4,
    )


@pytest.mark.parametrize("link", [Link.SCALE, Link.LOG_RATE])
def test_scale_of_counts_is_their_mean_magnitude(link: Link) -> None:
    table = make_table()
    dataset = make_dataset(
        table,
        target="count",
        time_varying_unknown_reals=["count"],
        target_normalizer=TorchNormalizer(center=False),
    )
    scales = measure_series_scales(dataset, [link]).scales[:, 0]
    expected = table.groupby("series")["count"].mean().to_numpy(dtype=np.float32)
    assert torch.allclose(scales, torch.from_numpy(expected))


def test_classes_have_no_scale() -> None:
    dataset = make_dataset(
        make_table(),
        target=["y", "label"],
        time_varying_unknown_reals=["y"],
        time_varying_unknown_categoricals=["label"],
        target_normalizer=MultiNormalizer([TorchNormalizer(), NaNLabelEncoder()]),
    )
    scales = measure_series_scales(dataset, [Link.AFFINE, Link.CLASSES]).scales
    assert (scales[:, 0] > 0).all()
    assert (scales[:, 1] == 0).all()


def test_a_dataset_is_measured_once_until_it_changes() -> None:
    dataset = make_dataset()
    with patch.object(measure, "_measure", side_effect=measure._measure) as count:
        first = measure_series_scales(dataset, [Link.AFFINE])
        assert measure_series_scales(dataset, [Link.AFFINE]) is first
        assert count.call_count == 1
        measure_series_scales(dataset, [Link.SCALE])
        assert count.call_count == 2
        dataset.data["target"][0].mul_(2)
        twice = measure_series_scales(dataset, [Link.AFFINE])
        torch.testing.assert_close(twice.scales, 2 * first.scales)
        dataset.data["target"] = [3 * values for values in dataset.data["target"]]
        more = measure_series_scales(dataset, [Link.AFFINE])
        torch.testing.assert_close(more.scales, 6 * first.scales)
        dataset.target_normalizer = TorchNormalizer(transformation="log1p")
        assert measure_series_scales(dataset, [Link.AFFINE]).scales.lt(more.scales).all()
        dataset.max_encoder_length += 1
        measure_series_scales(dataset, [Link.AFFINE])
        assert count.call_count == 6


def test_fit_to_the_dataset_of_the_model_measures_nothing() -> None:
    dataset = make_dataset()
    with patch.object(measure, "_measure", side_effect=measure._measure) as count:
        model = mLSTMTime.from_dataset(dataset, **SMALL)
        measure.adopt_scales(model, dataset)
        assert count.call_count == 1
        measure.adopt_scales(model, make_dataset())
        assert count.call_count == 2
