"""The statistics of the dataset that a model was fitted to, and those of other datasets."""

import warnings
from copy import deepcopy
from pathlib import Path
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
from sklearn.preprocessing import (
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from helpers.datasets import (
    CONFIGURATIONS,
    QUIET,
    build_dataset,
    configured,
    fit,
    make_dataset,
    make_table,
)
from helpers.models import SMALL
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.checks.adoption import adopt_statistics
from pytorch_forecasting_mlstm.models.base.checks.statistics import (
    compare_scalers,
    compare_targets,
    describe,
)

COVARIATES: dict[str, Any] = {
    "time_varying_known_reals": ["price"],
    "time_varying_unknown_reals": ["y", "noise"],
}


def more_expensive(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with prices three times as high."""
    return table.assign(price=3 * table["price"])


@alternate("name", CONFIGURATIONS, first=2, every=4)
def test_datasets_of_the_same_table_are_the_same(name: str) -> None:
    first = configured(name).get_parameters()
    second = build_dataset(**CONFIGURATIONS[name]).get_parameters()
    assert compare_scalers(first, second) == compare_targets(first, second) == []


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        RobustScaler(),
        MinMaxScaler(),
        PowerTransformer(),
        QuantileTransformer(n_quantiles=10),
        GroupNormalizer(),
        GroupNormalizer(groups=["series"]),
    ],
)
def test_scalers_are_compared(scaler: Any) -> None:
    first = make_dataset(**COVARIATES, scalers={"price": scaler})
    table = more_expensive(make_table())
    second = make_dataset(table, **COVARIATES, scalers={"price": scaler}).get_parameters()
    (difference,) = compare_scalers(first.get_parameters(), second)
    assert difference.name == "variable 'price'"
    numbers = np.array([difference.expected, difference.got], float)
    assert np.isfinite(numbers).all() and abs(numbers[0] - numbers[1]) > 1e-3
    same = TimeSeriesDataSet.from_dataset(first, table).get_parameters()
    assert compare_scalers(first.get_parameters(), same) == []
    # rounding is not a difference
    near = make_dataset(
        make_table().assign(price=lambda table: table["price"].astype("float32").astype(float)),
        **COVARIATES,
        scalers={"price": scaler},
    )
    assert compare_scalers(first.get_parameters(), near.get_parameters()) == []


@pytest.mark.parametrize(
    ("normalizers", "message"),
    [
        ((StandardScaler(), MinMaxScaler()), "scaler 'StandardScaler', got 'MinMaxScaler'"),
        ((StandardScaler(), StandardScaler(with_mean=False)), "with_mean True, got False"),
        ((EncoderNormalizer(), EncoderNormalizer("robust")), "method 'standard', got 'robust'"),
        ((StandardScaler(), None), "scaler 'StandardScaler', got None"),
        ((None, StandardScaler()), "scaler None, got 'StandardScaler'"),
    ],
)
def test_kinds_of_scalers_are_compared(normalizers: tuple[Any, Any], message: str) -> None:
    first, second = (
        make_dataset(**COVARIATES, scalers={"noise": part}).get_parameters() for part in normalizers
    )
    assert message in describe(compare_scalers(first, second))


@pytest.mark.parametrize(
    "normalizer",
    [
        GroupNormalizer(),
        GroupNormalizer(groups=["series"]),
        GroupNormalizer(groups=["series"], scale_by_group=True),
        TorchNormalizer(),
        TorchNormalizer("robust", center=False),
        MultiNormalizer([TorchNormalizer(), EncoderNormalizer()]),
    ],
)
def test_normalizers_of_targets_are_compared(normalizer: Any) -> None:
    settings: dict[str, Any] = {"target_normalizer": normalizer}
    if isinstance(normalizer, MultiNormalizer):
        settings |= {"target": ["y", "signed"], "time_varying_unknown_reals": ["y", "signed"]}
    first = make_dataset(**settings).get_parameters()
    table = make_table()
    second = make_dataset(table.assign(y=2 * table["y"]), **settings).get_parameters()
    (difference,) = compare_targets(first, second)
    assert difference.name == "target 'y'"
    assert difference.got == pytest.approx(2 * difference.expected, rel=0.01)


def test_new_series_are_no_difference() -> None:
    """They have other codes, too: a table of scales is compared by label."""
    table = make_table(4)
    normalizer = GroupNormalizer(groups=["series"])
    few, many = (
        make_dataset(rows, target_normalizer=normalizer).get_parameters()
        for rows in (table[table["series"] > "s1"], table)
    )
    assert compare_targets(few, many) == compare_targets(many, few) == []


def test_fill_values_are_compared_if_gaps_are_filled() -> None:
    def parameters(value: float, gaps: bool) -> dict[str, Any]:
        return make_dataset(
            **COVARIATES,
            scalers={"noise": None},
            allow_missing_timesteps=gaps,
            constant_fill_strategy={"noise": value},
        ).get_parameters()

    text = describe(compare_scalers(parameters(0.0, True), parameters(1.0, True)))
    assert text == "variable 'noise' with constant_fill_strategy 0, got 1"
    assert compare_scalers(parameters(0.0, False), parameters(1.0, False)) == []
    assert compare_scalers(parameters(np.nan, True), parameters(np.nan, True)) == []


def test_a_model_takes_over_the_dataset_that_it_is_fitted_to(tmp_path: Path) -> None:
    """Also one that is loaded, and trained on."""
    table = more_expensive(make_table())
    model = mLSTMTime.from_dataset(make_dataset(make_table(), **COVARIATES), **SMALL)
    second = make_dataset(table[table["t"] < 22], **COVARIATES)
    lengths = model.dataset_parameters["max_encoder_length"]
    trainer = fit(model, second, num_sanity_val_steps=1)
    assert compare_scalers(model.dataset_parameters, second.get_parameters()) == []
    assert model.dataset_parameters["scalers"]["price"] is not second._scalers["price"]
    assert model.dataset_parameters["max_encoder_length"] == lengths
    assert compare_targets(model.dataset_parameters, second.get_parameters()) == []
    last = TimeSeriesDataSet.from_dataset(second, table, predict=True, stop_randomization=True)
    expected = model.predict(last, trainer_kwargs=dict(QUIET)).flatten()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt")
    for copied in (model, loaded, deepcopy(model)):
        forecast = copied.forecast(table[table["t"] < 22], table[table["t"] >= 22])["prediction"]
        np.testing.assert_allclose(forecast, expected, rtol=1e-6)
        torch.testing.assert_close(
            copied.predict(table, trainer_kwargs=dict(QUIET)).flatten(), expected
        )


def test_a_model_takes_over_another_normalizer_of_its_target() -> None:
    model = mLSTMTime.from_dataset(make_dataset(), **SMALL)
    fit(model, make_dataset(target_normalizer=TorchNormalizer()))
    assert type(model.output_transformer) is TorchNormalizer
    assert type(model.dataset_parameters["target_normalizer"]) is TorchNormalizer
    assert np.isfinite(model.forecast(make_table())["prediction"]).all()


def test_scales_and_codes_of_series_are_taken_over() -> None:
    """A normalizer of windows has no statistics that differ, but series have other codes."""
    table = make_table(4)
    table.loc[table["series"] == "s2", "y"] *= 100
    first, second = (
        make_dataset(table[table["series"].isin(names)], target_normalizer=EncoderNormalizer())
        for names in (["s0", "s1", "s2"], ["s2", "s3"])
    )
    model = mLSTMTime.from_dataset(first, **SMALL)
    before = model.reference_scales({"groups": torch.tensor([[2]])})[0].series.item()
    adopt_statistics(model, second)
    encoders = model.dataset_parameters["categorical_encoders"]
    assert encoders["__group_id__series"].classes_ == {"s2": 0, "s3": 1}
    reference = model.reference_scales({"groups": torch.tensor([[0], [2]])})[0]
    assert reference.series.flatten().tolist() == [pytest.approx(before), 0]
    assert torch.equal(model.hparams["series_scales"]["scales"], model.scale_table.scales)


def test_other_codes_of_series_are_named() -> None:
    table = make_table(4)
    settings: dict[str, Any] = {"target_normalizer": EncoderNormalizer()}
    model = mLSTMTime.from_dataset(make_dataset(table, **settings), **SMALL)
    other = make_dataset(table[table["series"] > "s1"], **settings)
    message = r"^mLSTMTime: .* group series='s2' with code 2, got 0; group series='s3' .* constant"
    with pytest.warns(UserWarning, match=message):
        model.predict(other, trainer_kwargs=dict(QUIET))


def test_labels_are_not_taken_over() -> None:
    settings: dict[str, Any] = {"time_varying_unknown_categoricals": ["state"]}
    model = mLSTMTime.from_dataset(make_dataset(**settings), **SMALL)
    table = make_table()
    table.loc[3, "state"] = "ajar"
    with pytest.raises(
        ValueError, match=r"^mLSTMTime: .* labels .* of 'state'.*\(new \['ajar'\]\)"
    ):
        fit(model, make_dataset(table, **settings))
    encoder = {"state": NaNLabelEncoder(add_nan=True)}
    with pytest.raises(ValueError, match="^mLSTMTime: the model was made for the labels"):
        fit(model, make_dataset(**settings, categorical_encoders=encoder))


@pytest.mark.parametrize("stage", ["predict", "validate", "test", "fit"])
def test_other_scalers_are_rejected(stage: str) -> None:
    """In training, those of the validation dataset: it was not made from the training dataset."""
    dataset = make_dataset(**COVARIATES)
    other = make_dataset(more_expensive(make_table()), **COVARIATES)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    trainer = Trainer(**QUIET, max_steps=1, enable_checkpointing=False, num_sanity_val_steps=0)
    loaders = [
        part.to_dataloader(train=train, batch_size=16, num_workers=0)
        for part, train in ((dataset, True), (other, False))
    ]
    calls = {
        "predict": lambda: model.predict(other, trainer_kwargs=dict(QUIET)),
        "validate": lambda: trainer.validate(model, loaders[1], verbose=False),
        "test": lambda: trainer.test(model, loaders[1], verbose=False),
        "fit": lambda: trainer.fit(model, *loaders),
    }
    message = (
        r"^mLSTMTime: the dataset must scale as .* 'price' with mean_ 1\.\d+, got 4\.\d+; make"
    )
    with pytest.raises(ValueError, match=message):
        calls[stage]()


@pytest.mark.parametrize("instance_normalization", [True, False])
def test_other_scales_of_the_target_are_named(instance_normalization: bool) -> None:
    table = make_table()
    model = mLSTMTime.from_dataset(
        make_dataset(), **SMALL, instance_normalization=instance_normalization
    )
    other = make_dataset(table.assign(y=table["y"] + 100))
    message = (
        r"^mLSTMTime: the dataset must normalize as .* center of 's\d' \d+\.\d+, got 1\d\d\.\d+"
    )
    if instance_normalization:
        with pytest.warns(UserWarning, match=message):
            forecast = model.predict(other, trainer_kwargs=dict(QUIET))
        # in the units of that dataset
        assert (forecast > 90).all()
    else:
        with pytest.raises(ValueError, match=message):
            model.predict(other, trainer_kwargs=dict(QUIET))


def test_datasets_made_from_the_training_dataset_are_accepted() -> None:
    dataset = make_dataset(**COVARIATES, target_normalizer=EncoderNormalizer())
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    next(iter(dataset.to_dataloader(batch_size=2, num_workers=0)))  # fits the normalizer anew
    other = TimeSeriesDataSet.from_dataset(dataset, more_expensive(make_table()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.predict(other, trainer_kwargs=dict(QUIET))
