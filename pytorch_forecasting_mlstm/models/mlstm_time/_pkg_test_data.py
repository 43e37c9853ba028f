"""Synthetic data for pytorch-forecasting's conformance suite, which would download others."""

from typing import Any

import numpy as np
import pandas as pd
from pytorch_forecasting import GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    CrossEntropy,
    LogNormalDistributionLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
)

__all__ = ["make_dataloaders"]

_HISTORY, _HORIZON = 12, 4


def make_dataloaders(params: dict[str, Any]) -> dict[str, Any]:
    """Make train, validation and test loaders of a small demand table.

    Parameters
    ----------
    params : dict
        What the suite passes: ``loss``, ``data_loader_kwargs`` for the dataset, and
        ``clip_target`` for a target within (0, 1).
    """
    dataset_kwargs = {
        "target": "volume",
        "time_varying_known_reals": ["price"],
        "time_varying_unknown_reals": ["volume"],
        "static_categoricals": ["agency"],
        "add_relative_time_idx": True,
        "target_normalizer": GroupNormalizer(groups=["agency", "sku"]),
    }
    loss = params.get("loss")
    table = _demand()
    if isinstance(loss, NegativeBinomialDistributionLoss):
        table["volume"] = table["volume"].round()
    if isinstance(loss, CrossEntropy):
        dataset_kwargs |= {"target": "agency", "target_normalizer": "auto"}
    if params.get("clip_target"):
        table["volume"] = (table["volume"] / 100).clip(1e-3, 1 - 1e-3)
    dataset_kwargs |= params.get("data_loader_kwargs", {})
    if isinstance(loss, LogNormalDistributionLoss):  # the suite's log1p would be off by one
        dataset_kwargs["target_normalizer"] = GroupNormalizer(
            groups=["agency", "sku"], transformation="log"
        )
    if isinstance(loss, MultivariateNormalDistributionLoss):
        dataset_kwargs["min_prediction_length"] = _HORIZON  # it cannot mask padding

    cutoff = table["month"].max() - _HORIZON
    training = TimeSeriesDataSet(
        table[table["month"] <= cutoff],
        time_idx="month",
        group_ids=["agency", "sku"],
        max_encoder_length=_HISTORY,
        max_prediction_length=_HORIZON,
        **dataset_kwargs,
    )
    validation = TimeSeriesDataSet.from_dataset(training, table, min_prediction_idx=cutoff + 1)
    return {
        "train": training.to_dataloader(train=True, batch_size=2, num_workers=0),
        "val": validation.to_dataloader(train=False, batch_size=2, num_workers=0),
        "test": validation.to_dataloader(train=False, batch_size=1, num_workers=0),
    }


def _demand() -> pd.DataFrame:
    """Make a table of two agencies with two articles each: three years of months, with a season."""
    rng = np.random.default_rng(0)
    month = np.arange(36)
    return pd.concat(
        pd.DataFrame(
            {
                "agency": agency,
                "sku": sku,
                "month": month,
                "volume": 40 + 15 * np.sin(month * np.pi / 6) + rng.gamma(2.0, 2.0, len(month)),
                "price": rng.uniform(1.0, 2.0, len(month)),
            }
        )
        for agency in ("north", "south")
        for sku in ("bottle", "can")
    ).reset_index(drop=True)
