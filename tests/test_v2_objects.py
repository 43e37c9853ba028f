"""Objects of pytorch-forecasting's v2 are refused in a sentence, wherever data are passed."""

import inspect
import pkgutil
import warnings
from importlib import import_module
from typing import Any

import pytest
import pytorch_forecasting
from pytorch_forecasting.data import TimeSeries, TimeSeriesDataSet
from pytorch_forecasting.data.data_module import EncoderDecoderTimeSeriesDataModule

from helpers.datasets import make_dataset, make_table
from helpers.models import SMALL
from pytorch_forecasting_mlstm import Forecaster, InputError, mLSTMTime, mLSTMTime_pkg
from pytorch_forecasting_mlstm._v2_objects import describe_v2
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

pytestmark = [
    pytest.mark.filterwarnings("ignore:TimeSeries is part of an experimental rework"),
    pytest.mark.filterwarnings("ignore:.*experimental:UserWarning"),
]


def make_v2(kind: str) -> Any:
    """Make a dataset, data module, loader or package class of v2."""
    table = make_table(n_series=20)[["series", "t", "y"]]
    table["series"] = table["series"].astype("category").cat.codes.astype(int)
    series = TimeSeries(table, time="t", target="y", group=["series"], num=["y"], unknown=["y"])
    if kind == "dataset":
        return series
    module = EncoderDecoderTimeSeriesDataModule(
        series, max_encoder_length=8, max_prediction_length=4, batch_size=1
    )
    if kind == "data module":
        return module
    if kind == "loader":
        module.setup("fit")
        return module.train_dataloader()
    from pytorch_forecasting.models.dlinear._dlinear_pkg_v2 import DLinear_pkg_v2

    return DLinear_pkg_v2


@pytest.mark.parametrize("kind", ["dataset", "data module", "loader", "package"])
def test_v2_is_refused_in_words(kind: str) -> None:
    found, dataset, table = make_v2(kind), make_dataset(), make_table()
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    calls: dict[str, Any] = {
        "mLSTMTime: dataset": lambda: mLSTMTime.from_dataset(found),
        "mLSTMTime: data to predict": lambda: model.predict(found),
        "mLSTMTime.forecast: data": lambda: model.forecast(found),
        "mLSTMTime.forecast: future": lambda: model.forecast(table, found),
        "BatchedTimeSeriesDataSet: data": lambda: BatchedTimeSeriesDataSet(
            found, time_idx="t", target="y", group_ids=["series"]
        ),
        "BatchedTimeSeriesDataSet: dataset": lambda: BatchedTimeSeriesDataSet.wrap(found),
        "BatchedTimeSeriesDataSet: dataset ": lambda: BatchedTimeSeriesDataSet.from_dataset(
            found, table
        ),
        "BatchedTimeSeriesDataSet: data ": lambda: BatchedTimeSeriesDataSet.from_dataset(
            dataset=dataset, data=found
        ),
    }
    for start, call in calls.items():
        with pytest.raises(TypeError, match="of pytorch-forecasting's v2, which is not") as raised:
            call()
        message = str(raised.value)
        assert message.startswith(f"{start.rstrip()} must be ")
        assert "\n" not in message


def test_v2_is_no_table() -> None:
    with pytest.raises(InputError, match="^table must be a table, got .*TimeSeries"):
        Forecaster(4, time="t", target="y", group="series").fit(make_v2("dataset"))


def all_classes() -> list[type]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in pkgutil.walk_packages(pytorch_forecasting.__path__, "pytorch_forecasting."):
            if ".tests" not in info.name and "_mqf2" not in info.name:
                classes = vars(import_module(info.name)).values()
                found += [x for x in classes if inspect.isclass(x) and x.__module__ == info.name]
    return found


def test_v2_is_told_from_v1() -> None:
    """By the registry of pytorch-forecasting, which tags package classes by version."""
    models = {cls for cls in all_classes() if hasattr(cls, "get_class_tag")}
    tagged = {
        cls: "forecaster_pytorch_v2" in (cls.get_class_tag("object_type") or ())
        for cls in models
        if "forecaster_pytorch" in str(cls.get_class_tag("object_type"))
    }
    assert sum(tagged.values()) >= 5
    assert not all(tagged.values())
    for cls, is_v2 in tagged.items():
        assert (describe_v2(cls) is not None) is is_v2, cls
    for cls in (TimeSeriesDataSet, BatchedTimeSeriesDataSet, mLSTMTime, mLSTMTime_pkg, dict):
        assert describe_v2(cls) is None
    assert describe_v2(make_dataset().to_dataloader()) is None
