"""Checks of the forms and the layer before mlstm_speed.py times them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from _speed_bench import our_layer, sequence
from torch import Tensor

from pytorch_forecasting_mlstm.layers.functional import mlstm_recurrent, mLSTMState

Form = Callable[..., tuple[Tensor, mLSTMState]]


class Shape(NamedTuple):
    """Sizes of a problem, and the offset of its input gates."""

    B: int
    NH: int
    T: int
    K: int
    V: int
    offset: float = 0.0


AWKWARD = [
    Shape(1, 1, 1, 1, 1),
    Shape(3, 2, 33, 3, 5),
    Shape(2, 3, 63, 4, 1, offset=-20.0),
    Shape(2, 1, 130, 16, 16, offset=3.0),
    Shape(1100, 2, 32, 2, 1),  # several batch tiles
    Shape(1, 2, 1100, 4, 4),  # long chunks
]
# Largest error as a fraction of 1 + the largest magnitude. A gate's gradient sums over all later
# steps, hence a few thousand roundings.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}
NAMES = ("h", "c", "n", "m", *(f"gradient of {x}" for x in "q k v log_i log_f c n m".split()))


def require_correct(fast: Form, device: torch.device, shapes: Sequence[Shape] = AWKWARD) -> None:
    """Exit unless values and gradients of a form match those of the recurrent form."""
    for dtype, tolerance in TOLERANCE.items():
        for shape in shapes:
            inputs = draw_problem(shape, dtype, device)
            results = (with_gradients(form, inputs) for form in (fast, mlstm_recurrent))
            for name, actual, expected in zip(NAMES, *results, strict=True):
                scale = 1 + expected.abs().max()
                error = ((actual - expected).abs().max() / scale).item()
                if not error <= tolerance:  # also true of NaN
                    raise SystemExit(
                        f"The fast form is wrong, nothing is timed: {name} of {shape} in {dtype} "
                        f"has a relative error of {error:.1e}, expected at most {tolerance:.0e}."
                    )


def require_correct_layer(device: torch.device) -> None:
    """Exit unless the layer and its gradients match a loop over its cell."""
    for dtype, tolerance in TOLERANCE.items():
        for T, hidden, layer_norm in ((70, 32, False), (130, 64, True), (33, 12, True)):
            torch.manual_seed(T)
            layer = our_layer(hidden, device, layer_norm).to(dtype)
            x = sequence(T, 3, hidden, device).to(dtype).detach().requires_grad_()
            state = tuple(part[0] for part in layer.init_hidden(3))
            steps = []
            for step in x:
                state = layer.cells[0](step, *state)
                steps.append(state[0])
            slow, fast = torch.stack(steps), layer(x)[0]
            inputs = [x, *layer.parameters()]
            results = (
                [h, *torch.autograd.grad(h, inputs, torch.ones_like(h))] for h in (fast, slow)
            )
            for actual, expected in zip(*results, strict=True):
                error = ((actual - expected).abs().max() / (1 + expected.abs().max())).item()
                if not error <= tolerance:
                    raise SystemExit(
                        f"The layer is wrong, nothing is timed: {T} steps of {hidden} units in "
                        f"{dtype} have a relative error of {error:.1e}, expected at most "
                        f"{tolerance:.0e}."
                    )


def draw_problem(shape: Shape, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Draw q, k, v, the logarithms of both gates, and a state."""
    B, NH, T, K, V, offset = shape
    generator = torch.Generator().manual_seed(T)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    inputs = [
        draw(B, NH, T, K),
        draw(B, NH, T, K) / math.sqrt(K),
        draw(B, NH, T, V),
        draw(B, NH, T) + offset,
        F.logsigmoid(2 * draw(B, NH, T) + 3),
        draw(B, NH, V, K),
        draw(B, NH, K),
        draw(B, NH),
    ]
    return [x.to(device, dtype).requires_grad_() for x in inputs]


def with_gradients(form: Form, inputs: list[Tensor]) -> list[Tensor]:
    """Return h, the last state, and the gradients of all inputs."""
    h, state = form(*inputs[:5], mLSTMState(*inputs[5:]))
    outputs = [h, *state]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    return [x.detach() for x in (*outputs, *torch.autograd.grad(outputs, inputs, weights))]


def naive_chunkwise(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor
) -> tuple[Tensor, mLSTMState]:
    """Compute the chunkwise form from an empty memory in a straightforward way.

    q, k (B, NH, T, K), v (B, NH, T, V), gates (B, NH, T); N chunks of L steps. This is a typical
    first implementation: no loop, and autograd derives the backward pass.
    """
    T, V = v.shape[2:]
    L = min(T, 32 if T <= 1024 else 64)
    N = -(-T // L)
    pad = N * L - T
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (N, L)) for x in (q, k, v))
    log_i = F.pad(log_i, (0, pad), value=-torch.inf).unflatten(2, (N, L))
    log_f = F.pad(log_f, (0, pad)).unflatten(2, (N, L))
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)  # the last column gives the normalizer

    # b_j: log decay of the memory that enters the chunk, at step j; D_jl: that of step l at step j
    b = log_f.cumsum(-1)
    future = torch.ones(L, L, dtype=torch.bool, device=q.device).triu(1)
    D = b[..., :, None] - b[..., None, :] + log_i[..., None, :]
    D = D.masked_fill(future, -torch.inf)

    # what every chunk adds to the memory
    mu = D[..., -1, :].amax(-1)
    updates = (v * (D[..., -1, :] - mu[..., None]).exp()[..., None]).mT @ k  # (B, NH, N, V+1, K)

    # the memory after each chunk, and the memory that enters it
    g = log_f.sum(-1).cumsum(-1)
    later = torch.ones(N, N, dtype=torch.bool, device=q.device).triu(1)
    carry = (g[..., :, None] - g[..., None, :] + mu[..., None, :]).masked_fill(later, -torch.inf)
    m = carry.amax(-1)
    memory = ((carry - m[..., None]).exp() @ updates.flatten(-2)).unflatten(-1, updates.shape[-2:])
    memory_in = F.pad(memory[:, :, :-1], (0, 0, 0, 0, 1, 0))
    m_in = F.pad(m[..., :-1], (1, 0), value=-1e30)

    log_decay_in = b + m_in[..., None]
    m_read = torch.maximum(D.amax(-1), log_decay_in).clamp_min(0)
    intra_chunk = ((q @ k.mT) * (D - m_read[..., None]).exp()) @ v
    inter_chunk = (q * (log_decay_in - m_read).exp()[..., None]) @ memory_in.mT
    read = intra_chunk + inter_chunk
    h = read[..., :V] / torch.maximum(read[..., V].abs(), (-m_read).exp())[..., None]
    h = h.flatten(2, 3)[:, :, :T]
    return h, mLSTMState(memory[:, :, -1, :V], memory[:, :, -1, V], m[..., -1])


def require_correct_naive_form(device: torch.device) -> None:
    """Exit unless the naive form is correct, too: otherwise the comparison would mean nothing."""
    q, k, v, log_i, log_f, *_ = draw_problem(Shape(2, 2, 75, 3, 5), torch.float64, device)
    actual, expected = (
        form(q, k, v, log_i, log_f)[0] for form in (naive_chunkwise, mlstm_recurrent)
    )
    if not torch.allclose(actual, expected, atol=1e-11):
        raise SystemExit("The naive chunkwise form is wrong, nothing is timed.")
