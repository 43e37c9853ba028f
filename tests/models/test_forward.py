"""Properties of mLSTMTime's forward pass: what a forecast depends on, and its scale."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

from helpers.datasets import (
    CONFIGURATIONS,
    HORIZON,
    collate,
    configured,
    convert,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import SilentMemory, make_model, parametrize_configurations, shared_model
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import mLSTMTime

# 3 divides neither the history nor the horizon
parametrize_patch_length = pytest.mark.parametrize("patch_length", [1, 3])


@torch.no_grad()
def forecast(model: mLSTMTime, x: dict[str, Any]) -> list[Tensor]:
    """Return the forecast of every target, (B, steps, size)."""
    return to_list(model(x).prediction)


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


# What a forecast depends on


@parametrize_configurations
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


@parametrize_patch_length
@parametrize_configurations
def test_forward_depends_on_no_other_sample(name: str, patch_length: int) -> None:
    dataset, model = configured(name), shared_model(name, patch_length=patch_length)
    samples = pick_samples(dataset)
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


@parametrize_patch_length
@parametrize_configurations
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
    x, _ = collate(pick_samples(dataset, count=9))
    assert_close(forecast(longer_model, x)[0], forecast(model, x)[0])


# The scale of a forecast

SCALES = {"s0": (4.0, -3.0), "s1": (0.5, 100.0), "s2": (64.0, 1000.0)}


def scaled_pair(**changes: Any) -> tuple[TimeSeriesDataSet, TimeSeriesDataSet, Tensor, Tensor]:
    """Make a dataset, and a second one in which every series is shifted and scaled.

    Also return the factor and the shift of every picked sample. All values are multiples of 1/256,
    which float32, the precision of datasets, represents exactly before and after the change.
    """
    table = make_table()
    table["y"] = (table["y"] * 256).round() / 256
    scaled = table.copy()
    for series, (factor, shift) in SCALES.items():
        scaled.loc[scaled["series"] == series, "y"] *= factor
        scaled.loc[scaled["series"] == series, "y"] += shift
    dataset, changed = make_dataset(table, **changes), make_dataset(scaled, **changes)
    names = changed.x_to_index(collate(pick_samples(changed))[0])["series"]
    factors, shifts = np.array([SCALES[series] for series in names]).T
    return (
        dataset,
        changed,
        torch.from_numpy(factors)[:, None, None],
        torch.from_numpy(shifts)[:, None, None],
    )


def forecast_both(
    dataset: TimeSeriesDataSet, changed: TimeSeriesDataSet, **changes: Any
) -> tuple[mLSTMTime, Tensor, Tensor]:
    """Forecast samples of both datasets with the same weights."""
    model, changed_model = make_model(dataset, **changes), make_model(changed, **changes)
    changed_model.load_state_dict(model.state_dict())
    return (
        model,
        model(collate(pick_samples(dataset))[0]).prediction.detach(),
        changed_model(collate(pick_samples(changed))[0]).prediction.detach(),
    )


NORMALIZERS: dict[str, Any] = {
    "of the series": GroupNormalizer(groups=["series"]),
    "of all series": GroupNormalizer(),
    "of all values": TorchNormalizer(),
    "robust": TorchNormalizer("robust", center=False),
    "of the history": EncoderNormalizer(),
    "none": None,
}
# Datasets compute some parameters and columns in float32, so that equivariance is not exact.
FLOAT32_TOLERANCE = 1e-5


@pytest.mark.parametrize("loss", [MAE(), QuantileLoss([0.1, 0.5, 0.8])], ids=["point", "quantiles"])
@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_forecast_of_a_shifted_and_scaled_series_is_shifted_and_scaled(
    normalizer: Any, loss: Any
) -> None:
    dataset, changed, factor, shift = scaled_pair(
        target_normalizer=normalizer, time_varying_known_reals=["price"], min_encoder_length=2
    )
    _, before, after = forecast_both(dataset, changed, loss=loss, patch_length=3)
    assert_close(after, factor * before + shift, tolerance=1e-10)


@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_distribution_of_a_shifted_and_scaled_series_is_shifted_and_scaled(
    normalizer: Any,
) -> None:
    dataset, changed, factor, shift = scaled_pair(target_normalizer=normalizer)
    model, before, after = forecast_both(dataset, changed, loss=NormalDistributionLoss())
    quantiles = [model.loss.to_quantiles(part.float()) for part in (before, after)]
    # pytorch-forecasting computes quantiles in float32
    assert_close(quantiles[1], (factor * quantiles[0] + shift).float(), tolerance=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("normalizer", ["of the series", "of all series", "of the history"])
def test_forecast_with_lagged_targets_is_equivariant(normalizer: str) -> None:
    dataset, changed, factor, shift = scaled_pair(
        target_normalizer=NORMALIZERS[normalizer], lags={"y": [1, 5]}
    )
    _, before, after = forecast_both(dataset, changed)
    # lags are normalized in float32
    assert_close(after, factor * before + shift, tolerance=10 * FLOAT32_TOLERANCE)


@pytest.mark.parametrize("normalizer", ["of all series", "of all values", "robust", "none"])
def test_forecast_without_instance_normalization_is_not_equivariant(normalizer: str) -> None:
    dataset, changed, factor, shift = scaled_pair(target_normalizer=NORMALIZERS[normalizer])
    _, before, after = forecast_both(dataset, changed, instance_normalization=False)
    assert ((after - factor * before - shift) / factor).abs().max() > 0.1


@pytest.mark.parametrize(
    "loss", [PoissonLoss(), TweedieLoss(), NegativeBinomialDistributionLoss()], ids=lambda x: x.name
)
def test_forecast_of_scaled_counts_is_scaled(loss: Any) -> None:
    means = []
    for factor in (1, 16):
        table = make_table()
        table["count"] *= factor
        dataset = make_dataset(
            table,
            target="count",
            time_varying_unknown_reals=["count"],
            target_normalizer=GroupNormalizer(center=False),
        )
        torch.manual_seed(0)
        model = make_model(dataset, loss=loss)
        raw = model(collate(pick_samples(dataset))[0]).prediction.detach()
        means.append(model.loss.to_prediction(raw))
    assert_close(means[1], 16 * means[0], tolerance=FLOAT32_TOLERANCE)  # target_scale is in float32


@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_untrained_forecast_of_a_constant_series_is_its_level(normalizer: Any) -> None:
    table = make_table()
    table["y"] = 1000.0
    dataset = make_dataset(table, target_normalizer=normalizer)
    x, _ = collate(pick_samples(dataset), torch.float32)
    (forecasts,) = forecast(mLSTMTime.from_dataset(dataset).eval(), x)
    assert (forecasts - 1000).abs().max() < 5


@pytest.mark.filterwarnings("ignore:scale is below 1e-7:UserWarning")  # at a size of 1e-6
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_untrained_forecast_is_in_the_scale_of_the_history(normalizer: Any, size: float) -> None:
    table = make_table()
    table["y"] *= size
    dataset = make_dataset(table, target_normalizer=normalizer)
    x, _ = collate(pick_samples(dataset, count=9), torch.float32)
    (forecasts,) = forecast(mLSTMTime.from_dataset(dataset).eval(), x)
    history = x["encoder_target"]
    distance = (forecasts[..., 0] - history.mean(1, keepdim=True)) / history.std(1, keepdim=True)
    assert distance.abs().max() < 4
    # near the mean, since linear maps and heads start near zero, but not collapsed to it
    assert 1e-3 < distance.abs().mean() < 0.05


@pytest.mark.parametrize(
    "loss", [PoissonLoss(), TweedieLoss(), NegativeBinomialDistributionLoss()], ids=lambda x: x.name
)
@pytest.mark.parametrize("size", [0.1, 1, 1000])
def test_untrained_mean_of_counts_is_in_the_scale_of_the_history(loss: Any, size: float) -> None:
    table = make_table()
    table["count"] = (table["count"] * size).round()
    dataset = make_dataset(
        table,
        target="count",
        time_varying_unknown_reals=["count"],
        target_normalizer=GroupNormalizer(center=False),
    )
    x, _ = collate(pick_samples(dataset, count=9), torch.float32)
    model = mLSTMTime.from_dataset(dataset, loss=loss).eval()
    mean = model.to_prediction(model(x))
    level = x["encoder_target"].mean(1, keepdim=True).clamp_min(0.1)
    assert (mean / level).log().abs().max() < np.log(8)


def test_forecast_of_integers_equals_that_of_floats() -> None:
    table = make_table()
    table["whole"] = table["whole"] // 4  # for a scale below 1
    forecasts = []
    for dtype in (int, float):
        dataset = make_dataset(
            table.astype({"whole": dtype}), **CONFIGURATIONS["whole numbers"], min_encoder_length=2
        )
        torch.manual_seed(0)
        model = make_model(dataset)
        forecasts.append(forecast(model, collate(pick_samples(dataset))[0])[0])
    assert_close(forecasts[0], forecasts[1])


# Alignment of steps, patches and tokens


class Roll(nn.Module):
    """Replaces the memory: a token becomes the one ``places`` before it."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return tokens.roll(self.places, dims=1) - tokens, None  # the network adds the tokens


def clock_dataset(**changes: Any) -> TimeSeriesDataSet:
    """Make a dataset whose target and known variable equal the time."""
    table = make_table(n_series=2, steps=30)
    table["y"] = table["clock"] = table["t"].astype(float)
    return make_dataset(
        table,
        time_varying_known_reals=["clock"],
        target_normalizer=None,
        scalers={"clock": None},
        **changes,
    )


def times_of(x: dict[str, Any]) -> Tensor:
    """Return the time of every step of the horizon, (B, steps)."""
    return x["decoder_time_idx"].double()


def zero_weights(model: mLSTMTime) -> None:
    """Set all weights to zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()


@pytest.mark.parametrize("patch_length", [1, 3, 4])
@pytest.mark.parametrize("part", ["trend", "cycle", "season"])
def test_linear_maps_start_from_the_last_step_of_every_history(
    part: str, patch_length: int
) -> None:
    dataset = clock_dataset(min_encoder_length=3)
    # with averages over one step, all is trend; an average over 2 steps is half a step off
    widths = {"trend": (1, 1), "cycle": (2, 1), "season": (2, 2)}[part]
    model = mLSTMTime.from_dataset(
        dataset, patch_length=patch_length, moving_averages=widths, instance_normalization=False
    )
    model = model.double().eval()
    zero_weights(model)
    linear = model.network.target_encoders[0].linear
    with torch.no_grad():
        model.network.target_encoders[0].gain.fill_(1)
        for step in range(HORIZON):  # step 1 reads the last value but 0, step 2 the last but 1, ...
            getattr(linear, part).weight[step, -1 - min(step, 2)] = 1
    x, _ = collate(pick_samples(dataset, count=9))
    assert len(x["encoder_lengths"].unique()) > 1
    back = torch.arange(HORIZON).clamp_max(2)
    last = times_of(x)[:, :1] - 1
    expected = (
        last - back if part == "trend" else torch.where(back > 0, -0.5, 0.0).expand(len(last), -1)
    )
    assert_close(forecast(model, x)[0][..., 0], expected.double())


@pytest.mark.parametrize("patch_length", [1, 3, 4])
def test_amplitudes_scale_each_component_patch_by_patch(patch_length: int) -> None:
    """With a silent memory, y = Σ (1 + tanh(w p)) component, where p is the patch's position."""
    dataset = clock_dataset(min_encoder_length=3)
    model = mLSTMTime.from_dataset(
        dataset,
        hidden_size=8,
        patch_length=patch_length,
        moving_averages=(4, 2),
        amplitudes=True,  # off by default, as there is a known variable
        instance_normalization=False,
    )
    model = model.double().eval()
    zero_weights(model)
    model.network.memory, model.network.memory_norm = SilentMemory(), nn.Identity()
    model.network.token_norm = nn.Identity()
    patches = -(-HORIZON // patch_length)
    positions = torch.linspace(-1, 2, patches, dtype=torch.float64)
    slopes = torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64)
    with torch.no_grad():
        model.network.target_encoders[0].gain.fill_(1)
        for linear in model.network.target_encoders[0].linear.children():
            linear.weight.normal_()
        model.network.position_embedding[-patches:, 0] = positions
        model.network.amplitude_head.weight[:, 0] = slopes
    outputs = []
    model.network.target_encoders[0].linear.register_forward_hook(
        lambda *arguments: outputs.append(arguments[-1])
    )
    x, _ = collate(pick_samples(dataset, count=9))
    actual = forecast(model, x)[0][..., 0]
    (components,) = outputs
    for step in range(HORIZON):
        expected = sum(
            (1 + (slope * positions[step // patch_length]).tanh()) * components[:, step, number]
            for number, slope in enumerate(slopes)
        )
        assert_close(actual[:, step], expected)


@pytest.mark.parametrize("patch_length", [1, 2, 3])
def test_horizon_follows_the_history_without_a_gap(patch_length: int) -> None:
    dataset = clock_dataset(min_encoder_length=patch_length, max_prediction_length=2 * patch_length)
    for places in range(2):
        model = mLSTMTime.from_dataset(
            dataset, hidden_size=8, patch_length=patch_length, instance_normalization=False
        )
        model = model.double().eval()
        zero_weights(model)
        model.network.memory, model.network.memory_norm = Roll(places), nn.Identity()
        model.network.token_norm = nn.Identity()
        with torch.no_grad():
            # A token holds the clock of every step of its patch, and the head returns it. A step of
            # the history has y, clock and mark; a step of the horizon has clock and mark.
            for step in range(patch_length):
                model.network.history_embedding.projection.weight[step, 3 * step + 1] = 1
                model.network.horizon_embedding.projection.weight[step, 2 * step] = 1
                model.network.residual_head.weight[step, step] = 1
        x, _ = collate(pick_samples(dataset, count=9))
        assert len(x["encoder_lengths"].unique()) > 1
        assert_close(forecast(model, x)[0][..., 0], times_of(x) - places * patch_length)


# Precision


@pytest.mark.parametrize("name", ["all covariates", "mixed targets"])
def test_bfloat16_autocast_returns_float32_near_float32(name: str) -> None:
    dataset = configured(name)
    model = make_model(dataset, hidden_size=16).float()
    x, _ = collate(pick_samples(dataset), torch.float32)
    expected = forecast(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = forecast(model, x)
    std = to_list(x["encoder_target"])[0].std(1)[:, None, None]
    for rounded, exact, unit in zip(actual, expected, (std, 1.0), strict=False):
        assert rounded.dtype == torch.float32
        error = ((rounded - exact) / unit).abs()
        # about twenty roundings to 8 bits, and larger errors after a division by a small norm
        assert 0 < error.mean() < 0.03
        assert error.max() < 0.3


def test_autocast_keeps_large_forecasts_exact() -> None:
    """At a level of 6490, bfloat16 represents only multiples of 32."""
    table = make_table()
    table["y"] += 6490
    dataset = make_dataset(table)
    model = mLSTMTime.from_dataset(dataset).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = forecast(model, x)[0]
    assert (mixed - forecast(model, x)[0]).abs().max() < 0.1
