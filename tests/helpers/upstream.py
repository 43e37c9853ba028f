"""What tests know of releases of pytorch-forecasting without the help of ``_upstream.py``."""

import pytest
from pytorch_forecasting import metrics

#: Whether this is 1.9 or its main branch, whose version number is that of the last release until
#: the next one: another name that is new in 1.9 tells. So a renamed ``NNLossAdapter`` fails tests.
IS_1_9 = hasattr(metrics, "coerce_to_pytorch_forecasting_metric")

needs_adapter = pytest.mark.skipif(not IS_1_9, reason="before pytorch-forecasting 1.9")
