"""The models that benchmarks/long_horizon.py compares: mLSTMTime, ablations of it, and others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytorch_forecasting.models
import torch
from pytorch_forecasting import (
    NHiTS,
    RecurrentNetwork,
    TemporalFusionTransformer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.layers import mLSTMLayer as StockLayer
from pytorch_forecasting.metrics import MAE, RMSE
from pytorch_forecasting.models import BaseModel, TiDEModel, TimeXer, xLSTMTime
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.mlstm_time._network import MemoryOutput, NetworkInputs
from pytorch_forecasting_mlstm.models.mlstm_time.submodules import COMPONENTS
from pytorch_forecasting_mlstm.models.mlstm_time.targets import EncodedTarget

__all__ = ["COMPETITORS", "Competitor", "count_parameters"]


@dataclass(frozen=True)
class Competitor:
    """A model to compare.

    Attributes
    ----------
    label : str
        Name in the table.
    build : callable
        Builds the model from the training data.
    dataset : dict
        Dataset arguments that this model needs in addition to the common ones.
    """

    label: str
    build: Callable[[TimeSeriesDataSet], BaseModel]
    dataset: dict[str, Any] = field(default_factory=dict)


class _WithoutMemory(mLSTMTime):
    """The linear components alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in (
            "history_embedding",
            "horizon_embedding",
            "position_embedding",
            "token_norm",
            "memory",
            "memory_norm",
            "residual_head",
            "amplitude_head",
        ):
            delattr(self.network, name)
        self.network._run_memory = _add_nothing


def _add_nothing(inputs: NetworkInputs, targets: list[EncodedTarget]) -> MemoryOutput:
    """Return residuals of 0 and amplitudes of 1, whatever the inputs."""
    zero = targets[0].components.new_zeros(1, 1, 1, 1)
    mask = torch.ones(1, 1, dtype=torch.bool)
    return MemoryOutput([zero[0]] * len(targets), [zero + 1] * len(targets), zero[0], mask)


class _WithoutLinearComponents(mLSTMTime):
    """The memory alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for encoder in self.network.target_encoders:
            encoder.linear = _Zeros(self.hparams.max_prediction_length)


class _Zeros(nn.Module):
    """Components that are all 0."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        return y.new_zeros(len(y), self.horizon, len(COMPONENTS))


class _Recurrent(nn.Module):
    """Another recurrent layer, with the interface of the mLSTMLayer that it replaces."""

    def __init__(self, layer: nn.Module, dropout: float, batch_first: bool) -> None:
        super().__init__()
        self.layer, self.dropout, self.batch_first = layer, nn.Dropout(dropout), batch_first

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        if mask is not None and not bool(mask[:, : mask.shape[1] // 2].all()):
            raise ValueError("benchmark: histories must be complete for this layer, got padding")
        x = self.dropout(x)
        if self.batch_first:
            return self.dropout(self.layer(x)[0]), None
        return self.dropout(self.layer(x.transpose(0, 1))[0].transpose(0, 1)), None


def _ours(model: type[mLSTMTime] = mLSTMTime, **changed: Any) -> Callable[..., BaseModel]:
    return lambda dataset: model.from_dataset(dataset, **{"loss": MAE(), **changed})


def _with_layer(
    make_layer: Callable[[int], nn.Module], batch_first: bool
) -> Callable[..., BaseModel]:
    def build(dataset: TimeSeriesDataSet) -> BaseModel:
        model = _ours()(dataset)
        width, dropout = model.hparams.hidden_size, model.hparams.dropout
        model.network.memory = _Recurrent(make_layer(width), dropout, batch_first)
        return model

    return build


def _stock_layer(width: int) -> nn.Module:
    return StockLayer(width, width, 1, dropout=0.0)  # _Recurrent applies dropout


def _stock_xlstm_time(kind: str) -> Callable[..., BaseModel]:
    return lambda dataset: xLSTMTime.from_dataset(
        dataset,
        input_size=1,
        hidden_size=64,
        output_size=dataset.max_prediction_length,
        xlstm_type=kind,
        loss=MAE(),
    )


def _upstream(model: type[BaseModel], **arguments: Any) -> Callable[..., BaseModel]:
    return lambda dataset: model.from_dataset(dataset, loss=MAE(), **arguments)


COMPETITORS = {
    "ours": Competitor("mLSTMTime, defaults", _ours()),
    "no-memory": Competitor("- without the memory (a linear model)", _ours(_WithoutMemory)),
    "no-linear": Competitor("- without the linear components", _ours(_WithoutLinearComponents)),
    "no-amplitudes": Competitor("- without the amplitudes", _ours(amplitudes=False)),
    "no-sign-flip": Competitor("- without random sign flips", _ours(random_sign_flip=False)),
    "no-cycle": Competitor("- without the cycle", _ours(moving_averages=(25, 25))),
    "lstm": Competitor(
        "- nn.LSTM instead of the memory",
        _with_layer(lambda width: nn.LSTM(width, width, batch_first=True), batch_first=True),
    ),
    "stock-cell": Competitor(
        "- stock mLSTM instead of the memory", _with_layer(_stock_layer, batch_first=False)
    ),
    "mse-loss": Competitor("- trained on squared errors", _ours(loss=RMSE(reduction="mean"))),
    "no-instance-norm": Competitor(
        "- without instance normalization", _ours(instance_normalization=False)
    ),
    "one-head": Competitor("- one head", _ours(num_heads=1)),
    "two-layers": Competitor("- two layers", _ours(num_layers=2)),
    "more-dropout": Competitor("- dropout 0.3", _ours(dropout=0.3)),
    "no-dropout": Competitor("- without dropout", _ours(dropout=0.0)),
    "xlstm-slstm": Competitor("xLSTMTime, sLSTM", _stock_xlstm_time("slstm")),
    "xlstm-mlstm": Competitor("xLSTMTime, mLSTM", _stock_xlstm_time("mlstm")),
    "nhits": Competitor("NHiTS", _upstream(NHiTS)),
    "tide": Competitor("TiDEModel", _upstream(TiDEModel)),
    "timexer": Competitor("TimeXer", _upstream(TimeXer)),
    "tft": Competitor(
        "TemporalFusionTransformer",
        _upstream(TemporalFusionTransformer, output_size=1),
        {"add_relative_time_idx": True},  # it needs a known input
    ),
    "recurrent": Competitor("RecurrentNetwork", _upstream(RecurrentNetwork, hidden_size=64)),
}
if hasattr(pytorch_forecasting.models, "PatchTST"):  # from 1.9 on
    COMPETITORS["patchtst"] = Competitor("PatchTST", _upstream(pytorch_forecasting.models.PatchTST))


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
