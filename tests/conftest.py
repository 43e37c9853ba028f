"""Every test starts from the same seed, on one thread."""

from collections.abc import Iterator

import matplotlib
import pytest
import torch
from hypothesis.internal.conjecture import providers
from lightning import seed_everything
from matplotlib import pyplot

matplotlib.use("Agg")  # no window, no display
# Hypothesis draws constants of our modules that happen to be loaded: what a test tries would depend
# on the tests before it in the same process
providers._get_local_constants = providers.Constants  # type: ignore[assignment]
torch.set_num_threads(1)  # same rounding everywhere, and small tensors are faster on one thread


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make notebooks` keep what the notebooks show."""
    parser.addoption("--write-notebooks", action="store_true", help="keep what notebooks show")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Let no test leave figures open: matplotlib warns of many, in the test that opens the last."""
    yield
    pyplot.close("all")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed Python, NumPy and torch."""
    seed_everything(0, verbose=False)
