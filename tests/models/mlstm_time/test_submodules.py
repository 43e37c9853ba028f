"""Submodules of the network, against independent computations."""

import numpy as np
import pytest
import torch
from pytorch_forecasting.layers import SeriesDecomposition

from helpers.ragged import LENGTHS, ragged
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.models.base.padding import valid_steps
from pytorch_forecasting_mlstm.models.mlstm_time.submodules import (
    COMPONENTS,
    CategoricalEmbedding,
    DecompositionLinear,
    EmbeddingTable,
    Features,
    FeatureSelector,
    PatchEmbedding,
    fold,
    moving_averages,
    unfold,
)


def test_feature_selector_selects_columns_and_appends_embeddings() -> None:
    reals = torch.randn(2, 3, 4)
    embedded = {"a": torch.randn(2, 3, 2), "b": torch.randn(2, 3, 1), "c": torch.randn(2, 3, 5)}
    widths = {"a": 2, "b": 1, "c": 5}
    features = FeatureSelector(Features([3, 1], ["c", "a"]), widths)
    assert features.size == 9
    expected = torch.cat([reals[..., [3, 1]], embedded["c"], embedded["a"]], dim=-1)
    assert torch.equal(features(reals, embedded), expected)


def test_categorical_embedding_looks_up_codes_and_sums_groups() -> None:
    tables = {
        "values": EmbeddingTable(4, 3, [2]),  # the name of a method of nn.ModuleDict
        "group": EmbeddingTable(5, 2, [0, 1]),
        "padded": EmbeddingTable(4, 3, [2], zero_padding=True),
    }
    embedding = CategoricalEmbedding(tables)
    codes = torch.randint(4, (2, 3, 3))
    embedded = embedding(codes)
    assert list(embedded) == list(tables)
    assert torch.equal(embedded["values"], embedding["values"].weight[codes[..., 2]])
    group = embedding["group"].weight
    assert_close(embedded["group"], group[codes[..., 0]] + group[codes[..., 1]])
    assert not embedding["padded"].weight[0].any()
    assert torch.equal(embedded["padded"], embedding["padded"].weight[codes[..., 2]])


def test_patch_embedding_maps_valid_steps_and_their_marks() -> None:
    tokens = PatchEmbedding(step_size=2, patch_length=3, hidden_size=4).double()
    features = torch.randn(len(LENGTHS), 6, 2, dtype=torch.float64)
    mask = valid_steps(LENGTHS, 6, right=True)
    features_or_nan = features.masked_fill(~mask[..., None], torch.nan)
    actual, actual_mask = tokens(features_or_nan.split(1, -1), mask)
    weight, bias = (part.detach().numpy() for part in tokens.projection.parameters())
    for row in range(len(LENGTHS)):
        for patch in range(2):
            steps = range(3 * patch, 3 * patch + 3)
            flat = np.concatenate(
                [[*features[row, t], 1.0] if mask[row, t] else [0.0] * 3 for t in steps]
            )
            assert_close(actual[row, patch], torch.from_numpy(weight @ flat + bias))
            assert actual_mask[row, patch] == any(mask[row, t] for t in steps)


def reference_moving_average(y: np.ndarray, width: int) -> np.ndarray:
    """Average over ``width`` steps around each step, the longer half ahead, with repeated ends."""
    left, right = (width - 1) // 2, width // 2
    padded = np.concatenate([np.full(left, y[0]), y, np.full(right, y[-1])])
    return np.array([padded[t : t + width].mean() for t in range(len(y))])


@pytest.mark.parametrize("widths", [(1, 1), (2, 1), (3, 3), (4, 2), (25, 4)])
def test_decomposition_linear_maps_three_components_of_the_unpadded_history(
    widths: tuple[int, int],
) -> None:
    linear = DecompositionLinear(7, 4, widths).double()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.normal_()
    series, y, mask = ragged(7, right=True)
    actual = linear(y.masked_fill(~mask, 0), mask)
    for row, values in enumerate(series):
        components = np.zeros((3, len(values)))
        if len(values):
            trend, smooth = (reference_moving_average(values, width) for width in widths)
            components = np.stack([trend, smooth - trend, values - smooth])
        for component, name, output in zip(components, COMPONENTS, actual[row].T, strict=True):
            weights = getattr(linear, name).weight.detach().numpy()
            expected = weights[:, 7 - len(values) :] @ component
            assert_close(output, torch.from_numpy(expected))


@pytest.mark.parametrize("steps", [1, 2, 5, 24, 25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", [1, 7, 336])
def test_moving_average_equals_series_decomposition(
    steps: int, length: int, dtype: torch.dtype
) -> None:
    y = torch.randn(3, length, dtype=dtype)
    _, expected = SeriesDecomposition(steps)(y.double()[..., None])
    actual, _ = moving_averages(y, (steps, 4))
    assert actual.dtype == dtype
    # cumulative sums of 360 steps of size 1 reach about 40; their rounding is divided by the steps
    precision = 40 * torch.finfo(dtype).eps
    assert (actual - expected[..., 0]).abs().max() <= precision


@pytest.mark.parametrize("steps", [3, 25, 171])
def test_moving_average_is_precise_at_a_high_level(steps: int) -> None:
    y = 1e6 + torch.randn(3, 512)
    (expected,) = moving_averages(y.double(), (steps,))
    (actual,) = moving_averages(y, (steps,))
    # the mean, the difference from it and the result are rounded at a level of 1e6
    assert (actual - expected).abs().max() <= 3 * 1e6 * torch.finfo(y.dtype).eps


def test_narrow_moving_average_beside_a_wide_one_is_precise() -> None:
    """The repeated ends of the wide one are no part of the narrow one."""
    y = torch.randn(3, 4000)
    y[:, 0] = 50
    _, expected = moving_averages(y.double(), (2001, 3))
    _, actual = moving_averages(y, (2001, 3))
    # cumulative sums of 4000 steps reach about 200
    assert (actual - expected).abs().max() <= 200 * torch.finfo(y.dtype).eps


def test_moving_average_of_16_bits_is_rounded_once() -> None:
    y = (10 + torch.randn(3, 336)).bfloat16()
    (exact,) = moving_averages(y.double(), (25,))
    assert torch.equal(moving_averages(y, (25,))[0], exact.bfloat16())


def test_decomposition_linear_starts_near_zero() -> None:
    """The first forecast is the mean of the history, whatever its shape."""
    y = torch.randn(100, 30)
    mask = torch.ones_like(y, dtype=torch.bool)
    output = DecompositionLinear(30, 4, (5, 3))(y, mask).sum(-1)
    assert output.abs().mean() < 0.05


def test_fold_puts_steps_of_a_patch_side_by_side() -> None:
    x = torch.arange(2 * 6 * 5).view(2, 6, 5)
    folded = fold(x, 3)
    assert folded.shape == (2, 2, 15)
    for patch in range(2):
        for step in range(3):
            part = folded[:, patch, 5 * step : 5 * step + 5]
            assert torch.equal(part, x[:, 3 * patch + step])
    assert torch.equal(unfold(folded, 3), x)
