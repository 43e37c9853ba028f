"""Instance statistics, against a computation sample by sample."""

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.ragged import LENGTHS, ragged
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.models.base.link import Link
from pytorch_forecasting_mlstm.models.base.scales.table import ReferenceScales
from pytorch_forecasting_mlstm.models.mlstm_time.instance_norm import (
    InstanceStatistics,
    TargetHistory,
    measure_instance,
)


def references(
    series: list[float | None], median: float = 1.0, smallest: float = 1.0
) -> ReferenceScales:
    """References of samples whose series have these scales, None if they are unknown."""
    return ReferenceScales(
        torch.tensor([[scale or 0.0] for scale in series], dtype=torch.float64),
        torch.tensor([[scale is not None] for scale in series]),
        torch.tensor(median, dtype=torch.float64),
        torch.tensor(smallest, dtype=torch.float64),
    )


def statistics_of(
    values: Tensor,
    reference: ReferenceScales,
    *,
    scale: float = 1.0,
    center: float = 0.0,
    link: Link = Link.AFFINE,
    normalize: bool = True,
) -> InstanceStatistics:
    """Statistics of complete histories."""
    mask = torch.ones_like(values, dtype=torch.bool)
    target_scale = values.new_tensor([[center, scale]]).expand(len(values), 2)
    return measure_instance(
        TargetHistory(values, values, mask),
        target_scale,
        reference.to(values.dtype),
        link,
        normalize,
    )


@pytest.mark.parametrize("link", [Link.AFFINE, Link.SCALE, Link.LOG_RATE])
def test_measure_instance_reads_valid_steps_only(link: Link) -> None:
    series, raw, mask = ragged(7, right=True)
    target_scale = torch.tensor(
        [[2.0, 4.0], [-1.0, 0.5], [0.0, 3.0], [5.0, 2.0]], dtype=torch.float64
    )
    y = ((raw - target_scale[:, :1]) / target_scale[:, 1:]).masked_fill(~mask, 0)
    statistics = measure_instance(
        TargetHistory(raw, raw, mask), target_scale, references([None] * 4), link, normalize=True
    )
    for row, values in enumerate(series):
        data_center, data_scale = target_scale[row].numpy()
        z = (values - data_center) / data_scale
        center = z.mean() if len(z) else 0.0
        scale = 1.0 if len(z) < 2 else z.std()
        if link is Link.SCALE:  # there is no center, only the mean magnitude
            center, scale = 0.0, np.abs(z).mean() if len(z) else 1.0
        if link is Link.LOG_RATE:
            expected_target_scale = [np.log(np.abs(values).mean()) if len(z) else 0.0, 1.0]
        else:
            expected_target_scale = [data_center + data_scale * center, data_scale * scale]
        assert_close(statistics.center[row, 0], torch.tensor(center, dtype=torch.float64))
        assert_close(statistics.scale[row, 0], torch.tensor(scale, dtype=torch.float64))
        assert_close(
            statistics.target_scale[row], torch.tensor(expected_target_scale, dtype=torch.float64)
        )
        normalized = statistics.normalize(y)[row, mask[row]]
        assert_close(normalized, torch.from_numpy((z - center) / scale))


def test_measure_instance_turned_off_keeps_the_target_scale() -> None:
    _, raw, mask = ragged(7)
    y = raw.masked_fill(~mask, 0)
    target_scale = torch.tensor([[2.0, 4.0]], dtype=torch.float64).expand(len(LENGTHS), 2)
    statistics = measure_instance(
        TargetHistory(raw, raw, mask), target_scale, references([None] * 4), Link.AFFINE, False
    )
    assert torch.equal(statistics.target_scale, target_scale)
    assert torch.equal(statistics.normalize(y), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1, 1234.567])
def test_measure_instance_of_a_constant_history_is_zero(level: float, dtype: torch.dtype) -> None:
    """Rounding may give a deviation, since the mean of many equal values may differ from them."""
    y = torch.full((1, 97), level, dtype=dtype)
    statistics = statistics_of(y, references([None]))
    assert statistics.scale.item() == 1
    assert not statistics.varies.item()
    assert statistics.normalize(y).abs().max() <= 1e-5 * level


def test_measure_instance_keeps_a_small_deviation() -> None:
    """A deviation of 1e-4 relative to a level of 1000, in float32."""
    y = 1000 + 0.1 * torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    statistics = statistics_of(y, references([None]))
    assert abs(statistics.scale.item() - 0.1) < 1e-4  # the last bit of 1000 is 6e-5


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("epsilon", [1.2e-7, 2.3e-16])
@pytest.mark.parametrize(
    ("series", "level", "expected"),
    [
        pytest.param(5.0, 40.0, 5.0, id="series"),
        pytest.param(5.0, 0.0, 5.0, id="series at zero"),
        pytest.param(0.0, 40.0, 7.0, id="constant series, other series"),
        pytest.param(0.0, -3.0, 3.0, id="constant series, not above its level"),
        pytest.param(0.0, 0.0, 2.0, id="constant series at zero, least of the others"),
        pytest.param(None, 40.0, 7.0, id="unknown series, other series"),
    ],
)
def test_constant_history_borrows_a_scale(
    series: float | None, level: float, expected: float, epsilon: float, normalize: bool
) -> None:
    """The normalizer is one that is fitted to the history, so that its scale is an epsilon."""
    y = torch.full((1, 9), level, dtype=torch.float64)
    reference = references([series], median=7.0, smallest=2.0)
    statistics = statistics_of(y, reference, scale=epsilon, center=level, normalize=normalize)
    assert_close(statistics.target_scale, torch.tensor([[level, expected]], dtype=torch.float64))
    # what the dataset makes of a lag that differs by one expected scale is one
    lag = torch.tensor([[expected / epsilon]], dtype=torch.float64)
    assert_close(statistics.normalize(lag), torch.ones(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("normalize", [True, False])
def test_constant_history_of_an_unknown_series_keeps_the_scale_of_the_normalizer(
    normalize: bool,
) -> None:
    y = torch.full((1, 9), 40.0, dtype=torch.float64)
    reference = references([None], median=7.0)
    statistics = statistics_of(y, reference, scale=3.0, center=1.0, normalize=normalize)
    assert statistics.target_scale[0, 1].item() == 3


@pytest.mark.parametrize("scale", [1.0, 1.2e-7])
def test_history_that_hardly_varies_has_a_tenth_of_the_scale_of_its_series(scale: float) -> None:
    y = torch.zeros(3, 10, dtype=torch.float64)
    y[:, 3] = 1e-3
    y[1] *= 1e4  # its deviation of 3 is above a tenth of 5
    reference = references([5.0, 5.0, None])
    statistics = statistics_of(y, reference, scale=scale)
    expected = torch.stack([y.new_tensor(0.5), *y[1:].std(1, correction=0)])
    assert_close(statistics.target_scale[:, 1], expected)


@pytest.mark.parametrize(("series", "expected"), [(5.0, 5.0), (0.0, 2.0), (None, 2.0)])
@pytest.mark.parametrize("link", [Link.SCALE, Link.LOG_RATE])
def test_history_without_counts_borrows_a_rate(
    link: Link, series: float | None, expected: float
) -> None:
    y = torch.zeros(1, 9, dtype=torch.float64)
    reference = references([series], median=7.0, smallest=2.0)
    statistics = statistics_of(y, reference, scale=1.2e-7, link=link)
    target_scale = [0.0, expected] if link is Link.SCALE else [np.log(expected), 1.0]
    assert_close(statistics.target_scale, torch.tensor([target_scale], dtype=torch.float64))


def test_robust_scale_of_zero_is_replaced_without_instance_normalization() -> None:
    """Half of the values may be equal, so that the distance of the quartiles is zero."""
    y = torch.tensor([[0.0] * 9 + [4.0]], dtype=torch.float64)
    statistics = statistics_of(y, references([1.0]), scale=1.2e-7, normalize=False)
    assert_close(statistics.target_scale[0, 1], y.std(correction=0))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("series", "expected"), [(2e4, 2e4), (None, 7.0)])
def test_scale_that_is_rounding_is_replaced(
    series: float | None, expected: float, normalize: bool
) -> None:
    """In float32, twenty equal values of 651234.5 have a standard deviation of 0.06."""
    y = torch.full((1, 20), 651234.5, dtype=torch.float64)
    reference = references([series], median=7.0)
    statistics = statistics_of(y, reference, scale=0.06, center=651234.5, normalize=normalize)
    assert_close(statistics.target_scale[0, 1], torch.tensor(expected, dtype=torch.float64))


def test_scale_has_at_least_a_tenth_of_its_series_without_instance_normalization() -> None:
    """A robust normalizer adds an epsilon of 1e-3 to the quartiles' distance, which may be zero."""
    y = torch.tensor([[0.0] * 9 + [4.0]], dtype=torch.float64)
    small, large = (
        statistics_of(y, references([5.0]), scale=scale, normalize=False).target_scale[0, 1].item()
        for scale in (9.8e-4, 3.0)
    )
    assert small == pytest.approx(0.5)
    assert large == 3
