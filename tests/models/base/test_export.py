"""One exported graph forecasts batches of every size, as the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_forecasting import MAE, GroupNormalizer, QuantileLoss, TimeSeriesDataSet
from pytorch_forecasting.data import EncoderNormalizer, MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.data.examples import generate_ar_data
from pytorch_forecasting.metrics import CrossEntropy, MultiLoss
from torch import Tensor
from torch.utils._pytree import tree_leaves

from helpers.tolerances import assert_close, assert_raises_mentioning
from pytorch_forecasting_mlstm import mLSTMTime

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is:FutureWarning"),
]


def make_data() -> pd.DataFrame:
    data = generate_ar_data(timesteps=60, n_series=3, seed=1)
    return data.assign(
        day=(data.time_idx % 7).astype(str), up=(data.value > 0).map({True: "yes", False: "no"})
    )


def make_dataset(**options: Any) -> TimeSeriesDataSet:
    return TimeSeriesDataSet(
        make_data(),
        **{
            "time_idx": "time_idx",
            "target": "value",
            "group_ids": ["series"],
            "time_varying_unknown_reals": ["value"],
            "time_varying_known_categoricals": ["day"],
            "max_encoder_length": 20,
            "min_encoder_length": 6,
            "max_prediction_length": 4,
            "target_normalizer": GroupNormalizer(groups=["series"]),
        }
        | options,
    )


def draw_batch(dataset: TimeSeriesDataSet, names: Any, size: int) -> dict[str, Any]:
    """Return the inputs of a batch, with the histories padded to the largest length."""
    x, _ = next(iter(dataset.to_dataloader(batch_size=size)))
    steps = dataset.max_encoder_length

    def pad(part: Tensor) -> Tensor:
        missing = steps - part.shape[1]
        return torch.cat([part, part.new_zeros(len(part), missing, *part.shape[2:])], dim=1)

    for name in ("encoder_cont", "encoder_cat", "encoder_target"):
        x[name] = [pad(part) for part in x[name]] if isinstance(x[name], list) else pad(x[name])
    return {name: x[name] for name in names}


CASES = {
    "quantiles": ({}, QuantileLoss([0.1, 0.5, 0.9])),
    "point and class": (
        {
            "target": ["value", "up"],
            "target_normalizer": MultiNormalizer([EncoderNormalizer(), NaNLabelEncoder()]),
        },
        MultiLoss([MAE(), CrossEntropy()]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("options", "loss"), CASES.values(), ids=CASES)
def test_graph_forecasts_batches_of_every_size(options: dict[str, Any], loss: Any) -> None:
    dataset = make_dataset(**options)
    model = mLSTMTime.from_dataset(dataset, loss=loss, hidden_size=8, dropout=0.5)
    assert model.training, "the graph must not depend on the mode"
    program = model.to_exported_program()
    assert model.training
    names, forecast = program.example_inputs[0][0], program.module()
    assert "pytorch_forecasting_mlstm" not in program.graph_module.code
    for size in (1, 7):
        x = draw_batch(dataset, names, size)
        with torch.no_grad():
            expected = model.eval()(x)["prediction"]
        model.train()
        results, expected = (tuple(tree_leaves(part)) for part in (forecast(x), expected))
        assert_close(results, expected)


@pytest.mark.slow
def test_onnx_file_forecasts_batches_of_every_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    dataset, path = make_dataset(), tmp_path / "model.onnx"
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss([0.1, 0.5, 0.9]), hidden_size=8)
    model.to_onnx(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [part.name for part in session.get_inputs()]
    assert {"encoder_target", "encoder_lengths", "target_scale", "decoder_cont"} <= set(names)
    for size in (1, 7):
        x = draw_batch(dataset, names, size)
        (forecast,) = session.run(["prediction"], {name: x[name].numpy() for name in names})
        with torch.no_grad():
            assert_close(torch.from_numpy(forecast), model.eval()(x)["prediction"], 1e-4)


@pytest.mark.slow
def test_graph_scales_a_constant_history_by_its_series() -> None:
    dataset = make_dataset()
    model = mLSTMTime.from_dataset(dataset, hidden_size=8).eval()
    program = model.to_exported_program()
    x = draw_batch(dataset, program.example_inputs[0][0], 3)
    x["encoder_target"] = torch.ones_like(x["encoder_target"])
    x["groups"] = torch.tensor([[0], [2], [99]])  # the last one is a new series
    with torch.no_grad():
        expected = model(x)["prediction"]
    assert_close(program.module()(x), expected)
    assert not torch.equal(expected[0], expected[1])


def test_what_cannot_be_exported_is_refused() -> None:
    dataset = make_dataset()
    model = mLSTMTime.from_dataset(dataset, hidden_size=8)
    x, _ = next(iter(dataset.to_dataloader(batch_size=1)))
    calls = {
        "at least 2 samples": lambda: model.to_exported_program(x),
        "encoder_cont": lambda: model.to_exported_program({"x": x}),
        "list": lambda: model.to_onnx("model.onnx", [x]),
        "dynamo": lambda: model.to_onnx("model.onnx", dynamo=False),
    }
    for words, call in calls.items():
        assert_raises_mentioning(call, words)
    with pytest.raises(NotImplementedError, match="to_onnx"):
        model.to_torchscript()
