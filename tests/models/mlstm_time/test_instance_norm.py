"""Instance statistics, against a computation sample by sample."""

import numpy as np
import pytest
import torch

from helpers.ragged import LENGTHS, ragged
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.models.base.link import Link
from pytorch_forecasting_mlstm.models.mlstm_time.instance_norm import measure_instance


@pytest.mark.parametrize("link", [Link.AFFINE, Link.SCALE, Link.LOG_RATE])
def test_measure_instance_reads_valid_steps_only(link: Link) -> None:
    series, raw, mask = ragged(7, right=True)
    target_scale = torch.tensor(
        [[2.0, 4.0], [-1.0, 0.5], [0.0, 3.0], [5.0, 2.0]], dtype=torch.float64
    )
    y = ((raw - target_scale[:, :1]) / target_scale[:, 1:]).masked_fill(~mask, 0)
    statistics = measure_instance(
        y, raw.masked_fill(~mask, 0), mask, target_scale, link, normalize=True
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
    statistics = measure_instance(y, y, mask, target_scale, Link.AFFINE, normalize=False)
    assert torch.equal(statistics.target_scale, target_scale)
    assert torch.equal(statistics.normalize(y), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1, 1234.567])
def test_measure_instance_of_a_constant_history_has_scale_one(
    level: float, dtype: torch.dtype
) -> None:
    """Rounding may give a deviation, since the mean of many equal values may differ from them."""
    y = torch.full((1, 97), level, dtype=dtype)
    target_scale = torch.tensor([[0.0, 1.0]], dtype=dtype)
    mask = torch.ones(1, 97, dtype=torch.bool)
    statistics = measure_instance(y, y, mask, target_scale, Link.AFFINE, normalize=True)
    assert statistics.scale.item() == 1
    assert statistics.normalize(y).abs().max() <= 1e-5 * level


def test_measure_instance_keeps_a_small_deviation() -> None:
    """A deviation of 1e-4 relative to a level of 1000, in float32."""
    y = 1000 + 0.1 * torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    statistics = measure_instance(
        y, y, mask, torch.tensor([[0.0, 1.0]]), Link.AFFINE, normalize=True
    )
    assert abs(statistics.scale.item() - 0.1) < 1e-4  # the last bit of 1000 is 6e-5
