"""`randomize_length` draws from the distribution of pytorch-forecasting, with the same numbers."""

import numpy as np
import pytest
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from scipy import stats
from torch.distributions import Beta

from helpers.batched_configurations import Configuration, panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.data.windows import randomized_lengths

DRAWS = 40_000


def draw(concentrations: tuple[float, float], max_extra: int) -> np.ndarray:
    encoder, decoder, skipped = randomized_lengths(
        np.full(DRAWS, 3 + max_extra),
        np.full(DRAWS, 2),
        min_encoder_length=3,
        max_prediction_length=2,
        concentrations=concentrations,
    )
    assert (encoder + skipped == 3 + max_extra).all()  # the horizon is as long as it may be
    assert (decoder == 2).all()
    return encoder - 3


@pytest.mark.parametrize("concentrations", [(0.2, 0.05), (1.0, 1.0), (5.0, 2.0)])
@pytest.mark.parametrize("max_extra", [1, 7, 20])
def test_randomized_lengths_follow_the_rounded_beta_distribution(
    concentrations: tuple[float, float], max_extra: int
) -> None:
    def p_value(expected_concentrations: tuple[float, float]) -> float:
        """Return the p-value of a chi-squared test against the rounded distribution."""
        edges = (np.arange(max_extra + 2) - 0.5).clip(0, max_extra) / max_extra
        expected = np.diff(stats.beta(*expected_concentrations).cdf(edges)) * DRAWS
        counts = np.bincount(draw(concentrations, max_extra), minlength=max_extra + 1)
        is_frequent = expected > 5  # the chi-squared test needs enough draws in every cell
        expected = np.append(expected[is_frequent], max(expected[~is_frequent].sum(), 1e-9))
        counts = np.append(counts[is_frequent], counts[~is_frequent].sum())
        return float(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue)

    torch.manual_seed(0)
    assert p_value(concentrations) > 1e-3
    # the test rejects a slightly different distribution
    assert p_value((concentrations[0] * 1.3, concentrations[1])) < 1e-6


def test_randomized_lengths_of_loaders_follow_one_distribution() -> None:
    """Both classes draw one sample of lengths, with different seeds."""
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


def test_beta_draws_are_the_same_one_by_one_or_at_once() -> None:
    """This makes the drawn numbers equal; torch does not guarantee it."""
    torch.manual_seed(0)
    one_by_one = torch.stack([Beta(0.2, 0.05).sample() for _ in range(100)])
    torch.manual_seed(0)
    assert torch.equal(Beta(0.2, 0.05).sample((100,)), one_by_one)


def test_randomized_lengths_extend_the_horizon_if_the_history_is_shortened() -> None:
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
