"""Draws with a seed of their own: those of torch's generator, which stays as it is."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    ImplicitQuantileNetworkDistributionLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
)
from torch import distributions
from torch.utils.data import DataLoader

from helpers.datasets import QUIET, make_dataset, make_table
from helpers.models import SMALL
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.models.base.seeded_draws import SeededDraws, seed_loader

ONE = torch.ones(5)
DRAWS: dict[str, Callable[[], torch.Tensor]] = {
    "normal": lambda: distributions.Normal(0 * ONE, ONE).sample((3,)),
    "beta": lambda: distributions.Beta(ONE, 2 * ONE).rsample((3,)),
    "negative binomial": lambda: distributions.NegativeBinomial(2 * ONE, logits=ONE).sample((3,)),
    "multivariate": lambda: distributions.MultivariateNormal(ONE, torch.eye(5)).sample((3,)),
    "uniform": lambda: torch.rand(3),
    "in place": lambda: torch.empty(3, dtype=torch.int64).random_(),
    "permutation": lambda: torch.randperm(7),
    "classes": lambda: torch.multinomial(ONE, 2),
}


def global_states() -> list[Any]:
    numpy_state: Any = np.random.get_state()
    return [torch.get_rng_state().tolist(), numpy_state[1].tolist(), random.getstate()]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_equal_those_of_a_seeded_global_generator(draw: Callable[[], torch.Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = [draw(), draw()]
    before = global_states()
    with SeededDraws(3):
        actual = [draw(), draw()]
    assert global_states() == before
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_inner_seed_counts(draw: Callable[[], torch.Tensor]) -> None:
    """A plot fixes the seed, and predicts, which does so as well."""
    with SeededDraws(3):
        expected = draw()
    with SeededDraws(4):
        outer = draw()
    with SeededDraws(4):
        with SeededDraws(3):
            assert torch.equal(draw(), expected)
        assert torch.equal(draw(), outer)


def test_a_generator_that_is_passed_is_used() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    with SeededDraws(0):
        assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(5)), expected)


def test_threads_do_not_share_draws() -> None:
    def draw(seed: int) -> torch.Tensor:
        with SeededDraws(seed):
            return torch.stack([torch.randn(7) for _ in range(50)])

    expected = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number, drawn in enumerate(pool.map(draw, [0, 1, 2, 3] * 8)):
            assert torch.equal(drawn, expected[number % 4])


@spread(
    "loss, mode",
    {
        type(loss).__name__: loss
        for loss in (
            NormalDistributionLoss(),
            NegativeBinomialDistributionLoss(),
            ImplicitQuantileNetworkDistributionLoss([0.1, 0.5, 0.9]),
            MultivariateNormalDistributionLoss(),
        )
    },
    ["prediction", "quantiles"],
)
def test_predict_repeats_and_leaves_the_global_state(loss: Any, mode: str) -> None:
    target = "count" if isinstance(loss, NegativeBinomialDistributionLoss) else "y"
    normalizer = EncoderNormalizer(center=target != "count")
    dataset = make_dataset(
        target=target, time_varying_unknown_reals=[target], target_normalizer=normalizer
    )
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    before = global_states()
    first = model.predict(dataset, mode=mode, batch_size=16, trainer_kwargs={**QUIET})
    assert global_states() == before
    torch.rand(1)
    again = model.predict(dataset, mode=mode, batch_size=16, trainer_kwargs={**QUIET})
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", [TimeSeriesDataSet, BatchedTimeSeriesDataSet])
def test_predict_repeats_histories_that_are_shortened_at_random(kind: Any) -> None:
    dataset = make_dataset(make_table(), randomize_length=True, min_encoder_length=2)
    dataset = BatchedTimeSeriesDataSet.wrap(dataset) if kind is not TimeSeriesDataSet else dataset
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    before = global_states()
    first = model.predict(dataset, return_x=True, trainer_kwargs={**QUIET})
    assert global_states() == before
    assert first.x["encoder_lengths"].unique().numel() > 1
    again = model.predict(dataset, return_x=True, trainer_kwargs={**QUIET})
    assert torch.equal(first.x["encoder_lengths"], again.x["encoder_lengths"])
    assert torch.equal(first.output, again.output)


@pytest.mark.filterwarnings("ignore:Your `predict_dataloader`'s sampler has shuffling enabled")
def test_a_shuffled_loader_keeps_its_sampler_and_the_global_state() -> None:
    dataset = make_dataset()
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    loader = dataset.to_dataloader(train=True, batch_size=16)
    samplers = loader.sampler, loader.batch_sampler, loader.generator
    before = global_states()
    first, again = (
        model.predict(loader, return_index=True, trainer_kwargs={**QUIET}) for _ in range(2)
    )
    assert global_states() == before
    assert (loader.sampler, loader.batch_sampler, loader.generator) == samplers
    assert not first.index.t.equals(first.index.t.sort_values())
    assert first.index.equals(again.index)
    assert torch.equal(first.output, again.output)


def test_a_loader_keeps_generators_that_it_was_given() -> None:
    generator = torch.Generator().manual_seed(9)
    loader: DataLoader[int] = DataLoader(range(9), shuffle=True, generator=generator)  # type: ignore[arg-type]
    seeded = seed_loader(loader)
    assert seeded.generator is seeded.sampler.generator is generator  # type: ignore[attr-defined]
