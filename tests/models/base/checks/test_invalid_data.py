"""Invalid data and settings are explained; data that are merely unusual are forecast."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TimeSeriesDataSet,
)
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.data.data_module import EncoderDecoderTimeSeriesDataModule
from pytorch_forecasting.data.timeseries import TimeSeries
from pytorch_forecasting.metrics import (
    RMSE,
    SMAPE,
    BetaDistributionLoss,
    LogNormalDistributionLoss,
    MultiLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    TweedieLoss,
)
from torch import nn
from torch.utils.data import DataLoader

from helpers.datasets import (
    CONFIGURATIONS,
    QUIET,
    fit,
    ignore_flat_histories,
    make_dataset,
    make_gaps,
    make_table,
)
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.models.base.checks.nonfinite import check_finite

TINY = {"hidden_size": 8, "num_heads": 2, "moving_averages": (5, 3)}
COVARIATES = {
    "static_reals": ["size"],
    "time_varying_known_reals": ["price"],
    "time_varying_known_categoricals": ["holiday"],
    "time_varying_unknown_reals": ["noise", "y"],
    "weight": "weight",
}


def make_model(dataset: TimeSeriesDataSet, **changes: Any) -> mLSTMTime:
    return mLSTMTime.from_dataset(dataset, **{**TINY, **changes})


def corrupt(dataset: TimeSeriesDataSet, name: str, value: float) -> None:
    """Replace step 9 of series s1 after the dataset was made."""
    at = 26 + 9
    if name == "y":
        dataset.data["target"][0][at] = value
    elif name == "weight":
        dataset.data["weight"][at] = value
    else:
        dataset.data["reals"][at, dataset.reals.index(name)] = value


def stages(model: mLSTMTime, dataset: TimeSeriesDataSet) -> dict[str, Callable[[], Any]]:
    loader = dataset.to_dataloader(train=False, batch_size=16, num_workers=0)
    trainer = Trainer(**QUIET, max_epochs=1, enable_checkpointing=False, num_sanity_val_steps=0)
    return {
        "fit": lambda: trainer.fit(model, loader, loader),
        "validate": lambda: trainer.validate(model, loader, verbose=False),
        "test": lambda: trainer.test(model, loader, verbose=False),
        "predict": lambda: model.predict(loader, trainer_kwargs={**QUIET}),
    }


STAGES = ["fit", "validate", "test", "predict"]


@pytest.mark.parametrize("stage", STAGES)
@spread(
    "case, cls",
    {
        "y": ("y", "target 'y'", torch.inf),
        "price": ("price", "variable 'price'", torch.nan),
        "noise": ("noise", "variable 'noise'", torch.inf),
        "size": ("size", "variable 'size'", torch.nan),
    },
    {"stock": TimeSeriesDataSet, "batched": BatchedTimeSeriesDataSet},
)
def test_check_finite_names_the_number(case: tuple[str, str, float], cls: type, stage: str) -> None:
    name, what, value = case
    dataset = make_dataset(**COVARIATES)
    model = make_model(dataset)
    if cls is BatchedTimeSeriesDataSet:
        dataset = BatchedTimeSeriesDataSet.wrap(dataset)
    corrupt(dataset, name, value)
    with pytest.raises(
        ValueError, match=f"^mLSTMTime: {what} must be .*{value} for series='s1' at t=9"
    ):
        stages(model, dataset)[stage]()


def test_check_finite_names_weights_if_there_is_a_loss() -> None:
    dataset = make_dataset(**COVARIATES)
    model = make_model(dataset)
    corrupt(dataset, "weight", torch.inf)
    calls = stages(model, dataset)
    assert calls["predict"]().isfinite().all()
    with pytest.raises(ValueError, match="^mLSTMTime: weight must be finite, got inf for series="):
        calls["fit"]()


def test_check_finite_ignores_what_is_not_read() -> None:
    dataset = make_dataset(**COVARIATES, predict_mode=True)
    model = make_model(dataset)
    loader = dataset.to_dataloader(train=False, batch_size=16, num_workers=0)
    expected = model.predict(loader, trainer_kwargs={**QUIET})
    dataset.data["target"][0][22:26] = torch.nan  # the horizon of s0, which is to be forecast
    dataset.data["reals"][22:26, dataset.reals.index("noise")] = torch.nan
    assert torch.equal(model.predict(loader, trainer_kwargs={**QUIET}), expected)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_check_finite_reads_overwritten_values() -> None:
    dataset = make_dataset(**COVARIATES)
    model = make_model(dataset)
    with pytest.raises(ValueError, match="mLSTMTime: variable 'price' must be finite, got nan"):
        model.predict_dependency(dataset, "price", [torch.nan], trainer_kwargs={**QUIET})


def test_check_finite_numbers_samples_of_a_model_without_dataset() -> None:
    dataset = make_dataset(**COVARIATES)
    model = make_model(dataset)
    x, y = next(iter(dataset.to_dataloader(train=False, batch_size=4, num_workers=0)))
    x["encoder_cont"][2, 1, model.hparams.x_reals.index("price")] = -torch.inf
    model.dataset_parameters = None
    with pytest.raises(ValueError, match="got -inf for sample 2 at time index="):
        Trainer(**QUIET).predict(model, DataLoader([(x, y)], batch_size=None))


def test_check_finite_accepts_sums_that_overflow() -> None:
    dataset = make_dataset(time_varying_known_reals=["price"])
    model = make_model(dataset)
    x, y = next(iter(dataset.to_dataloader(train=False, batch_size=16, num_workers=0)))
    x["encoder_cont"][..., model.hparams.x_reals.index("price")] = 3e38
    check_finite(model, x, y)


def test_check_finite_explains_half_precision_that_overflows() -> None:
    dataset = make_dataset(make_table().assign(y=lambda table: 1e5 * table["y"]))
    model = make_model(dataset)
    with pytest.raises(ValueError, match="target 'y' must be finite, got inf.*16-mixed"):
        model.half()
        Trainer(**QUIET, precision="16-true").predict(
            model, dataset.to_dataloader(train=False, batch_size=16, num_workers=0)
        )


@pytest.mark.parametrize(
    ("transformation", "value", "hint"),
    [
        ("log", 0.0, "'log1p' for zeros"),
        ("sqrt", -2.0, "without transformation"),
        ("logit", 1.5, "between 0 and 1"),
        ("relu", -2.0, "without transformation"),
        ("count", -2.0, "without transformation"),
    ],
)
def test_check_transformations_rejects_values_without_support(
    transformation: str, value: float, hint: str
) -> None:
    """A forecast by "relu" or "count" is never negative."""
    table = make_table()
    table["y"] = table["share"]  # within 0 and 1
    table.loc[30, "y"] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = make_dataset(
            table,
            time_varying_unknown_reals=[],
            target_normalizer=EncoderNormalizer(transformation=transformation),
        )
    with pytest.raises(
        ValueError,
        match=f"transformation '{transformation}' .*'y', got {value:g} for series='s1'.*{hint}",
    ):
        make_model(dataset)


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize(
    ("loss", "transformation", "fill", "message"),
    [
        (SMAPE(), "log", 0.0, "transformation 'log' .*'y', got 0, which constant_fill_strategy"),
        (
            PoissonLoss(),
            None,
            -1.0,
            "does not support -1 in target 'y', which constant_fill_strategy",
        ),
    ],
)
def test_from_dataset_rejects_fill_values_of_gaps_without_support(
    loss: Any, transformation: str | None, fill: float, message: str, gaps: bool
) -> None:
    table = make_table()
    dataset = make_dataset(
        make_gaps(table) if gaps else table,
        allow_missing_timesteps=True,
        time_varying_unknown_reals=[],
        target_normalizer=GroupNormalizer(groups=["series"], transformation=transformation),
        constant_fill_strategy={"y": fill},
    )
    if not gaps:
        make_model(dataset, loss=loss)
        return
    with pytest.raises(ValueError, match=message):
        make_model(dataset, loss=loss)


@pytest.mark.parametrize("level", [-50.0, 0.0])
def test_check_centers_rejects_negative_centers_of_several_groups(level: float) -> None:
    """pytorch-forecasting computes 5 from -5 and -5, and NaN from -5 and 5."""
    table = make_table()
    table["y"] = table["signed"] + level + np.where(table["series"] == "s0", -20, 20)
    dataset = make_dataset(
        table,
        group_ids=["region", "series"],
        target_normalizer=GroupNormalizer(groups=["region", "series"], scale_by_group=True),
    )
    with pytest.raises(ValueError, match="^mLSTMTime: .*scale_by_group=True .* 'y', got -"):
        make_model(dataset)


def test_check_finite_names_a_scale_of_zero() -> None:
    dataset = make_dataset(target_normalizer=TorchNormalizer())
    model = make_model(dataset)
    dataset.target_normalizer.scale_ = 0.0
    with pytest.raises(ValueError, match="mLSTMTime: scale and 1 / scale of target 'y' must be"):
        stages(model, dataset)["predict"]()


# unusual data that can be forecast

FLAT = {
    "constant": lambda y: np.full(len(y), 7.0),
    "zero": lambda y: np.zeros(len(y)),
    "zero at first": lambda y: np.where(np.arange(len(y)) % 26 < 13, 0.0, y),
    "tiny": lambda y: 1e-8 * y,
    "huge": lambda y: 1e8 * y,
    "float64 beyond float32": lambda y: y + 1e8,
}


@pytest.mark.parametrize("steps", [1, 8])
@spread(
    "kind, normalizer",
    FLAT.keys(),
    {
        "group": GroupNormalizer(),
        "by group": GroupNormalizer(groups=["series"]),
        "torch": TorchNormalizer(),
        "none": None,
    },
)
@ignore_flat_histories
def test_forecasts_of_unusual_data_stay_in_their_scale(
    kind: str, normalizer: Any, steps: int
) -> None:
    table = make_table()
    table["y"] = FLAT[kind](table["y"].to_numpy())
    dataset = make_dataset(table, target_normalizer=normalizer, max_encoder_length=steps)
    model = make_model(dataset)
    fit(model, dataset, steps=3)
    forecast = model.predict(dataset, trainer_kwargs={**QUIET})
    width = table["y"].max() - table["y"].min()
    # a constant history has no scale: it takes that of the normalizer, or 1
    flat = steps == 1 or kind not in ("tiny", "huge")
    reach = 100 * max(width, 1.0 if flat else 0.0)
    assert forecast.isfinite().all()
    assert (forecast - table["y"].mean()).abs().max() < reach


@pytest.mark.parametrize(
    ("target", "loss", "normalizer"),
    [
        ("y", NormalDistributionLoss(), GroupNormalizer()),
        ("volume", LogNormalDistributionLoss(), GroupNormalizer(transformation="log")),
        ("count", NegativeBinomialDistributionLoss(), GroupNormalizer(center=False)),
        ("share", BetaDistributionLoss(), GroupNormalizer(transformation="logit")),
    ],
    ids=["normal", "log-normal", "negative binomial", "beta"],
)
def test_extreme_parameters_still_are_those_of_a_distribution(
    target: str, loss: Any, normalizer: Any
) -> None:
    """A covariate in the hundred millions without a scaler leads there at once."""
    dataset = make_dataset(
        target=target, time_varying_unknown_reals=[target], target_normalizer=normalizer
    )
    model = make_model(dataset, loss=loss)
    raw = torch.zeros(1, 4, 2)
    raw[..., 0 if target == "count" else 1] = -1e8
    raw.requires_grad_()
    scale = torch.tensor([[0.0, 1.0]])
    out = {"prediction": model.transform_output(raw, scale)}
    assert model.to_prediction(out).isfinite().all()
    assert model.to_quantiles(out).isfinite().all()
    truth = torch.full((1, 4), 0.9 if target == "share" else 2.0)
    model.loss.loss(out["prediction"], truth).sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert (raw.grad[..., 0 if target == "count" else 1] < 0).all()  # training leads back


@pytest.mark.parametrize("loss", [RMSE(), SMAPE() + RMSE()], ids=["RMSE", "SMAPE() + RMSE()"])
@ignore_flat_histories
def test_exact_forecast_does_not_break_the_model(loss: Any) -> None:
    # float32 has no number between 1e8 and the forecast: the loss is the root of 0
    dataset = make_dataset(make_table().assign(y=1e8))
    model = make_model(dataset, loss=loss)
    fit(model, dataset, steps=3)
    assert all(weight.isfinite().all() for weight in model.parameters())


@ignore_flat_histories
def test_exact_forecast_of_one_target_leaves_gradients_of_the_other() -> None:
    table = make_table().assign(signed=1e8)
    dataset = make_dataset(
        table,
        target=["signed", "y"],
        time_varying_unknown_reals=["signed", "y"],
        target_normalizer=MultiNormalizer([GroupNormalizer(), GroupNormalizer()]),
    )
    model = make_model(dataset, loss=MultiLoss([RMSE(), RMSE()]))
    before = [weight.detach().clone() for weight in model.network.residual_head.parameters()]
    fit(model, dataset, steps=3)
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert not torch.equal(before[0], model.network.residual_head.weight)


@pytest.mark.filterwarnings("ignore:Loss is not finite:UserWarning")  # before its loss of 1e9
def test_training_explains_a_loss_that_is_not_finite() -> None:
    dataset = make_dataset()
    model = make_model(dataset)
    nn.init.constant_(model.network.residual_head.bias, torch.nan)
    with pytest.raises(ValueError, match="mLSTMTime: the loss of a training step must be finite"):
        fit(model, dataset)


@pytest.mark.parametrize("torch_validates", [True, False])
@pytest.mark.parametrize("mode", ["prediction", "quantiles", "raw", None])
def test_distribution_explains_output_that_is_not_finite(
    mode: str | None, torch_validates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch stops checking the parameters of distributions once a process has used its compiler."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", torch_validates)
    dataset = make_dataset()
    model = make_model(dataset, loss=NormalDistributionLoss())
    nn.init.constant_(model.network.residual_head.bias, torch.nan)
    with pytest.raises(ValueError, match="^mLSTMTime: the network's output must be finite"):
        if mode is None:
            fit(model, dataset)
        else:
            model.predict(dataset, mode=mode, trainer_kwargs={**QUIET})


# datasets that do not fit the model


ANOTHER_DATASET: dict[str, tuple[dict[str, Any], str]] = {
    "more reals": (
        {"time_varying_known_reals": ["price", "t"]},
        r"real variables .* \(new \['t'\]\)",
    ),
    "fewer reals": ({"static_reals": []}, r"real variables .* \(without \['size'\]\)"),
    "other order": (
        {"time_varying_unknown_reals": ["y", "noise"]},
        r"real variables .* in this order, got",
    ),
    "fewer labels": (
        {"time_varying_known_categoricals": []},
        r"categorical variables \['holiday'\]",
    ),
    "horizon": (
        {"max_prediction_length": 5},
        "max_prediction_length of 4, got a dataset with 5",
    ),
    "history": ({"max_encoder_length": 9}, "max_encoder_length of 8, got a dataset with 9"),
    "target": ({"target": "noise"}, "target 'y', got a dataset with the target 'noise'"),
    "transformation": (
        {"target_normalizer": GroupNormalizer(transformation="relu")},
        "transformation None, got a dataset with transformation 'relu'",
    ),
    "classes": (
        {"categorical_encoders": {"holiday": NaNLabelEncoder(add_nan=True)}},
        "labels .* of 'holiday', in this order, got a dataset with .*new",
    ),
}


@spread("case, stage", ANOTHER_DATASET, STAGES)
def test_check_dataset_rejects_another_dataset(
    case: tuple[dict[str, Any], str], stage: str
) -> None:
    changes, message = case
    model = make_model(make_dataset(**COVARIATES))
    other = make_dataset(**{**COVARIATES, **changes})
    with pytest.raises(ValueError, match=f"^mLSTMTime: the model was made for .*{message}"):
        stages(model, other)[stage]()


def test_check_batch_rejects_other_columns() -> None:
    model = make_model(make_dataset(**COVARIATES))
    other = make_dataset()
    x, _ = next(iter(other.to_dataloader(train=False, batch_size=4, num_workers=0)))
    with pytest.raises(ValueError, match="^mLSTMTime: encoder_cont must have 4 columns"):
        model(x)


@pytest.mark.filterwarnings("ignore:Min encoder length and/or:UserWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns=["price", "holiday"]), r"\['holiday', 'price'\]"),
        (lambda table: table.assign(holiday="carnival"), "Unknown category 'carnival'"),
        (lambda table: table[table["t"] < 3], "entries"),
        (lambda table: table.assign(price=np.nan), "price"),
        (lambda table: table[table["t"] % 7 != 3], "Time difference between steps"),
    ],
    ids=["columns", "label", "length", "nan", "gaps"],
)
def test_predict_rejects_a_table_that_does_not_fit(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    model = make_model(make_dataset(**COVARIATES))
    with pytest.raises(ValueError, match=f"^mLSTMTime: .*{message}"):
        model.predict(change(make_table()), trainer_kwargs={**QUIET})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda table: table[:0], ValueError, "the table to predict must have rows"),
        (lambda table: table.assign(t=table["t"] * 1.0), TypeError, "'t' .* must hold integers"),
        (lambda table: table.assign(y="x"), TypeError, "'y' .* must hold numbers"),
    ],
    ids=["empty", "time", "target"],
)
def test_predict_rejects_a_table_of_other_types(
    change: Callable[[pd.DataFrame], pd.DataFrame], error: type[Exception], message: str
) -> None:
    model = make_model(make_dataset())
    with pytest.raises(error, match=f"^mLSTMTime: .*{message}"):
        model.predict(change(make_table()), trainer_kwargs={**QUIET})


@pytest.mark.parametrize("data", [make_table(), [1, 2], None], ids=["table", "list", "none"])
def test_from_dataset_rejects_what_is_not_a_dataset(data: Any) -> None:
    with pytest.raises(TypeError, match="^mLSTMTime: dataset must be a TimeSeriesDataSet, got"):
        mLSTMTime.from_dataset(data)


def test_fit_rejects_a_dataset_instead_of_its_loader() -> None:
    dataset = make_dataset()
    trainer = Trainer(**QUIET, max_epochs=1, enable_checkpointing=False)
    with pytest.raises(TypeError, match=r"^mLSTMTime: .*dataset\.to_dataloader"):
        trainer.fit(make_model(dataset), dataset, dataset)
    with pytest.raises(TypeError, match=r"^mLSTMTime: .*dataset\.to_dataloader"):
        make_model(dataset)(dataset[0])


def test_predict_does_not_need_columns_that_are_computed() -> None:
    dataset = make_dataset(
        **{**CONFIGURATIONS["known group"], "lags": {"y": [1]}, "add_relative_time_idx": True}
    )
    model = make_model(dataset)
    table = make_table()[["series", "t", "y", "holiday", "promotion"]]
    assert model.predict(table, trainer_kwargs={**QUIET}).shape == (3, 4)


def test_integers_are_converted_in_a_table_and_rejected_in_a_dataset() -> None:
    normalizer = {"target_normalizer": EncoderNormalizer(), "time_varying_unknown_reals": []}
    model = make_model(
        make_dataset(make_table().assign(y=lambda t: t["whole"] * 1.0), **normalizer)
    )
    whole = make_table().assign(y=lambda table: table["whole"])
    assert model.predict(whole, trainer_kwargs={**QUIET}).isfinite().all()
    with pytest.raises(ValueError, match=r"'y' must be of real numbers .*int64; .*astype"):
        make_model(make_dataset(whole, **normalizer))


def test_from_dataset_rejects_a_number_taken_for_a_label() -> None:
    """pytorch-forecasting has no real normalizer for nullable integers of pandas."""
    table = make_table()
    table["whole"] = table["whole"].astype("Int64")
    dataset = make_dataset(
        table, target="whole", time_varying_unknown_reals=["whole"], target_normalizer="auto"
    )
    with pytest.raises(ValueError, match=r"^mLSTMTime: target 'whole'.*\.astype\(float\)"):
        mLSTMTime.from_dataset(dataset)


def test_from_dataset_rejects_a_scaler_without_history() -> None:
    dataset = make_dataset(
        time_varying_known_reals=["price"],
        scalers={"price": EncoderNormalizer()},
        min_encoder_length=0,
    )
    with pytest.raises(ValueError, match="EncoderNormalizer needs 2 steps .* 'price', .*=0"):
        make_model(dataset)


@pytest.mark.parametrize("steps", [0, 1])
def test_from_dataset_rejects_one_of_several_normalizers_without_history(steps: int) -> None:
    """pytorch-forecasting rejects it if it is the only one."""
    dataset = make_dataset(
        target=["y", "signed"],
        time_varying_unknown_reals=["y", "signed"],
        target_normalizer=MultiNormalizer([GroupNormalizer(), EncoderNormalizer()]),
        min_encoder_length=steps,
    )
    with pytest.raises(ValueError, match=f"EncoderNormalizer needs 2 .* 'signed', .*={steps}"):
        make_model(dataset)


def test_from_dataset_rejects_a_fill_value_scaled_to_several_numbers() -> None:
    dataset = make_dataset(
        make_gaps(make_table()),
        allow_missing_timesteps=True,
        min_encoder_length=4,
        time_varying_known_reals=["price"],
        scalers={"price": EncoderNormalizer(transformation="sqrt")},
        constant_fill_strategy={"price": 2.0},
    )
    with pytest.raises(ValueError, match="constant_fill_strategy has for 'price' .* got 66 from"):
        make_model(dataset)


@pytest.mark.parametrize("instance", [True, False])
@pytest.mark.parametrize(
    "normalizer",
    [
        {"target_normalizer": GroupNormalizer(groups=["series"])},
        # for constant histories the scale is 1e-7
        {"target_normalizer": EncoderNormalizer("robust", center=False), "max_encoder_length": 2},
    ],
    ids=["group", "window"],
)
@pytest.mark.parametrize("loss", [PoissonLoss(), TweedieLoss()], ids=["Poisson", "Tweedie"])
@ignore_flat_histories
def test_forecasts_of_counts_of_all_sizes_are_rates(
    normalizer: dict[str, Any], instance: bool, loss: Any
) -> None:
    table = make_table()
    table["y"] = table["series"].map({"s0": 0.0, "s1": 7e6, "s2": 3.0})
    dataset = make_dataset(table, **normalizer)
    model = make_model(dataset, loss=loss, instance_normalization=instance)
    fit(model, dataset, steps=2)
    forecast = model.predict(dataset, trainer_kwargs={**QUIET})
    assert forecast.isfinite().all() and (forecast >= 0).all()
    assert forecast.max() < 100 * table["y"].max()


# pytorch-forecasting's v2


@pytest.mark.filterwarnings("ignore:TimeSeries is part of an experimental rework")
@pytest.mark.filterwarnings("ignore:.*experimental:UserWarning")
def test_data_module_of_v2_is_rejected() -> None:
    """Its batches have other keys."""
    table = make_table(n_series=20)[["series", "t", "y"]]
    table["series"] = table["series"].astype("category").cat.codes.astype(int)
    series = TimeSeries(table, time="t", target="y", group=["series"], num=["y"], unknown=["y"])
    module = EncoderDecoderTimeSeriesDataModule(
        series, max_encoder_length=8, max_prediction_length=4, batch_size=1
    )
    module.setup("fit")
    model = make_model(make_dataset())
    with pytest.raises(TypeError, match="^mLSTMTime: a batch must come from .* v2, which .* not"):
        Trainer(**QUIET, max_epochs=1).fit(
            model, module.train_dataloader(), module.val_dataloader()
        )


# Tables in which rows are repeated, or lack the target


def _concatenated(table: pd.DataFrame) -> pd.DataFrame:
    half = table["series"] == "s0"
    return pd.concat([table[half].reset_index(drop=True), table[~half].reset_index(drop=True)])


def _repeated(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[[7]]], ignore_index=True)


REPEATED: dict[str, tuple[Any, str]] = {
    "index": (_concatenated, r"must have a unique index, got several .* label 0; call reset_index"),
    "rows": (_repeated, "must have one row per series and time index, .* series='s0' at t=7; add"),
}


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("gaps", [True, False])
def test_repeated_rows_are_explained(name: str, gaps: bool) -> None:
    """pytorch-forecasting advises to allow missing steps, and then drops rows."""
    change, message = REPEATED[name]
    dataset = make_dataset(allow_missing_timesteps=gaps)
    arguments, table = dataset.get_parameters(), change(make_table())
    with pytest.raises(ValueError, match=f"^BatchedTimeSeriesDataSet: data {message}"):
        BatchedTimeSeriesDataSet.from_parameters(arguments, table)
    with pytest.raises(ValueError, match=f"^mLSTMTime: the table to predict {message}"):
        make_model(dataset).predict(table, trainer_kwargs={**QUIET})


def test_rows_without_a_target_are_for_forecast() -> None:
    table = make_table()
    table.loc[table["t"] > 21, "y"] = np.nan
    message = r"^mLSTMTime: .* target 'y' .*, got 12 rows .* to forecast\(\), .* future="
    with pytest.raises(ValueError, match=message):
        make_model(make_dataset()).predict(table, trainer_kwargs={**QUIET})


def test_group_normalizer_needs_two_rows_of_a_series() -> None:
    table = make_table()
    dataset = make_dataset(
        table[(table["series"] != "s1") | (table["t"] == 3)],
        min_encoder_length=0,
        max_prediction_length=1,
        min_prediction_length=1,
        target_normalizer=GroupNormalizer(groups=["series"]),
    )
    message = "^mLSTMTime: scale and 1 / scale .* nan for series='s1' at t=3 .* two rows of each"
    with pytest.raises(ValueError, match=message):
        fit(mLSTMTime.from_dataset(dataset), dataset)
