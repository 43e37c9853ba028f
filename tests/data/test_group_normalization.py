"""Scales of series, against a call of the normalizer for every series."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting.data.encoders import GroupNormalizer, TorchNormalizer

from helpers.batched_configurations import Configuration, panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.group_normalization import SeriesScales


@pytest.mark.parametrize(
    "normalizer",
    [
        GroupNormalizer(groups=["shop", "product"]),
        GroupNormalizer(groups=["product", "shop"]),
        GroupNormalizer(groups=["shop", "product"], scale_by_group=True),
        GroupNormalizer(groups=["product"], scale_by_group=True),
        GroupNormalizer(groups=["product"]),
        GroupNormalizer(),
        TorchNormalizer(),
        type("Subclass", (GroupNormalizer,), {})(groups=["shop", "product"]),
    ],
    ids=str,
)
def test_series_scales_match_the_normalizer(normalizer: Any) -> None:
    """Including series that the normalizer was not fitted to."""
    generator = np.random.default_rng(0)
    fitted = pd.DataFrame(generator.integers(0, 3, size=(50, 2)), columns=["shop", "product"])
    values = pd.Series(generator.normal(5, 2, size=50))
    if isinstance(normalizer, GroupNormalizer):
        normalizer.fit(values, fitted)
    else:
        normalizer.fit(values)
    series = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    groups = series.repeat_interleave(torch.arange(25) % 3 + 1, dim=0)
    scales = SeriesScales(normalizer, groups, ["shop", "product"])
    parameters = [normalizer.get_parameters(row, ["shop", "product"]) for row in groups]
    expected = (
        torch.stack(parameters)
        if isinstance(parameters[0], torch.Tensor)
        else torch.from_numpy(np.array(parameters, dtype=np.float32))
    )
    assert torch.equal(scales.lookup(np.arange(len(groups))), expected)
    assert scales.is_current(normalizer, groups)
    assert not scales.is_current(normalizer, groups.clone())


def test_series_scales_of_many_series_are_their_means() -> None:
    table = pd.concat([panel(lengths=(16,)).assign(shop=f"{number:03}") for number in range(150)])
    table["y"] *= table["shop"].astype(int) + 1
    configuration = Configuration(
        "many",
        lambda: dict(target_normalizer=GroupNormalizer(groups=["shop"]), group_ids=["shop"]),
        lambda: table.reset_index(drop=True),
    )
    dataset = configuration.build(BatchedTimeSeriesDataSet)
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=len(dataset))))
    means = table.groupby("shop")["y"].mean().to_numpy(dtype=np.float32)
    np.testing.assert_allclose(x["target_scale"][:, 0], means[x["groups"][:, 0]], rtol=1e-6)
