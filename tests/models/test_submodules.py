"""The parts of mLSTMTime, each against a computation written apart from it, sample by sample."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting import GroupNormalizer, MultiNormalizer, NaNLabelEncoder
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.layers import SeriesDecomposition
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    CrossEntropy,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting_mlstm.models.mlstm_time.linear_paths import (
    COMPONENTS,
    DecompositionLinear,
    moving_average,
)
from torch import Tensor

from helpers.datasets import configured, make_dataset
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.models.base.losses.factory import (
    Link,
    clone_loss,
    link_of,
    loss_output_size,
    primary_metrics,
    rescale,
    resolve_loss,
    target_normalizers,
)
from pytorch_forecasting_mlstm.models.base.padding import (
    align_right,
    fold,
    unfold,
    valid_steps,
)
from pytorch_forecasting_mlstm.models.mlstm_time.defaults import (
    default_moving_averages,
    default_patch_length,
)
from pytorch_forecasting_mlstm.models.mlstm_time.instance_norm import measure_instance
from pytorch_forecasting_mlstm.models.mlstm_time.submodules import FeatureSelector, PatchEmbedding
from pytorch_forecasting_mlstm.models.mlstm_time.targets import (
    CategoricalTargetEncoder,
    RealTargetEncoder,
)

LENGTHS = torch.tensor([5, 3, 1, 0])


def ragged(size: int, right: bool = False) -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Draw a series for each of ``LENGTHS``; return them, as one tensor, and its valid steps.

    NaN stands where nothing is valid.
    """
    rng = np.random.default_rng(0)
    series = [10 + 3 * rng.normal(size=length) for length in LENGTHS]
    joined = torch.full((len(LENGTHS), size), torch.nan, dtype=torch.float64)
    for row, values in enumerate(series):
        start = size - len(values) if right else 0
        joined[row, start : start + len(values)] = torch.from_numpy(values)
    return series, joined, ~joined.isnan()


# Alignment


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("size", [5, 8])
def test_valid_steps_are_as_many_as_the_length_at_one_end(size: int, right: bool) -> None:
    _, _, expected = ragged(size, right)
    assert torch.equal(valid_steps(LENGTHS, size, right=right), expected)


@pytest.mark.parametrize("size", [5, 7, 9])
@pytest.mark.parametrize("given", [5, 6])
@pytest.mark.parametrize("features", [(), (2,), (2, 3)])
def test_align_right_moves_the_valid_steps_to_the_end(
    features: tuple[int, ...], given: int, size: int
) -> None:
    x = torch.arange(len(LENGTHS) * given * int(np.prod(features))).view(-1, given, *features)
    moved = align_right(x, LENGTHS, size)
    assert moved.shape == (len(LENGTHS), size, *features)
    for row, length in enumerate(LENGTHS):
        assert torch.equal(moved[row, size - length :], x[row, :length])


def test_align_right_makes_room_when_no_step_is_given() -> None:
    moved = align_right(torch.ones(2, 0, 3), torch.zeros(2, dtype=torch.long), 4)
    assert moved.shape == (2, 4, 3)


def test_fold_puts_the_steps_of_a_patch_side_by_side() -> None:
    x = torch.arange(2 * 6 * 5).view(2, 6, 5)
    folded = fold(x, 3)
    assert folded.shape == (2, 2, 15)
    for patch in range(2):
        for step in range(3):
            part = folded[:, patch, 5 * step : 5 * step + 5]
            assert torch.equal(part, x[:, 3 * patch + step])
    assert torch.equal(unfold(folded, 3), x)


# Inputs


def test_step_features_selects_columns_by_name_and_appends_embeddings() -> None:
    reals = torch.randn(2, 3, 4)
    embedded = {"a": torch.randn(2, 3, 2), "b": torch.randn(2, 3, 1), "c": torch.randn(2, 3, 5)}
    widths = {"a": 2, "b": 1, "c": 5}
    features = FeatureSelector(["z", "x"], ["c", "a"], ["w", "x", "y", "z"], widths)
    assert features.size == 9
    expected = torch.cat([reals[..., [3, 1]], embedded["c"], embedded["a"]], dim=-1)
    assert torch.equal(features(reals, embedded), expected)


def test_a_token_is_a_linear_map_of_its_valid_steps_and_their_marks() -> None:
    tokens = PatchEmbedding(step_size=2, patch_length=3, hidden_size=4).double()
    features = torch.randn(len(LENGTHS), 6, 2, dtype=torch.float64)
    mask = valid_steps(LENGTHS, 6, right=True)
    got, got_mask = tokens(features.masked_fill(~mask[..., None], torch.nan), mask)
    weight, bias = (part.detach().numpy() for part in tokens.projection.parameters())
    for row in range(len(LENGTHS)):
        for patch in range(2):
            steps = range(3 * patch, 3 * patch + 3)
            flat = np.concatenate(
                [[*features[row, t], 1.0] if mask[row, t] else [0.0] * 3 for t in steps]
            )
            assert_close(got[row, patch], torch.from_numpy(weight @ flat + bias))
            assert got_mask[row, patch] == any(mask[row, t] for t in steps)


# Instance scale


@pytest.mark.parametrize("link", [Link.AFFINE, Link.SCALE, Link.LOG_RATE])
def test_instance_scale_is_that_of_the_valid_steps(link: Link) -> None:
    series, raw, mask = ragged(7, right=True)
    host = torch.tensor([[2.0, 4.0], [-1.0, 0.5], [0.0, 3.0], [5.0, 2.0]], dtype=torch.float64)
    y = ((raw - host[:, :1]) / host[:, 1:]).masked_fill(~mask, 0)
    scale = measure_instance(y, raw.masked_fill(~mask, 0), mask, host, link, normalize=True)
    for row, values in enumerate(series):
        host_center, host_scale = host[row].numpy()
        z = (values - host_center) / host_scale
        center = z.mean() if len(z) else 0.0
        spread = 1.0 if len(z) < 2 else z.std()
        if link is Link.SCALE:  # no center; the mean size is all that there is
            center, spread = 0.0, np.abs(z).mean() if len(z) else 1.0
        if link is Link.LOG_RATE:
            folded = [np.log(np.abs(values).mean()) if len(z) else 0.0, 1.0]
        else:
            folded = [host_center + host_scale * center, host_scale * spread]
        assert_close(scale.center[row, 0], torch.tensor(center, dtype=torch.float64))
        assert_close(scale.scale[row, 0], torch.tensor(spread, dtype=torch.float64))
        assert_close(scale.target_scale[row], torch.tensor(folded, dtype=torch.float64))
        normalized = scale.normalize(y)[row, mask[row]]
        assert_close(normalized, torch.from_numpy((z - center) / spread))


def test_instance_scale_that_is_off_leaves_the_hosts() -> None:
    _, raw, mask = ragged(7)
    y = raw.masked_fill(~mask, 0)
    host = torch.tensor([[2.0, 4.0]], dtype=torch.float64).expand(len(LENGTHS), 2)
    scale = measure_instance(y, y, mask, host, Link.AFFINE, normalize=False)
    assert torch.equal(scale.target_scale, host)
    assert torch.equal(scale.normalize(y), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1, 1234.567])
def test_constant_history_says_nothing_about_scale(level: float, dtype: torch.dtype) -> None:
    """Even where rounding leaves a deviation, as the mean of many equal values may differ."""
    y = torch.full((1, 97), level, dtype=dtype)
    host = torch.tensor([[0.0, 1.0]], dtype=dtype)
    mask = torch.ones(1, 97, dtype=torch.bool)
    scale = measure_instance(y, y, mask, host, Link.AFFINE, normalize=True)
    assert scale.scale.item() == 1
    assert scale.normalize(y).abs().max() <= 1e-5 * level


def test_small_but_true_deviation_is_not_taken_for_rounding() -> None:
    """A tenth of a per mille around 1000, in float32."""
    y = 1000 + 0.1 * torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    scale = measure_instance(y, y, mask, torch.tensor([[0.0, 1.0]]), Link.AFFINE, normalize=True)
    assert abs(scale.scale.item() - 0.1) < 1e-4  # the last bit of 1000 is 6e-5


# Linear paths


def moving_average_of(y: np.ndarray, width: int) -> np.ndarray:
    """Average over ``width`` steps around each, the longer half ahead; the ends are repeated."""
    left, right = (width - 1) // 2, width // 2
    padded = np.concatenate([np.full(left, y[0]), y, np.full(right, y[-1])])
    return np.array([padded[t : t + width].mean() for t in range(len(y))])


@pytest.mark.parametrize("widths", [(1, 1), (2, 1), (3, 3), (4, 2), (25, 4)])
def test_linear_paths_map_three_bands_of_the_unpadded_history(widths: tuple[int, int]) -> None:
    paths = DecompositionLinear(7, 4, widths).double()
    with torch.no_grad():
        for parameter in paths.parameters():
            parameter.normal_()
    series, y, mask = ragged(7, right=True)
    got = paths(y.masked_fill(~mask, 0), mask)
    for row, values in enumerate(series):
        bands = np.zeros((3, len(values)))
        if len(values):
            trend, smooth = (moving_average_of(values, width) for width in widths)
            bands = np.stack([trend, smooth - trend, values - smooth])
        for band, name, found in zip(bands, COMPONENTS, got[row].T, strict=True):
            weights = getattr(paths, name).weight.detach().numpy()
            assert_close(found, torch.from_numpy(weights[:, 7 - len(values) :] @ band))


@pytest.mark.parametrize("steps", [1, 2, 5, 24, 25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", [1, 7, 336])
def test_moving_average_is_that_of_the_host(steps: int, length: int, dtype: torch.dtype) -> None:
    y = torch.randn(3, length, dtype=dtype)
    _, expected = SeriesDecomposition(steps)(y.double()[..., None])
    got = moving_average(y, steps)
    assert got.dtype == dtype
    # running sums of 360 steps of size 1 reach some 40, whose last digit is divided by the steps
    precision = 40 * torch.finfo(dtype).eps
    assert (got - expected[..., 0]).abs().max() <= precision


@pytest.mark.parametrize("steps", [3, 25, 171])
def test_moving_average_of_a_high_level_keeps_the_digits_of_its_input(steps: int) -> None:
    y = 1e6 + torch.randn(3, 512)
    expected = moving_average(y.double(), steps)
    # three roundings at a level of 1e6: of the mean, of the difference from it, of the result
    assert (moving_average(y, steps) - expected).abs().max() <= 3 * 1e6 * torch.finfo(y.dtype).eps


def test_moving_average_of_16_bits_loses_no_more_than_its_output_does() -> None:
    y = (10 + torch.randn(3, 336)).bfloat16()
    exact = moving_average(y.double(), 25)
    assert torch.equal(moving_average(y, 25), exact.bfloat16())


def test_linear_paths_start_near_zero() -> None:
    """The first forecast is the mean of the history, whatever that looks like."""
    y = torch.randn(100, 30)
    mask = torch.ones_like(y, dtype=torch.bool)
    first = DecompositionLinear(30, 4, (5, 3))(y, mask).sum(-1)
    assert first.abs().mean() < 0.05


# Targets


def test_real_target_is_transformed_normalized_and_masked() -> None:
    series, raw, mask = ragged(7, right=True)
    normalizer = TorchNormalizer(transformation="log")
    target = RealTargetEncoder(normalizer, MAE(), 7, 4, (5, 3), 1, normalize=True).double()
    host = torch.tensor([[2.0, 0.4]]).expand(len(LENGTHS), 2)  # in float32, as loaders give it
    past = target(raw, mask, host)
    for row, values in enumerate(series):
        z = (np.log(values) - 2.0) / np.float64(np.float32(0.4))
        spread = z.std() if len(z) > 1 else 1.0
        expected = np.zeros(7)
        expected[7 - len(z) :] = (z - z.mean()) / spread if len(z) else 0
        assert_close(past.features[row, :, 0], torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("loss", "gain"),
    [(QuantileLoss([0.1, 0.5, 0.9]), [1.0, 1, 1]), (NormalDistributionLoss(), [1.0, 0])],
    ids=["point or quantiles", "location of a distribution"],
)
def test_linear_paths_start_as_every_number_or_as_a_location(loss: Any, gain: list[float]) -> None:
    _, raw, mask = ragged(7, right=True)
    target = RealTargetEncoder(
        TorchNormalizer(), loss, 7, 4, (5, 3), len(gain), normalize=True
    ).double()
    past = target(raw, mask, torch.tensor([[10.0, 3.0]]).expand(len(LENGTHS), 2))
    line = target.linear(past.features[..., 0], mask)
    assert_close(past.paths, torch.stack([line * each for each in gain], dim=-2))


def test_categorical_target_embeds_its_classes_and_maps_each_alike() -> None:
    target = CategoricalTargetEncoder(
        classes=3, history=3, horizon=2, moving_averages=(1, 1), width=None
    )
    # a moving average of one step is the step itself: all is trend
    with torch.no_grad():
        target.linear.trend.weight.copy_(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 3.0]]))
    raw = torch.tensor([[0, 2, 1], [2, 2, 0]])
    past = target(raw, torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 2))
    assert torch.equal(past.features, target.embedding.weight[raw])
    assert past.features.shape[-1] == target.size
    assert past.scale is None
    # of each class the weights of the steps at which the target was of it
    expected = torch.tensor([[[1.0, 4, 2], [0, 3, 0]], [[4.0, 0, 3], [3, 0, 0]]])
    # the running sums of the averages round: some digits of numbers up to 7
    assert (past.paths[..., 0] - expected).abs().max() < 1e-5
    assert past.paths[..., 1:].abs().max() < 1e-5


# Losses


@pytest.mark.parametrize(
    ("loss", "link"),
    [
        (MAE(), Link.AFFINE),
        (MASE(), Link.AFFINE),
        (QuantileLoss(), Link.AFFINE),
        (NormalDistributionLoss(), Link.AFFINE),
        (PoissonLoss(), Link.LOG_RATE),
        (TweedieLoss(), Link.LOG_RATE),
        (NegativeBinomialDistributionLoss(), Link.SCALE),
        (CrossEntropy(), Link.CLASSES),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_link_says_how_the_loss_goes_to_the_data(loss: Any, link: Link) -> None:
    assert link_of(loss) is link


@pytest.mark.parametrize(
    ("loss", "size"),
    [
        (MAE(), 1),
        (QuantileLoss([0.1, 0.5, 0.9]), 3),
        (NormalDistributionLoss(), 2),
        (MultivariateNormalDistributionLoss(rank=5), 7),
        (NegativeBinomialDistributionLoss(), 2),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_output_size_is_what_the_loss_takes(loss: Any, size: int) -> None:
    assert loss_output_size(loss, GroupNormalizer()) == size


def test_output_size_of_a_categorical_target_is_its_number_of_classes() -> None:
    normalizer = configured("categorical target").target_normalizer
    assert loss_output_size(CrossEntropy(), normalizer) == 3


def test_losses_and_normalizers_are_listed_by_target() -> None:
    mae, smape, rmse = MAE(), SMAPE(), RMSE()
    assert primary_metrics(mae) == [mae]
    assert primary_metrics(MultiLoss([mae, rmse])) == [mae, rmse]
    assert primary_metrics(smape + rmse) == [smape]
    assert primary_metrics(MultiLoss([smape + rmse, mae])) == [smape, mae]
    one, two = GroupNormalizer(), TorchNormalizer()
    assert target_normalizers(one) == [one]
    assert target_normalizers(MultiNormalizer([one, two])) == [one, two]


def test_default_loss_follows_the_kind_of_every_target() -> None:
    assert isinstance(resolve_loss(configured("no covariates")), MAE)
    assert isinstance(resolve_loss(configured("categorical target")), CrossEntropy)
    for name, kinds in (
        ("two targets", [MAE, MAE]),
        ("mixed targets", [MAE, CrossEntropy]),
        ("list of one target", [MAE]),
        ("list of one categorical target", [CrossEntropy]),
    ):
        loss = resolve_loss(configured(name))
        assert isinstance(loss, MultiLoss)
        assert [type(part) for part in loss.metrics] == kinds


def test_one_loss_for_several_targets_is_copied_for_each() -> None:
    loss = NormalDistributionLoss(quantiles=[0.1, 0.9])
    chosen = resolve_loss(configured("two targets"), loss)
    assert [part.quantiles for part in chosen.metrics] == [[0.1, 0.9]] * 2
    assert len({id(part) for part in (loss, *chosen.metrics)}) == 3


def test_several_losses_in_a_list_are_one_for_each_target() -> None:
    chosen = resolve_loss(configured("two targets"), [MAPE(), QuantileLoss()])
    assert [type(part) for part in chosen.metrics] == [MAPE, QuantileLoss]


@pytest.mark.parametrize(
    "make",
    [
        MAE,
        NormalDistributionLoss,
        lambda: SMAPE() + MAE(),
        lambda: MultiLoss([MAE(), SMAPE() + RMSE()]),
    ],
    ids=["point", "distribution", "composite", "multi"],
)
def test_fresh_loss_copies_a_loss_that_holds_a_graph(make: Any) -> None:
    loss = make()
    several = isinstance(loss, MultiLoss)
    weight = torch.ones(2, 3, 4 if isinstance(loss, NormalDistributionLoss) else 1)
    weight.requires_grad_()
    truth = torch.ones(2, 3)
    if isinstance(loss, NormalDistributionLoss):
        loss._transformation = None
    loss([weight * 2] * 2 if several else weight * 2, ([truth] * 2 if several else truth, None))
    copy = clone_loss(loss)
    assert type(copy) is type(loss)
    assert copy is not loss


def test_rates_are_rescaled_without_the_normalizer() -> None:
    output, scale = torch.randn(2, 3, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    got = rescale(PoissonLoss(), output, scale, GroupNormalizer(transformation="relu"))
    assert torch.equal(got[0], 2 * output[0] + 1)
    assert torch.equal(got[1], 4 * output[1] + 3)


# Sizes


@pytest.mark.parametrize("steps", [*range(1, 600, 7), 63, 64, 511, 512, 4096])
def test_default_patch_is_the_largest_that_leaves_enough_tokens(steps: int) -> None:
    allowed = [patch for patch in (2, 4, 8, 16) if steps // patch >= 32]
    assert default_patch_length(steps) == max(allowed, default=1)


@pytest.mark.parametrize("steps", range(1, 600, 7))
def test_default_averages_leave_three_bands(steps: int) -> None:
    trend, smooth = default_moving_averages(steps)
    assert trend > smooth > 1
    assert trend % 2 == smooth % 2 == 1
    assert trend <= max(steps / 2, 5)


def test_whole_numbers_that_are_labels_are_classes() -> None:
    """NaNLabelEncoder of a target decides its kind, not the dtype of its column."""
    dataset = make_dataset(
        target="whole",
        time_varying_unknown_reals=[],
        target_normalizer=NaNLabelEncoder(),
    )
    assert isinstance(resolve_loss(dataset), CrossEntropy)
