"""`randomize_length`: the distribution of pytorch-forecasting, and its stream of numbers too."""

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


def draw(concentrations: tuple[float, float], spare: int) -> np.ndarray:
    encoder, decoder, skipped = randomized_lengths(
        np.full(DRAWS, 3 + spare),
        np.full(DRAWS, 2),
        min_encoder_length=3,
        max_prediction_length=2,
        concentrations=concentrations,
    )
    assert (encoder + skipped == 3 + spare).all()  # the horizon is as long as it may be
    assert (decoder == 2).all()
    return encoder - 3


@pytest.mark.parametrize("concentrations", [(0.2, 0.05), (1.0, 1.0), (5.0, 2.0)])
@pytest.mark.parametrize("spare", [1, 7, 20])
def test_randomized_lengths_follow_the_rounded_beta_distribution(
    concentrations: tuple[float, float], spare: int
) -> None:
    def p_value(of: tuple[float, float]) -> float:
        """P-value of a chi-squared test against the cells of the distribution."""
        edges = (np.arange(spare + 2) - 0.5).clip(0, spare) / spare
        expected = np.diff(stats.beta(*of).cdf(edges)) * DRAWS
        counts = np.bincount(draw(concentrations, spare), minlength=spare + 1)
        kept = expected > 5
        expected = np.append(expected[kept], max(expected[~kept].sum(), 1e-9))
        counts = np.append(counts[kept], counts[~kept].sum())
        return float(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue)

    torch.manual_seed(0)
    assert p_value(concentrations) > 1e-3
    # The test can tell a distribution that is somewhat off.
    assert p_value((concentrations[0] * 1.3, concentrations[1])) < 1e-6


def test_randomized_lengths_of_loaders_follow_one_distribution() -> None:
    """One sample of each class, with different seeds."""
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
    """This makes even the stream of numbers equal; torch does not promise it."""
    torch.manual_seed(0)
    one_by_one = torch.stack([Beta(0.2, 0.05).sample() for _ in range(100)])
    torch.manual_seed(0)
    assert torch.equal(Beta(0.2, 0.05).sample((100,)), one_by_one)


def test_randomized_lengths_lengthen_the_horizon_by_what_the_history_loses() -> None:
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
