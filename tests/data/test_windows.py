"""`randomize_length`: the host's distribution, and its stream of random numbers too."""

import numpy as np
import pytest
import torch
from pytorch_forecasting.data import EncoderNormalizer, TimeSeriesDataSet
from scipy import stats
from torch.distributions import Beta

from helpers.batched_configurations import Configuration, panel
from helpers.batch_comparison import assert_identical
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.encoder_normalization import encoder_scales
from pytorch_forecasting_mlstm.data.windows import randomized_lengths

DRAWS = 40_000


def draw(concentrations: tuple[float, float], spare: int) -> np.ndarray:
    encoder, decoder, skipped = randomized_lengths(
        np.full(DRAWS, 3 + spare),
        np.full(DRAWS, 2),
        min_encoder_length=3,
        max_prediction_length=2,
        concentrations=concentrations,
    )
    assert (encoder + skipped == 3 + spare).all()  # the decoder is as long as it may be
    assert (decoder == 2).all()
    return encoder - 3


@pytest.mark.parametrize("concentrations", [(0.2, 0.05), (1.0, 1.0), (5.0, 2.0)])
@pytest.mark.parametrize("spare", [1, 7, 20])
def test_lengths_follow_the_rounded_beta_distribution(
    concentrations: tuple[float, float], spare: int
) -> None:
    def surprise(of: tuple[float, float]) -> float:
        """P-value of a chi-squared test against the cells of the distribution."""
        edges = (np.arange(spare + 2) - 0.5).clip(0, spare) / spare
        expected = np.diff(stats.beta(*of).cdf(edges)) * DRAWS
        counts = np.bincount(draw(concentrations, spare), minlength=spare + 1)
        kept = expected > 5
        expected = np.append(expected[kept], max(expected[~kept].sum(), 1e-9))
        counts = np.append(counts[kept], counts[~kept].sum())
        return float(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue)

    torch.manual_seed(0)
    assert surprise(concentrations) > 1e-3
    # The test can tell a distribution that is somewhat off.
    assert surprise((concentrations[0] * 1.3, concentrations[1])) < 1e-6


def test_loaders_draw_from_one_distribution() -> None:
    """Two samples, stock and batched, with different seeds."""
    configuration = Configuration(
        "long",
        lambda: dict(randomize_length=True, min_encoder_length=2, max_encoder_length=7),
        lambda: panel(lengths=(300,)),
    )
    counts = []
    for seed, cls in enumerate([TimeSeriesDataSet, BatchedTimeSeriesDataSet]):
        torch.manual_seed(seed)
        loader = configuration.build(cls).to_dataloader(train=True, batch_size=128)
        lengths = torch.cat([x["encoder_lengths"] for _ in range(4) for x, _ in loader])
        counts.append(torch.bincount(lengths, minlength=8).numpy())
    table = np.stack(counts)
    assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3
    assert (table > 0).sum() > 8


def test_one_draw_of_many_is_many_draws_of_one() -> None:
    """What makes even the stream equal; torch does not promise it."""
    torch.manual_seed(0)
    one_by_one = torch.stack([Beta(0.2, 0.05).sample() for _ in range(100)])
    torch.manual_seed(0)
    assert torch.equal(Beta(0.2, 0.05).sample((100,)), one_by_one)


def test_decoder_takes_over_what_the_encoder_gives_up() -> None:
    encoder, decoder, skipped = randomized_lengths(
        np.array([10, 10, 2]),
        np.array([1, 4, 4]),
        min_encoder_length=2,
        max_prediction_length=4,
        concentrations=(1e-6, 1e6),  # always as short as possible
    )
    assert encoder.tolist() == [2, 2, 2]
    assert decoder.tolist() == [4, 4, 4]
    assert skipped.tolist() == [8, 8, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["standard", "robust"])
def test_encoders_are_only_read(method: str, dtype: torch.dtype) -> None:
    values = torch.rand(4, 12, dtype=dtype)
    kept = values.clone()
    normalizer = EncoderNormalizer(method=method)
    scales = encoder_scales(normalizer, values, np.array([8] * 4))
    assert torch.equal(values, kept)
    for row, scale in zip(values, scales, strict=True):
        fitted = EncoderNormalizer(method=method).fit(row[:8])
        assert torch.equal(scale, fitted.get_parameters().to(dtype))


@pytest.mark.parametrize("method", ["standard", "robust"])
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_encoders_of_different_lengths_with_numbers_that_are_not_finite(
    method: str, odd: float
) -> None:
    """They count in the encoder that holds them, and not behind its end."""
    values, lengths = torch.rand(4, 12), np.array([5, 8, 11, 3])
    values[1, 4] = values[2, 11] = values[3, 3:] = odd
    scales = encoder_scales(EncoderNormalizer(method=method), values, lengths)
    fitted = [
        EncoderNormalizer(method=method).fit(row[:length]).get_parameters()
        for row, length in zip(values, lengths, strict=True)
    ]
    assert_identical(scales, torch.stack(fitted))
    untouched = method == "robust" and odd == torch.inf  # one of eight, no quantile
    assert bool(scales[1].isfinite().all()) is untouched
    assert scales[[0, 2, 3]].isfinite().all()
