"""Which inputs a forecast of mLSTMTime depends on."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

from helpers.datasets import (
    CONFIGURATIONS,
    collate,
    configured,
    convert,
    make_dataset,
    pick_samples,
)
from helpers.models import (
    forecast,
    make_model,
    shared_model,
)
from helpers.products import alternate, spread
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMTime

# 3 divides neither the history nor the horizon
PATCH_LENGTHS = [1, 3]
parametrize_patch_length = pytest.mark.parametrize("patch_length", PATCH_LENGTHS)


def valid(forecasts: list[Tensor], x: dict[str, Any], row: int) -> tuple[Tensor, ...]:
    """Return the valid steps of one sample's forecasts."""
    return tuple(part[row, : x["decoder_lengths"][row]] for part in forecasts)


def known_columns(dataset: TimeSeriesDataSet) -> tuple[list[bool], list[bool]]:
    """Return for every real and every categorical column whether its future is known."""
    groups = dataset._variable_groups
    reals = {*dataset._static_reals, *dataset._time_varying_known_reals}
    classes = {
        member
        for name in dataset._static_categoricals + dataset._time_varying_known_categoricals
        for member in groups.get(name, [name])
    }
    return (
        [name in reals for name in dataset.reals],
        [name in classes for name in dataset.flat_categoricals],
    )


@alternate("name", CONFIGURATIONS, first=1)
def test_forward_forecasts_every_target(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset).eval()
    x, (y, _) = collate(pick_samples(dataset), torch.float32)
    before = convert(x, torch.float32)
    prediction = model(x).prediction

    assert isinstance(prediction, list) == isinstance(dataset.target, list)
    assert len(to_list(prediction)) == len(dataset.target_names)
    for part, truth, normalizer in zip(
        to_list(prediction), to_list(y), dataset.target_normalizers, strict=True
    ):
        classes = getattr(normalizer, "classes_", None)
        assert part.shape == (*truth.shape, 1 if classes is None else len(classes))
        assert part.dtype == torch.float32
        assert part.isfinite().all()
    for key in x:  # forward must not change the batch
        for after, original in zip(to_list(x[key]), to_list(before[key]), strict=True):
            assert torch.equal(after, original), key


@spread("name, patch_length", CONFIGURATIONS.keys(), PATCH_LENGTHS, every=2)
def test_forward_depends_on_no_other_sample(name: str, patch_length: int) -> None:
    dataset, model = configured(name), shared_model(name, patch_length=patch_length)
    samples = pick_samples(dataset, count=3)
    x, _ = collate(samples)
    in_batch = forecast(model, x)

    order = list(reversed(range(len(samples))))
    reversed_x, _ = collate([samples[row] for row in order])
    reversed_order = forecast(model, reversed_x)
    for row, sample in enumerate(samples):
        expected = valid(in_batch, x, row)
        alone_x, _ = collate([sample])
        assert_close(valid(forecast(model, alone_x), alone_x, 0), expected, name="alone")
        reversed_row = valid(reversed_order, reversed_x, order.index(row))
        assert_close(reversed_row, expected, name="reversed")


@parametrize_patch_length
@pytest.mark.parametrize(
    "name",
    ["variable encoders", "variable decoders", "all lengths", "mixed targets and covariates"],
)
def test_forward_does_not_read_the_padding(name: str, patch_length: int) -> None:
    dataset, model = configured(name), shared_model(name, patch_length=patch_length)
    x, _ = collate(pick_samples(dataset, count=12))
    expected = forecast(model, x)

    padded = 0
    for part in ("encoder", "decoder"):
        steps = torch.arange(x[f"{part}_cont"].shape[1])
        padding = steps >= x[f"{part}_lengths"][:, None]
        padded += int(padding.sum())
        corrupt_reals(x[f"{part}_cont"], padding)
        x[f"{part}_cat"][padding] = 1 - x[f"{part}_cat"][padding].clamp_max(1)
        for target in to_list(x[f"{part}_target"]):
            if target.is_floating_point():
                corrupt_reals(target, padding)
            else:
                target[padding] = 1 - target[padding].clamp_max(1)
    assert padded > 5
    actual = forecast(model, x)
    for row in range(len(x["encoder_lengths"])):
        assert_identical(valid(actual, x, row), valid(expected, x, row))


def corrupt_reals(values: Tensor, where: Tensor) -> None:
    """Overwrite the values with NaN, infinity and a huge number in turn."""
    cycle = torch.tensor([torch.nan, torch.inf, -1e30], dtype=values.dtype)
    count = values[where].numel()
    values[where] = cycle.repeat(count // 3 + 1)[:count].view_as(values[where])


@spread("name, patch_length", CONFIGURATIONS.keys(), PATCH_LENGTHS)
def test_forward_does_not_read_the_future_of_unknown_variables(
    name: str, patch_length: int
) -> None:
    dataset, model = configured(name), shared_model(name, patch_length=patch_length)
    x, _ = collate(pick_samples(dataset))
    expected = forecast(model, x)

    known_reals, known_classes = known_columns(dataset)
    x["decoder_cont"][..., [not known for known in known_reals]] = torch.nan
    unknown = [not known for known in known_classes]
    x["decoder_cat"][..., unknown] = 1 - x["decoder_cat"][..., unknown].clamp_max(1)
    for target in to_list(x["decoder_target"]):
        target.fill_(torch.nan if target.is_floating_point() else 0)
    assert_identical(tuple(forecast(model, x)), tuple(expected))


def inputs_of(x: dict[str, Any], dataset: TimeSeriesDataSet) -> Iterator[tuple[str, Any]]:
    """Yield every input that a forecast may read, with a function that changes it in ``x``."""
    known_reals, known_classes = known_columns(dataset)
    static = {*dataset._static_reals, *dataset._static_categoricals}

    def shift(part: str, column: int) -> None:
        x[f"{part}_cont"][..., column] += 0.5

    def swap(part: str, column: int) -> None:
        x[f"{part}_cat"][..., column] = 1 - x[f"{part}_cat"][..., column].clamp_max(1)

    for names, known, change in (
        (dataset.reals, known_reals, shift),
        (dataset.flat_categoricals, known_classes, swap),
    ):
        for column, name in enumerate(names):
            if name not in static and name not in dataset.target_names:
                yield f"{name} in the history", (change, "encoder", column)
            if known[column]:
                yield f"{name} in the future", (change, "decoder", column)


@pytest.mark.parametrize(
    "name",
    [
        "all covariates",
        "known group",
        "unknown group",
        "relative time",
        "target scales",
        "encoder length",
        "lags",
        "lags of covariates",
        "lags of a categorical target",
        "two targets with weights and lags",
        "mixed targets and covariates",
    ],
)
def test_forward_reads_every_input_of_the_dataset(name: str) -> None:
    dataset, model = configured(name), shared_model(name)
    samples = pick_samples(dataset)
    x, _ = collate(samples)
    expected = forecast(model, x)
    names = [label for label, _ in inputs_of(x, dataset)]
    assert names
    for index, label in enumerate(names):
        changed_x, _ = collate(samples)
        change, part, column = list(inputs_of(changed_x, dataset))[index][1]
        change(part, column)
        for after, before in zip(forecast(model, changed_x), expected, strict=True):
            assert (after - before).abs().flatten(1).amax(1).min() > 1e-6, label


def test_forward_reads_the_history_of_every_target_for_every_forecast() -> None:
    dataset, model = configured("mixed targets"), shared_model("mixed targets")
    samples = pick_samples(dataset)
    expected = forecast(model, collate(samples)[0])
    for number in range(2):
        x, _ = collate(samples)
        history = x["encoder_target"][number]
        history.copy_(history.flip(1))
        for after, before in zip(forecast(model, x), expected, strict=True):
            assert (after - before).abs().max() > 1e-6


def test_forward_reads_only_allowed_known_variables_in_the_history() -> None:
    dataset = configured("all covariates")
    allowed = ["t", "promotion"]
    model = make_model(dataset, allowed_encoder_known_variable_names=allowed)
    samples = pick_samples(dataset)
    expected = forecast(model, collate(samples)[0])[0]
    for column, name in enumerate(dataset.reals):
        if name in ("t", "price"):
            for part, is_read in (("encoder", name in allowed), ("decoder", True)):
                x, _ = collate(samples)
                x[f"{part}_cont"][..., column] += 1
                assert torch.equal(forecast(model, x)[0], expected) is not is_read, (name, part)


def test_forward_of_a_batch_of_empty_histories() -> None:
    dataset, model = configured("all lengths"), shared_model("all lengths", patch_length=3)
    samples = [
        s for s in map(dataset.__getitem__, range(len(dataset))) if not s[0]["encoder_length"]
    ]
    x, _ = collate(samples)
    assert x["encoder_cont"].shape[1] == 0 and len(samples) > 3
    expected = forecast(model, x)
    assert expected[0].isfinite().all()
    mixed_x, _ = collate([*samples, dataset[0]])
    actual = forecast(model, mixed_x)
    assert mixed_x["encoder_cont"].shape[1] > 0
    for row in range(len(samples)):
        assert_close(valid(actual, mixed_x, row), valid(expected, x, row))


@parametrize_patch_length
def test_forward_does_not_depend_on_the_longest_possible_history(
    patch_length: int,
) -> None:
    settings = {**CONFIGURATIONS["all covariates"], "min_encoder_length": 0}
    dataset = make_dataset(**settings, add_encoder_length=False)
    longer = make_dataset(**settings, add_encoder_length=False, max_encoder_length=13)
    model, longer_model = (
        make_model(data, patch_length=patch_length) for data in (dataset, longer)
    )
    weights = model.state_dict()
    for name, weight in longer_model.state_dict().items():
        if weight.shape != weights[name].shape:  # the weights of the earliest steps come first
            rows, columns = (
                new - old for new, old in zip(weight.shape, weights[name].shape, strict=True)
            )
            weights[name] = nn.functional.pad(weights[name], (columns, 0, rows, 0), value=7.0)
    longer_model.load_state_dict(weights)
    longer_model.scale_table = model.scale_table  # spreads are those of windows of this length
    x, _ = collate(pick_samples(dataset, count=9))
    assert_close(forecast(longer_model, x)[0], forecast(model, x)[0])
