"""The host's own conformance suite over mLSTMTime, one test for each loss and set of arguments."""

from pytorch_forecasting.tests.test_all_estimators import TestAllPtForecasters

from pytorch_forecasting_mlstm import mLSTMTime_pkg


class TestHostConformance(TestAllPtForecasters):
    """All tests of the host, with our package container as the only one to test."""

    def _all_objects(self) -> list[type]:
        return [mLSTMTime_pkg]


del TestAllPtForecasters  # or pytest would collect it for all models of the host
