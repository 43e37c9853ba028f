"""The conformance suite of pytorch-forecasting, one test for each loss and set of arguments."""

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from pytorch_forecasting.tests.test_all_estimators import TestAllPtForecasters
from torch.utils.tensorboard import SummaryWriter

from helpers.datasets import ignore_flat_histories
from pytorch_forecasting_mlstm import mLSTMTime_pkg


@pytest.fixture(autouse=True)
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close logged figures without rendering them, which would take most of the time."""

    def close(writer: SummaryWriter, tag: str, figure: Figure, *_: object, **__: object) -> None:
        assert isinstance(figure, Figure)
        pyplot.close(figure)

    monkeypatch.setattr(SummaryWriter, "add_figure", close)


@ignore_flat_histories
class TestConformance(TestAllPtForecasters):
    """All tests of the suite, for the package container of mLSTMTime alone."""

    def _all_objects(self) -> list[type]:
        return [mLSTMTime_pkg]


del TestAllPtForecasters  # else pytest would collect it for all models of pytorch-forecasting
