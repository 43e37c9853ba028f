"""Functions that several kernels share: the gates of a chunk, and the decays between its steps."""

import triton
import triton.language as tl

__all__ = ["add_up", "decays_between", "decays_to_end", "load_gates", "log_decays"]


#: A gate with a lower logarithm is closed: float32 would lose other gates in a sum with it.
LOG_CLOSED = tl.constexpr(-1e6)


@triton.jit
def load_gates(log_i, log_f, g, start, T, BT: tl.constexpr):
    """Return the logarithms of the gates of a chunk of sequence g, (BT) each; +inf becomes NaN."""
    steps = start + tl.arange(0, BT)
    inside = steps < T
    at = g.to(tl.int64) * T + steps
    i = tl.load(log_i + at, mask=inside, other=float("-inf"))
    f = tl.load(log_f + at, mask=inside, other=0.0)
    i = tl.where(i < float("inf"), i, float("nan"))
    return i, tl.where(f < float("inf"), f, float("nan"))


@triton.jit
def add_with_rest(a, a_rest, a_closed, b, b_rest, b_closed):
    """Return a + b, what that loses by rounding beside earlier losses, and the number of closed."""
    total = a + b
    of_b = total - a
    rest = (a - (total - of_b)) + (b - of_b)
    return total, rest + a_rest + b_rest, a_closed + b_closed


@triton.jit
def add_up(f):
    """Return the sums of open forget gates up to each step, (BT), their rests, and the closed ones.

    A difference of two sums has all digits with the difference of the rests. Closed gates
    are counted instead.
    """
    is_closed = f < LOG_CLOSED
    parts = (tl.where(is_closed, 0.0, f), tl.zeros_like(f), tl.where(is_closed, 1, 0))
    return tl.associative_scan(parts, 0, add_with_rest)


@triton.jit
def last_of(x, BT: tl.constexpr):
    """Return the last element of x (BT)."""
    return tl.sum(tl.where(tl.arange(0, BT) == BT - 1, x, 0), 0)


@triton.jit
def log_decays(sums, closed, BT: tl.constexpr):
    """Return the logarithm of the decay from the start of a chunk to each step, and to its end."""
    decays = tl.where(closed > 0, float("-inf"), sums)
    return decays, tl.where(last_of(closed, BT) > 0, float("-inf"), last_of(sums, BT))


@triton.jit
def decays_to_end(i, sums, rests, closed, BT: tl.constexpr):
    """Return the logarithm of the weight of each step after the chunk, (BT)."""
    weights = (last_of(sums, BT) - sums) + (last_of(rests, BT) - rests) + i
    return tl.where(closed == last_of(closed, BT), weights, float("-inf"))


@triton.jit
def decays_between(i, sums, rests, closed, BT: tl.constexpr):
    """Return D (BT, BT): the logarithm of the weight of step l after step j, -inf for l > j."""
    j = tl.arange(0, BT)[:, None]
    l = tl.arange(0, BT)[None, :]  # noqa: E741
    decays = (sums[:, None] - sums[None, :]) + (rests[:, None] - rests[None, :]) + i[None, :]
    return tl.where((j >= l) & (closed[:, None] == closed[None, :]), decays, float("-inf"))
