"""Arguments of a model and of its methods, and what they are called in other libraries."""

import inspect
from collections.abc import Iterable

from pytorch_forecasting.models.base import BaseModel

from ..._arguments import unknown_argument

__all__ = [
    "EXPORT_HINTS",
    "FORECAST_HINTS",
    "PREDICT_HINTS",
    "argument_names",
    "check_arguments",
]

_TRAINER = "it is an argument of lightning.Trainer, so pass it there"
_DATASET = "it is an argument of TimeSeriesDataSet, so pass it there"
_LOADER = "it is an argument of dataset.to_dataloader(), so pass it there"
_SEED = "call lightning.seed_everything(seed) before"

#: Names in pytorch-forecasting's own models, neuralforecast, darts, gluonts and torch.
_MODEL_HINTS = {
    "attention_head_size": "num_heads",
    "n_heads": "num_heads",
    "n_head": "num_heads",
    "nhead": "num_heads",
    "heads": "num_heads",
    "num_attention_heads": "num_heads",
    "lr": "learning_rate",
    "hidden_dim": "hidden_size",
    "hidden": "hidden_size",
    "d_model": "hidden_size",
    "embed_dim": "hidden_size",
    "embedding_dim": "hidden_size",
    "encoder_hidden_size": "hidden_size",
    "lstm_layers": "num_layers",
    "n_layers": "num_layers",
    "encoder_n_layers": "num_layers",
    "n_rnn_layers": "num_layers",
    "rnn_layers": "num_layers",
    "num_blocks": "num_layers",
    "dropout_rate": "dropout",
    "encoder_dropout": "dropout",
    "patch_len": "patch_length",
    "patch_size": "patch_length",
    "kernel_size": "moving_averages",
    "moving_avg": "moving_averages",
    "moving_average": "moving_averages",
    "input_size": "max_encoder_length",
    "input_chunk_length": "max_encoder_length",
    "context_length": "max_encoder_length",
    "h": "max_prediction_length",
    "horizon": "max_prediction_length",
    "output_chunk_length": "max_prediction_length",
    "prediction_length": "max_prediction_length",
    "use_revin": "instance_normalization",
    "revin": "instance_normalization",
    "use_reversible_instance_norm": "instance_normalization",
    "criterion": "loss",
    "loss_fn": "loss",
    "likelihood": "loss",
    "metrics": "logging_metrics",
    "optimizer_cls": "optimizer",
    "optimizer_kwargs": "optimizer_params",
    "quantiles": "pass loss=QuantileLoss(quantiles)",
    "proj_size": "the memory has hidden_size units, so leave it out",
    "hidden_continuous_size": "real variables have no width of their own, so leave it out",
    "batch_first": "batches come from the dataset, so leave it out",
    "bidirectional": "the memory runs forwards into the horizon, so leave it out",
    "max_epochs": _TRAINER,
    "n_epochs": _TRAINER,
    "epochs": _TRAINER,
    "max_steps": _TRAINER,
    "accelerator": _TRAINER,
    "devices": _TRAINER,
    "gradient_clip_val": _TRAINER,
    "callbacks": _TRAINER,
    "pl_trainer_kwargs": _TRAINER,
    "trainer_kwargs": _TRAINER,
    "batch_size": _LOADER,
    "num_workers": _LOADER,
    "seed": _SEED,
    "random_seed": _SEED,
    "random_state": _SEED,
    "target_normalizer": _DATASET,
    "scaler_type": _DATASET.replace("it is", "target_normalizer is"),
    "lags": _DATASET,
    "group_ids": _DATASET,
    "time_idx": _DATASET,
}

#: Names in the ``predict`` of neuralforecast, darts, gluonts and statsmodels.
FORECAST_HINTS = {
    "n": "horizon",
    "h": "horizon",
    "n_steps": "horizon",
    "steps": "horizon",
    "fh": "horizon",
    "prediction_length": "horizon",
    "max_prediction_length": "horizon",
    "output_chunk_length": "horizon",
    "df": "data",
    "X": "data",
    "x": "data",
    "series": "data",
    "history": "data",
    "context": "data",
    "table": "data",
    "dataset": "data",
    "futr_df": "future",
    "X_df": "future",
    "future_df": "future",
    "future_covariates": "future",
    "known": "future",
    "exog": "future",
    "past_covariates": "they are columns of data",
    "static_covariates": "they are columns of data",
    "level": "quantiles",
    "levels": "quantiles",
    "quantile_levels": "quantiles",
    "alpha": "quantiles",
    "interval": "quantiles",
    "num_samples": "num_paths",
    "n_samples": "num_paths",
    "n_paths": "num_paths",
    "num_simulations": "num_paths",
    "random_state": "seed",
    "random_seed": "seed",
    "num_workers": "forecast needs no loader, so leave it out",
    "mode": "the columns of the result are point forecasts and quantiles, so leave it out",
    "return_x": "predict() has it",
    "return_y": "predict() has it",
    "return_index": "the result has the columns of series and time, so leave it out",
    "trainer": "pass its arguments as trainer_kwargs",
    "device": "move the model with .to(device)",
    "accelerator": "pass trainer_kwargs={'accelerator': ...}",
}

_PREDICT_QUANTILES = "pass mode='quantiles' and mode_kwargs={'quantiles': [0.1, 0.9]}"
_OF_FORECAST = "forecast() has it"

PREDICT_HINTS = {
    "quantiles": _PREDICT_QUANTILES,
    "quantile_levels": _PREDICT_QUANTILES,
    "level": _PREDICT_QUANTILES,
    "horizon": _OF_FORECAST,
    "future": _OF_FORECAST,
    "seed": _OF_FORECAST,
    "num_paths": _OF_FORECAST,
    "n": "forecast() has a horizon",
    "h": "forecast() has a horizon",
    "n_samples": "pass mode_kwargs={'n_samples': ...}",
    "num_samples": "pass mode_kwargs={'n_samples': ...}",
    "df": "data",
    "x": "data",
    "dataset": "data",
    "dataloader": "data",
    "dataloaders": "data",
    "trainer": "pass its arguments as trainer_kwargs",
    "accelerator": "pass trainer_kwargs={'accelerator': ...}",
    "devices": "pass trainer_kwargs={'devices': ...}",
    "show_progress_bar": "pass trainer_kwargs={'enable_progress_bar': True}",
}

EXPORT_HINTS = {
    "path": "file_path",
    "file": "file_path",
    "filename": "file_path",
    "filepath": "file_path",
    "f": "file_path",
    "args": "input_sample",
    "batch": "input_sample",
    "example_inputs": "input_sample",
    "inputs": "input_sample",
    "sample": "input_sample",
    "x": "input_sample",
    "opset": "opset_version",
    "model": "call it as a method of the model",
    "dynamic_axes": "batches of any size are supported without it",
    "dynamic_shapes": "batches of any size are supported without it",
}


def argument_names(cls: type) -> set[str]:
    """Return the arguments of a model class and of its bases up to ``BaseModel``."""
    names: set[str] = set()
    for base in cls.__mro__[: cls.__mro__.index(BaseModel) + 1]:
        if "__init__" in vars(base):
            names |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return names - {"self", "args", "kwargs"}


def check_arguments(cls: type, arguments: Iterable[str]) -> None:
    """Raise if a model class lacks an argument.

    Parameters
    ----------
    cls : type
        Class of the model.
    arguments : iterable of str
        Names of what the user passes.

    Raises
    ------
    TypeError
        With the argument that was probably meant.
    """
    names = argument_names(cls)
    for argument in arguments:
        if argument not in names:
            raise unknown_argument(cls.__name__, argument, names, _MODEL_HINTS)
