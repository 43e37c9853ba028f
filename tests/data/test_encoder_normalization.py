"""Scales of histories, against a normalizer that is fitted to every history."""

import numpy as np
import pytest
import torch
from pytorch_forecasting.data import EncoderNormalizer

from helpers.batch_comparison import assert_scales_close
from pytorch_forecasting_mlstm.data.encoder_normalization import encoder_scales


@pytest.mark.parametrize(
    "normalizer",
    [
        EncoderNormalizer(),
        EncoderNormalizer(max_length=4),
        EncoderNormalizer(max_length=[3, 6]),
        EncoderNormalizer(max_length=[6, 3], transformation="log"),
        EncoderNormalizer(method="robust", max_length=[6, 3]),
        EncoderNormalizer(method="robust", method_kwargs=dict(lower=0.1, center=0.3, upper=0.7)),
    ],
    ids=str,
)
@pytest.mark.parametrize("equal", [True, False])
def test_encoder_scales_match_upstream_in_float64(
    normalizer: EncoderNormalizer, equal: bool
) -> None:
    values = torch.rand(7, 12, dtype=torch.float64) + 0.1
    lengths = np.array([11] * 7 if equal else [2, 11, 7, 7, 3, 10, 5])
    actual = encoder_scales(normalizer, values, lengths)
    for sample, length in enumerate(lengths.tolist()):
        expected = normalizer.fit(values[sample, :length]).get_parameters()
        torch.testing.assert_close(actual[sample], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["standard", "robust"])
def test_encoder_scales_do_not_change_the_values(method: str, dtype: torch.dtype) -> None:
    values = torch.rand(4, 12, dtype=dtype)
    before = values.clone()
    normalizer = EncoderNormalizer(method=method)
    scales = encoder_scales(normalizer, values, np.array([8] * 4))
    assert torch.equal(values, before)
    for row, scale in zip(values, scales, strict=True):
        expected = EncoderNormalizer(method=method).fit(row[:8]).get_parameters().to(dtype)
        if method == "robust":
            assert torch.equal(scale, expected)
        else:  # sums over a batch and over a vector may differ by rounding
            assert_scales_close(scale, expected)


@pytest.mark.parametrize("method", ["standard", "robust"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_encoder_scales_ignore_nonfinite_values_outside_the_history(
    method: str, value: float
) -> None:
    values, lengths = torch.rand(4, 12), np.array([5, 8, 11, 3])
    values[1, 4] = values[2, 11] = values[3, 3:] = value
    scales = encoder_scales(EncoderNormalizer(method=method), values, lengths)
    fitted = [
        EncoderNormalizer(method=method).fit(row[:length]).get_parameters()
        for row, length in zip(values, lengths, strict=True)
    ]
    expected = torch.stack(fitted)
    if method == "robust":
        torch.testing.assert_close(scales, expected, rtol=0, atol=0, equal_nan=True)
    else:
        assert_scales_close(scales, expected)
    # one infinity among eight values does not change their quantiles
    is_robust_to_value = method == "robust" and value == torch.inf
    assert bool(scales[1].isfinite().all()) is is_robust_to_value
    assert scales[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("lengths", [[0, 0], [0, 5], [1, 5]])
def test_encoder_scales_of_too_few_steps_are_nan(lengths: list[int]) -> None:
    scales = encoder_scales(EncoderNormalizer(), torch.rand(2, 6), np.array(lengths))
    assert scales[0, 1].isnan()
    assert bool(scales[0, 0].isnan()) is (lengths[0] == 0)
    assert scales[1].isfinite().all() == (lengths[1] > 0)


@pytest.mark.parametrize("lengths", [[0, 0], [0, 5]])
def test_encoder_scales_reject_quantiles_of_empty_histories(lengths: list[int]) -> None:
    with pytest.raises(RuntimeError, match="at least one step of history.*min_encoder_length=1"):
        encoder_scales(EncoderNormalizer(method="robust"), torch.rand(2, 6), np.array(lengths))


@pytest.mark.parametrize("lengths", [[5, 5], [5, 3]])
def test_encoder_scales_warn_about_small_scales(lengths: list[int]) -> None:
    with pytest.warns(UserWarning, match="scale is below 1e-7"):
        encoder_scales(
            EncoderNormalizer(), torch.zeros(2, 6, dtype=torch.float64), np.array(lengths)
        )
