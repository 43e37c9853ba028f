"""Encoders of targets, against computations sample by sample."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    NormalDistributionLoss,
    QuantileLoss,
)

from helpers.ragged import LENGTHS, ragged
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.models.base.scales.table import ReferenceScales
from pytorch_forecasting_mlstm.models.mlstm_time.adapter import target_specs
from pytorch_forecasting_mlstm.models.mlstm_time.targets import (
    CategoricalTargetEncoder,
    RealTargetEncoder,
)

UNKNOWN = ReferenceScales(
    torch.zeros(()), torch.zeros((), dtype=torch.bool), torch.ones(()), torch.ones(())
)


def make_encoder(loss: Any, normalizer: TorchNormalizer, output_size: int) -> RealTargetEncoder:
    """Make the encoder of a real target, with a history of 7 steps and a horizon of 4."""
    (spec,) = target_specs("y", output_size, {}, loss, normalizer)
    return RealTargetEncoder(spec, 7, 4, (5, 3), normalize=True).double()


def test_real_target_encoder_transforms_normalizes_and_masks() -> None:
    series, raw, mask = ragged(7, right=True)
    normalizer = TorchNormalizer(transformation="log")
    encoder = make_encoder(MAE(), normalizer, 1)
    target_scale = torch.tensor([[2.0, 0.4]]).expand(len(LENGTHS), 2)  # float32, as in a batch
    encoded = encoder(raw, mask, mask, target_scale, UNKNOWN)
    for row, values in enumerate(series):
        z = (np.log(values) - 2.0) / np.float64(np.float32(0.4))
        scale = z.std() if len(z) > 1 else 1.0
        expected = np.zeros(7)
        expected[7 - len(z) :] = (z - z.mean()) / scale if len(z) else 0
        assert_close(encoded.features[row, :, 0], torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("loss", "gain"),
    [(QuantileLoss([0.1, 0.5, 0.9]), [1.0, 1, 1]), (NormalDistributionLoss(), [1.0, 0])],
    ids=["point or quantiles", "location of a distribution"],
)
def test_real_target_encoder_initializes_points_quantiles_or_a_location(
    loss: Any, gain: list[float]
) -> None:
    _, raw, mask = ragged(7, right=True)
    encoder = make_encoder(loss, TorchNormalizer(), len(gain))
    encoded = encoder(raw, mask, mask, torch.tensor([[10.0, 3.0]]).expand(len(LENGTHS), 2), UNKNOWN)
    components = encoder.linear(encoded.features[..., 0], mask)
    expected = torch.stack([components * factor for factor in gain], dim=-2)
    assert_close(encoded.components, expected)


def test_categorical_target_encoder_embeds_classes_and_shares_linear_maps() -> None:
    encoder = CategoricalTargetEncoder(
        num_classes=3, embedding_size=2, history=3, horizon=2, moving_averages=(1, 1)
    )
    # a moving average of one step is the step, so that all is trend
    with torch.no_grad():
        encoder.linear.trend.weight.copy_(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 3.0]]))
    raw = torch.tensor([[0, 2, 1], [2, 2, 0]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    encoded = encoder(raw, mask, mask, torch.zeros(2, 2), UNKNOWN)
    assert torch.equal(encoded.features, encoder.embedding.weight[raw])
    assert encoded.features.shape[-1] == encoder.size
    assert encoded.statistics is None
    # for each class, the weights of the steps at which the target had that class
    expected = torch.tensor([[[1.0, 4, 2], [0, 3, 0]], [[4.0, 0, 3], [3, 0, 0]]])
    # the cumulative sums of the averages are rounded, and numbers reach 7
    assert (encoded.components[..., 0] - expected).abs().max() < 1e-5
    assert encoded.components[..., 1:].abs().max() < 1e-5
