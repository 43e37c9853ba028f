"""Random inputs of the sequence forms, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import mLSTMState

Form = Callable[..., tuple[Tensor, mLSTMState]]


class Problem(NamedTuple):
    """The inputs of a form: five sequences, and the three parts of the state."""

    q: Tensor  # (B, NH, T, K)
    k: Tensor  # (B, NH, T, K)
    v: Tensor  # (B, NH, T, V)
    log_i: Tensor  # (B, NH, T)
    log_f: Tensor  # (B, NH, T)
    c: Tensor  # (B, NH, V, K)
    n: Tensor  # (B, NH, K)
    m: Tensor  # (B, NH)

    @property
    def state(self) -> mLSTMState:
        return mLSTMState(self.c, self.n, self.m)

    def span(self, start: int | None, stop: int | None) -> tuple[Tensor, ...]:
        """Return the sequences between two times."""
        return tuple(part[:, :, start:stop] for part in self[:5])

    def replace(self, **parts: Any) -> Problem:
        return self._replace(**parts)


def make_problem(
    T: int, B: int = 2, offset: float = 0.0, dtype: torch.dtype = torch.float64
) -> Problem:
    """Draw a problem with NH = 2, K = 3, V = 5; ``offset`` opens (+) or closes (-) the input gate.

    With an offset of 0, both sides of ``max(|nᵀq|, 1)`` occur.
    """
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(T), dtype=torch.float64)
    problem = Problem(
        q=draw(B, 2, T, 3),
        k=draw(B, 2, T, 3),
        v=draw(B, 2, T, 5),
        log_i=draw(B, 2, T) + offset,
        log_f=torch.nn.functional.logsigmoid(2 * draw(B, 2, T) + 2),
        c=draw(B, 2, 5, 3),
        n=draw(B, 2, 3),
        m=draw(B, 2),
    )
    return Problem(*(part.to(dtype) for part in problem))


def with_gradients(form: Form, problem: Problem, outputs: str = "hcnm") -> tuple[Any, Any]:
    """Return (h, c, n, m), and the gradients of a random combination of them."""
    problem = Problem(*(part.detach().clone().requires_grad_() for part in problem))
    h, state = form(*problem[:5], problem.state)
    results = (h, *state)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum()
        for name, part in zip("hcnm", results, strict=True)
        if name in outputs
    )
    # m does not depend on q, k, v, c or n.
    grads = torch.autograd.grad(loss, problem, allow_unused=True)
    gradients = (
        torch.zeros_like(x) if g is None else g for x, g in zip(problem, grads, strict=True)
    )
    return tuple(part.detach() for part in results), Problem(*gradients)
