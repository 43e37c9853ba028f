"""ForecastingModel with another network: subclasses share everything but the network."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_forecasting.metrics import MAE, CrossEntropy, QuantileLoss
from torch import nn

from helpers.datasets import HORIZON, QUIET, configured, fit, make_table
from pytorch_forecasting_mlstm.models.base.base_model import ForecastingModel
from pytorch_forecasting_mlstm.models.base.losses.factory import clone_logging_metrics, clone_loss


class Level(ForecastingModel):
    """Forecasts the mean of the history plus a learned constant for every output."""

    def __init__(
        self,
        target: str | None = None,
        output_size: int = 1,
        max_encoder_length: int = 1,
        max_prediction_length: int = 1,
        x_reals: list[str] | None = None,
        x_categoricals: list[str] | None = None,
        static_categoricals: list[str] | None = None,
        static_reals: list[str] | None = None,
        time_varying_categoricals_encoder: list[str] | None = None,
        time_varying_categoricals_decoder: list[str] | None = None,
        time_varying_reals_encoder: list[str] | None = None,
        time_varying_reals_decoder: list[str] | None = None,
        embedding_sizes: dict[str, tuple[int, int]] | None = None,
        embedding_labels: dict[str, list[str]] | None = None,
        embedding_paddings: list[str] | None = None,
        categorical_groups: dict[str, list[str]] | None = None,
        loss: Any = None,
        logging_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        loss = clone_loss(MAE() if loss is None else loss, "Level")
        logging_metrics = clone_logging_metrics(logging_metrics, "Level")
        self.save_hyperparameters()
        super().__init__(loss=loss, logging_metrics=logging_metrics, **kwargs)
        self.constant = nn.Parameter(torch.zeros(output_size))

    def forward(self, x: dict[str, Any]) -> Any:
        center, scale = x["target_scale"][:, :1], x["target_scale"][:, 1:]
        level = ((x["encoder_target"] - center) / scale).mean(1)
        steps = x["decoder_cont"].shape[1]
        output = level[:, None, None] + self.constant.expand(steps, -1)
        return self.to_network_output(prediction=self.transform_output(output, x["target_scale"]))


def test_forecasting_model_trains_predicts_forecasts_and_reloads(tmp_path: Path) -> None:
    dataset = configured("known real")
    model = Level.from_dataset(dataset, loss=QuantileLoss([0.1, 0.5, 0.9]), learning_rate=0.1)
    trainer = fit(model, dataset)
    assert model.constant.detach().abs().min() > 0
    predictions = model.predict(dataset, mode="quantiles", trainer_kwargs=dict(QUIET))
    assert predictions.shape == (len(dataset), HORIZON, 3)
    table = make_table()
    future = pd.concat([table.groupby("series").tail(1).assign(t=26 + n) for n in range(HORIZON)])
    forecast = model.forecast(table, future, trainer_kwargs=dict(QUIET))
    assert list(forecast.columns[-4:]) == ["prediction", "q0.1", "q0.5", "q0.9"]
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = Level.load_from_checkpoint(tmp_path / "model.ckpt")
    reloaded = loaded.forecast(table, future, trainer_kwargs=dict(QUIET))
    pd.testing.assert_frame_equal(reloaded, forecast, check_exact=True)


def test_forecasting_model_without_masks_rejects_missing_values() -> None:
    dataset = configured("known real")
    model = Level.from_dataset(dataset, loss=MAE())
    table = make_table()
    table.loc[table["t"] == 20, "y"] = float("nan")
    with pytest.raises(ValueError, match="^Level: target 'y' must be finite, got nan .* at t=20"):
        model.predict(table, trainer_kwargs=dict(QUIET))


class Stacked(Level):
    """Has a number of layers, but no weights of layers."""

    def __init__(self, num_layers: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)


def test_forecasting_model_with_its_own_number_of_layers_reloads(tmp_path: Path) -> None:
    dataset = configured("known real")
    model = Stacked.from_dataset(dataset, num_layers=3)
    fit(model, dataset).save_checkpoint(tmp_path / "model.ckpt")
    loaded = Stacked.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.hparams.num_layers == 3


def test_forecasting_model_begins_errors_about_checkpoints_with_its_name(tmp_path: Path) -> None:
    dataset = configured("known real")
    path = tmp_path / "model.ckpt"
    fit(Level.from_dataset(dataset), dataset).save_checkpoint(path)
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["constant"].fill_(torch.nan)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="^Level: the checkpoint has weights that are not finite"):
        Level.load_from_checkpoint(path)
    (tmp_path / "hparams.txt").touch()
    with pytest.raises(ValueError, match=r"^Level: hparams_file must be a \.yaml"):
        Level.load_from_checkpoint(path, hparams_file=tmp_path / "hparams.txt")


def test_forecasting_model_begins_errors_about_forecasts_with_its_name() -> None:
    model = Level.from_dataset(configured("known real"))
    with pytest.raises(TypeError, match=r"^Level\.forecast: data must be a pandas DataFrame"):
        model.forecast([1.0, 2.0])
    with pytest.raises(ValueError, match=r"^Level: mode must be one of"):
        model.predict(configured("known real"), mode="median")


def test_forecasting_model_begins_errors_with_its_name() -> None:
    dataset = configured("known real")
    with pytest.raises(ValueError, match="^Level: CrossEntropy is a loss for a categorical target"):
        Level.from_dataset(dataset, loss=CrossEntropy())
    with pytest.raises(ValueError, match="^Level: output_size follows from the dataset"):
        Level.from_dataset(dataset, output_size=3)
    model = Level.from_dataset(dataset)
    with pytest.raises(ValueError, match=r"^Level: the model was made for the real variables"):
        model.predict(configured("no covariates"), trainer_kwargs=dict(QUIET))
    with pytest.raises(TypeError, match="^Level: a batch must come from a loader"):
        model.on_before_batch_transfer(({"y": torch.ones(1)}, torch.ones(1)), 0)
