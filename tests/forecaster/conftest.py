"""Forecasters that many tests use, and none changes."""

import pytest

from helpers.forecasters import COVARIATES, rich_stores, tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster


@pytest.fixture(scope="session")
def plain() -> Forecaster:
    """Return a forecaster without covariates, fitted to ``rich_stores()``."""
    return tiny().fit(rich_stores())


@pytest.fixture(scope="session")
def rich() -> Forecaster:
    """Return a forecaster with covariates of all sorts, fitted to ``rich_stores()``."""
    return tiny(**COVARIATES).fit(rich_stores())
