"""Dropout with fewer random numbers, against what dropout is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.dropout import MIN_NUMEL, Dropout

SIZE = (97, 43, 5)  # no multiple of four numbers


def drop(x: Tensor, p: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    result: Tensor = Dropout(p)(x)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_kept_elements_are_scaled_and_their_share_is_right(p: float, dtype: torch.dtype) -> None:
    x = torch.randn(400_001, dtype=dtype) + 3
    y = drop(x, p)
    kept = y != 0
    assert y.dtype == dtype
    assert_close(
        y[kept].double(), x[kept].double() / (1 - p), 1e-2 if dtype == torch.bfloat16 else 1e-6
    )
    deviation = (p * (1 - p) / len(x)) ** 0.5
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=5 * deviation)


def test_neighbors_are_independent() -> None:
    """Four elements share a random number: any two of them, and any two numbers."""
    kept = (drop(torch.ones(400_000), 0.3) != 0).double() - 0.7
    for distance in (1, 2, 3, 4, 5, 8):
        correlation = (kept[distance:] * kept[:-distance]).mean().item() / 0.21
        assert abs(correlation) < 5 / 400_000**0.5


def test_seed_decides_and_calls_differ() -> None:
    x = torch.ones(SIZE)
    first = drop(x, 0.4)
    assert_identical(drop(x, 0.4), first)
    assert not torch.equal(Dropout(0.4)(x), first)


def test_gradient_has_the_same_mask() -> None:
    x = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    y = drop(x, 0.4)
    weights = torch.randn(SIZE, dtype=torch.float64)
    (grad,) = torch.autograd.grad((y * weights).sum(), x)
    assert_close(grad, torch.where(y != 0, weights / 0.6, 0.0))


def test_memory_layout_does_not_matter() -> None:
    """A mask has the shape of its input, whatever the strides are."""
    for x in (torch.ones(SIZE).transpose(0, 2), torch.ones(SIZE[1:]).expand(SIZE)):
        y = drop(x, 0.4)
        assert y.shape == x.shape
        assert (y != 0).double().mean().item() == pytest.approx(0.6, abs=0.02)
    # in the order of the memory, which is faster
    assert_identical(
        drop(torch.ones(SIZE).transpose(0, 2), 0.4), drop(torch.ones(SIZE), 0.4).transpose(0, 2)
    )


def test_nan_is_not_hidden() -> None:
    assert drop(torch.full(SIZE, torch.nan), 0.5).isnan().all()


@pytest.mark.parametrize("p", [0.0, 1e-9])
def test_nothing_is_dropped(p: float) -> None:
    x = torch.randn(SIZE)
    assert_close(drop(x, p), x)


def test_probability_near_one_is_not_rounded() -> None:
    """The mean stays that of the input."""
    assert drop(torch.ones(10**7), 0.9999).mean().item() == pytest.approx(1, abs=0.15)


def test_probability_in_a_tensor() -> None:
    dropout = Dropout(0.5)
    dropout.p = torch.tensor(0.25)  # type: ignore[assignment]
    assert (dropout(torch.ones(40_000)) != 0).double().mean().item() == pytest.approx(
        0.75, abs=0.02
    )


def test_evaluation_mode_returns_the_input() -> None:
    x = torch.randn(SIZE)
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("size", [1, MIN_NUMEL - 1])
def test_small_inputs_are_dropped_by_torch(size: int) -> None:
    x = torch.ones(size)
    torch.manual_seed(0)
    expected = torch.nn.functional.dropout(x, 0.5)
    assert_identical(drop(x, 0.5), expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # raised by vmap
def test_transforms_draw_for_every_sample() -> None:
    x = torch.ones(2, *SIZE)
    y = torch.func.vmap(Dropout(0.5), randomness="different")(x)
    assert not torch.equal(y[0], y[1])
