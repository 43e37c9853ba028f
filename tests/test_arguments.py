"""Arguments that do not exist are named, with what was probably meant; signatures stay honest."""

import inspect
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_forecasting import TimeSeriesDataSet

from helpers.datasets import make_dataset
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer, mLSTMTime
from pytorch_forecasting_mlstm._arguments import suggest_arguments
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.argument_hints import DATASET_HINTS
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.argument_hints import (
    CELL_HINTS,
    LAYER_HINTS,
)
from pytorch_forecasting_mlstm.models.base import arguments

TABLE = pd.DataFrame({"g": "a", "t": range(9), "y": 1.0})


@cache
def model() -> mLSTMTime:
    return mLSTMTime.from_dataset(make_dataset(), **SMALL)


CALLS: dict[str, Callable[..., Any]] = {
    "mLSTMCell": lambda **wrong: mLSTMCell(3, 8, **wrong),
    "mLSTMLayer": lambda **wrong: mLSTMLayer(3, 8, **wrong),
    "mLSTMTime": lambda **wrong: mLSTMTime.from_dataset(make_dataset(), **wrong),
    "BatchedTimeSeriesDataSet": lambda **wrong: BatchedTimeSeriesDataSet(TABLE, **wrong),
    "mLSTMTime.forecast": lambda **wrong: model().forecast(TABLE, **wrong),
    "mLSTMTime.predict": lambda **wrong: model().predict(make_dataset(), **wrong),
    "mLSTMTime.to_exported_program": lambda **wrong: model().to_exported_program(**wrong),
    "mLSTMTime.to_onnx": lambda **wrong: model().to_onnx(**wrong),
}


@pytest.mark.parametrize(
    ("caller", "argument", "advice"),
    [
        ("mLSTMCell", "hiden_size", "did you mean hidden_size?"),
        ("mLSTMCell", "nhead", "did you mean num_heads?"),
        ("mLSTMCell", "bidirectional", "mLSTMLayer has it, and runs cells over whole sequences."),
        ("mLSTMLayer", "nhead", "did you mean num_heads?"),
        ("mLSTMLayer", "dropout_rate", "did you mean dropout?"),
        ("mLSTMLayer", "batchfirst", "did you mean batch_first?"),
        (
            "mLSTMLayer",
            "proj_size",
            "outputs have hidden_size units, so add an nn.Linear after it.",
        ),
        ("mLSTMLayer", "device", "move the module with .to(device)."),
        ("mLSTMTime", "input_chunk_length", "did you mean max_encoder_length?"),
        (
            "mLSTMTime",
            "max_epochs",
            "it is an argument of lightning.Trainer, so pass it there.",
        ),
        ("BatchedTimeSeriesDataSet", "unique_id", "did you mean group_ids?"),
        ("BatchedTimeSeriesDataSet", "max_encoder_lenght", "did you mean max_encoder_length?"),
        ("mLSTMTime.forecast", "horizn", "did you mean horizon?"),
        ("mLSTMTime.forecast", "futr_df", "did you mean future?"),
        ("mLSTMTime.forecast", "zzz", "see help() for its arguments."),
        ("mLSTMTime.predict", "batchsize", "did you mean batch_size?"),
        ("mLSTMTime.predict", "horizon", "forecast() has it."),
        ("mLSTMTime.to_exported_program", "x", "did you mean input_sample?"),
        ("mLSTMTime.to_onnx", "opset", "did you mean opset_version?"),
        ("mLSTMTime.to_onnx", "path", "did you mean file_path?"),
    ],
)
def test_unknown_argument_is_named(caller: str, argument: str, advice: str) -> None:
    with pytest.raises(TypeError) as error:
        CALLS[caller](**{argument: 1})
    assert str(error.value) == f"{caller}: there is no argument {argument!r}; {advice}"


@pytest.mark.parametrize(
    ("hints", "functions"),
    [
        (CELL_HINTS, [mLSTMCell]),
        (LAYER_HINTS, [mLSTMLayer]),
        (DATASET_HINTS, [TimeSeriesDataSet]),
        (arguments.FORECAST_HINTS, [mLSTMTime.forecast]),
        (arguments.PREDICT_HINTS, [mLSTMTime.predict, TimeSeriesDataSet.to_dataloader]),
        (arguments.EXPORT_HINTS, [mLSTMTime.to_onnx, torch.onnx.export]),
    ],
)
def test_hints_lead_to_arguments_that_exist(hints: dict[str, str], functions: list[Any]) -> None:
    names = {"data"}.union(*(inspect.signature(function).parameters for function in functions))
    for wrong, hint in hints.items():
        assert hint in names or " " in hint, (wrong, hint)


def test_hints_of_the_model_lead_to_arguments_that_exist() -> None:
    names = arguments.argument_names(mLSTMTime)
    for wrong, hint in arguments._MODEL_HINTS.items():
        assert wrong not in names
        assert hint in names or " " in hint, (wrong, hint)


def test_signatures_and_documentation_stay() -> None:
    assert list(inspect.signature(mLSTMCell).parameters)[:2] == ["input_size", "hidden_size"]
    assert "bidirectional" in inspect.signature(mLSTMLayer).parameters
    assert "horizon" in inspect.signature(mLSTMTime.forecast).parameters
    assert (mLSTMTime.forecast.__doc__ or "").startswith("Forecast the steps after")
    assert inspect.signature(BatchedTimeSeriesDataSet) == inspect.signature(TimeSeriesDataSet)
    names = inspect.signature(TimeSeriesDataSet).parameters.keys() - {"data"}
    dataset = BatchedTimeSeriesDataSet.wrap(make_dataset())
    assert dataset.get_parameters().keys() == names


def test_a_subclass_with_more_arguments_is_named() -> None:
    class Wide(mLSTMLayer):
        def __init__(self, width: int, **kwargs: Any) -> None:
            super().__init__(3, width, **kwargs)

    assert Wide(8, num_heads=2).hidden_size == 8
    with pytest.raises(TypeError, match=r"^Wide: there is no argument 'nhead'; did you mean num_h"):
        Wide(8, nhead=2)


def test_missing_and_repeated_arguments_raise_as_in_python() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'hidden_size'"):
        mLSTMLayer(3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiple values for argument 'hidden_size'"):
        mLSTMLayer(3, 8, hidden_size=8)  # type: ignore[misc]


class _Pickled:
    @suggest_arguments({"y": "x"})
    def call(self, x: int) -> int:
        return x


def test_a_wrapped_method_works_from_a_pickled_object() -> None:
    assert pickle.loads(pickle.dumps(_Pickled())).call(x=3) == 3
    with pytest.raises(TypeError, match=r"^_Pickled.call: there is no argument 'y'; did you mean"):
        _Pickled().call(y=3)  # type: ignore[call-arg]
