r"""The mLSTM recurrence as pure functions: one step, step by step, and chunk by chunk.

Per head, with query and key of size K and value of size V [1]_::

    C_t = f_t C_{t-1} + i_t v_t k_tᵀ          (V, K)   the matrix memory
    n_t = f_t n_{t-1} + i_t k_t               (K)      the normalizer
    h_t = C_t q_t / max(|n_tᵀ q_t|, 1)        (V)      the read-out

Gates come in as logarithms. Memory and normalizer are kept divided by ``exp(m)``, where ``m`` is
the running maximum of the logarithmic weights, so that nothing overflows for any finite gate.

Dimensions, everywhere: B batch, NH heads, T time, K key, V value; inside the chunkwise form also
N chunks and L steps of a chunk.

Where this differs from the paper and from other implementations:

1. The denominator has no epsilon: ``max(|nᵀq|, 1)`` is never zero.
2. The empty memory has ``m = -inf`` in the paper's sense; a large negative finite number stands
   for it, so that no form ever computes ``inf - inf``. All forms therefore agree to rounding.
3. The read-out never divides by ``exp(m)`` of a negative ``m``: gates of -50 at every step give
   the tiny numbers they should, with finite gradients.
4. q·k is not scaled here: the caller scales k by ``1/√K``.
5. A NaN or infinity in k, v or a gate makes the read-outs of its sample and head NaN from its step
   on, and reaches nothing before it. One in q makes that step's read-out NaN.
6. Finite inputs give finite results or an error: where q·k, v kᵀ or what is read overflows, which
   in float32 takes numbers of about 1e19 and more, the functions raise a ``ValueError``.

References
----------
.. [1] M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, equations 19
   to 27.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...._validation import check_int
from .ops.autocast import autocast_disabled
from .ops.autograd import chunkwise_operator
from .ops.chunkwise.decay import is_factorable
from .ops.chunkwise.recurrence import ChunkwiseFunction
from .ops.chunkwise.tiling import compiled_chunk_size, default_chunk_size
from .ops.cpp import (
    ChunkwiseKernel,
    kernel_supports,
)
from .ops.execution import is_compiling, is_eager_on_cpu
from .ops.naive import (
    LOG_EMPTY,
    divide_by_normalizer,
    segsum,
)
from .ops.overflow import raise_on_overflow

__all__ = [
    "mLSTMState",
    "mlstm_chunkwise",
    "mlstm_read_weights",
    "mlstm_recurrent",
    "mlstm_step",
]


class mLSTMState(NamedTuple):
    """The memory of every head, stabilized.

    The true memory is ``c * exp(m)``, the true normalizer ``n * exp(m)``.

    Attributes
    ----------
    c : Tensor
        Matrix memory, (B, NH, V, K).
    n : Tensor
        Normalizer, (B, NH, K).
    m : Tensor
        Logarithm of the scale that ``c`` and ``n`` were divided by, (B, NH). ``-inf`` is read as
        "empty".
    """

    c: Tensor
    n: Tensor
    m: Tensor


def mlstm_step(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: mLSTMState
) -> tuple[Tensor, mLSTMState]:
    """Take one time step.

    Parameters
    ----------
    q, k : Tensor
        Query and key, (B, NH, K). Scaling k by ``1/√K`` is the caller's.
    v : Tensor
        Value, (B, NH, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gate, (B, NH). ``log_i = -inf, log_f = 0`` leaves the state
        as it is.
    state : mLSTMState
        The state before the step.

    Returns
    -------
    h : Tensor
        Read-out before the output gate, (B, NH, V), in the dtype of ``v``.
    state : mLSTMState
        The state after the step, float32 or wider.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not floating point, ranks or sizes do not fit together, or finite inputs are
        so large that their products overflow (on the CPU; elsewhere the results are inf or NaN).

    Examples
    --------
    >>> import torch
    >>> q = k = torch.tensor([[[1.0, 0.0]]])
    >>> v = torch.tensor([[[5.0, 6.0, 7.0]]])
    >>> empty = mLSTMState(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 2), torch.zeros(1, 1))
    >>> h, state = mlstm_step(q, k, v, torch.zeros(1, 1), torch.zeros(1, 1), empty)
    >>> h
    tensor([[[5., 6., 7.]]])
    """
    _check("mlstm_step", q, k, v, log_i, log_f, state, sequence=False)
    out_dtype = v.dtype
    with autocast_disabled(q.device):
        q, k, v, log_i, log_f, state = _widen(q, k, v, log_i, log_f, state)
        h, last = _step(q, k, v, log_i, log_f, state)
    return _finite("mlstm_step", h.to(out_dtype), last, q, k, v, log_i, log_f, state)


def mlstm_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    state: mLSTMState | None = None,
) -> tuple[Tensor, mLSTMState]:
    """Run a sequence step by step: slow, readable, the reference for :func:`mlstm_chunkwise`.

    Parameters
    ----------
    q, k : Tensor
        Queries and keys, (B, NH, T, K). Scaling k by ``1/√K`` is the caller's.
    v : Tensor
        Values, (B, NH, T, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T). Steps with ``log_i = -inf, log_f = 0``
        leave the state exactly as it is: that is how padding is masked.
    state : mLSTMState, optional
        State to start from. Default: an empty memory.

    Returns
    -------
    h : Tensor
        Read-out before the output gate, (B, NH, T, V), in the dtype of ``v``.
    state : mLSTMState
        State after the last step, float32 or wider.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not floating point, ranks or sizes do not fit together, or finite inputs are
        so large that their products overflow (on the CPU; elsewhere the results are inf or NaN).

    Examples
    --------
    >>> import torch
    >>> q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    >>> h, state = mlstm_recurrent(q, k, v, torch.zeros(2, 4, 7), torch.zeros(2, 4, 7))
    >>> h.shape, state.c.shape
    (torch.Size([2, 4, 7, 8]), torch.Size([2, 4, 8, 8]))
    """
    _check("mlstm_recurrent", q, k, v, log_i, log_f, state, sequence=True)
    out_dtype = v.dtype
    with autocast_disabled(q.device):
        q, k, v, log_i, log_f, state = _widen(q, k, v, log_i, log_f, state)
        h, last = [], state
        for t in range(q.shape[2]):
            h_t, last = _step(
                q[:, :, t], k[:, :, t], v[:, :, t], log_i[:, :, t], log_f[:, :, t], last
            )
            h.append(h_t)
        stacked = torch.stack(h, dim=2) if h else torch.zeros_like(v)
    return _finite("mlstm_recurrent", stacked.to(out_dtype), last, q, k, v, log_i, log_f, state)


def mlstm_chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    state: mLSTMState | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, mLSTMState]:
    r"""Run a whole sequence chunk by chunk, without a loop over its steps.

    The numbers are those of :func:`mlstm_recurrent`.

    The sequence is cut into chunks of L steps. Inside a chunk the outputs are a masked L×L product,
    as in attention. Across the chunks of a span, of which there are at most 64, the memories that
    enter each chunk are one lower-triangular matrix of decays times the chunks' summaries; from
    span to span the state is carried. Time and memory grow linearly with T.

    Parameters
    ----------
    q, k : Tensor
        Queries and keys, (B, NH, T, K). Scaling k by ``1/√K`` is the caller's.
    v : Tensor
        Values, (B, NH, T, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T). Steps with ``log_i = -inf, log_f = 0``
        leave the state exactly as it is: that is how padding is masked.
    state : mLSTMState, optional
        State to start from. Default: an empty memory.
    chunk_size : int, optional
        Steps per chunk, L. It changes speed and memory, never the result. Default: chosen from the
        sizes.

    Returns
    -------
    h : Tensor
        Read-out before the output gate, (B, NH, T, V), in the dtype of ``v``.
    state : mLSTMState
        State after the last step, float32 or wider.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not floating point, ranks or sizes do not fit together, ``chunk_size`` is
        below 1, or finite inputs are so large that their products overflow (on the CPU; elsewhere
        the results are inf or NaN).

    Examples
    --------
    A sequence can be cut anywhere, with the state carried over:

    >>> import torch
    >>> q, k, v = torch.randn(3, 2, 4, 70, 8).unbind(0)
    >>> log_i, log_f = torch.randn(2, 4, 70), torch.nn.functional.logsigmoid(torch.randn(2, 4, 70))
    >>> whole, _ = mlstm_chunkwise(q, k, v, log_i, log_f)
    >>> inputs = (q, k, v, log_i, log_f)
    >>> first, state = mlstm_chunkwise(*(x[:, :, :50] for x in inputs))
    >>> second, _ = mlstm_chunkwise(*(x[:, :, 50:] for x in inputs), state)
    >>> torch.allclose(whole, torch.cat([first, second], dim=2), atol=1e-5)
    True
    """
    _check("mlstm_chunkwise", q, k, v, log_i, log_f, state, sequence=True)
    if chunk_size is not None:
        check_int("mlstm_chunkwise", "chunk_size", chunk_size)
    out_dtype = v.dtype
    with autocast_disabled(q.device):
        q, k, v, log_i, log_f, state = _widen(q, k, v, log_i, log_f, state)
        if v.numel() == 0:  # no steps or no samples
            return v.to(out_dtype), state
        T, K = q.shape[2:]
        if chunk_size is None and is_eager_on_cpu(q) and kernel_supports(q, K) and v.shape[-1] == K:
            h, c, n, m = ChunkwiseKernel.apply(q, k, v, log_i, log_f, *state)
        elif is_compiling():
            h, c, n, m = _compiled(
                q, k, v, log_i, log_f, state, chunk_size or compiled_chunk_size(K)
            )
        else:
            size = min(chunk_size or default_chunk_size(T, K), T)
            factored = is_eager_on_cpu(q) and is_factorable(log_i, log_f, size)
            h, c, n, m, *_ = ChunkwiseFunction.apply(q, k, v, log_i, log_f, *state, size, factored)
        last = mLSTMState(c, n, m)
    return _finite("mlstm_chunkwise", h.to(out_dtype), last, q, k, v, log_i, log_f, state)


def _compiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    state: mLSTMState,
    L: int,
) -> tuple[Tensor, ...]:
    """Run a sequence, filled up to whole chunks, by the operator for ``torch.compile``."""
    T = q.shape[2]
    pad = -T % L
    q, k, v = (F.pad(x, (0, 0, 0, pad)) for x in (q, k, v))
    log_i, log_f = F.pad(log_i, (0, pad), value=-torch.inf), F.pad(log_f, (0, pad))
    h, c, n, m, *_ = chunkwise_operator(q, k, v, log_i, log_f, *state, L)
    return h[:, :, :T], c, n, m


def mlstm_read_weights(q: Tensor, k: Tensor, log_i: Tensor, log_f: Tensor) -> Tensor:
    r"""Return the mLSTM in attention form: how much of each step's value each step reads.

    From an empty memory, ``h = W v`` with ::

        W_jl = exp(log f_{l+1} + … + log f_j + log i_l) (q_jᵀ k_l) / max(|n_jᵀ q_j|, 1)

    for l ≤ j, and 0 for l > j [1]_. The weights of a step may be negative, and need not sum to 1.

    Parameters
    ----------
    q, k : Tensor
        Queries and keys, (B, NH, T, K). Scaling k by ``1/√K`` is the caller's.
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T).

    Returns
    -------
    weights : Tensor
        (B, NH, T, T), float32 or wider: first the step that reads, then the step that is read.
        Time and memory grow with T²: this is for looking inside, not for training.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not floating point, ranks or sizes do not fit together, or finite inputs are
        so large that their products overflow (on the CPU; elsewhere the results are inf or NaN).

    References
    ----------
    .. [1] M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, appendix A.3.

    Examples
    --------
    >>> import torch
    >>> q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    >>> log_i, log_f = torch.randn(2, 4, 7), torch.nn.functional.logsigmoid(torch.randn(2, 4, 7))
    >>> h, _ = mlstm_recurrent(q, k, v, log_i, log_f)
    >>> torch.allclose(mlstm_read_weights(q, k, log_i, log_f) @ v, h, atol=1e-5)
    True
    """
    _check("mlstm_read_weights", q, k, k, log_i, log_f, None, sequence=True)
    with autocast_disabled(q.device):
        q, k, _, log_i, log_f, _ = _widen(q, k, k, log_i, log_f, None)
        log_weights = segsum(log_f.clamp_min(LOG_EMPTY)) + log_i[..., None, :]
        # nothing above the diagonal, whatever the later steps hold
        later = torch.ones_like(log_weights, dtype=torch.bool).triu(1)
        log_weights = log_weights.masked_fill(later, -torch.inf)
        # h does not depend on the scale it is computed at
        m = log_weights.detach().amax(-1).clamp_min(0)
        weights = (q @ k.mT).masked_fill(later, 0.0) * torch.exp(log_weights - m[..., None])
        weights = divide_by_normalizer(weights, weights.sum(-1), m)
        inputs = {"q": q, "k": k, "log_i": log_i, "log_f": log_f}
        raise_on_overflow("mlstm_read_weights", (weights,), lambda: inputs)
        return weights


def _step(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: mLSTMState
) -> tuple[Tensor, mLSTMState]:
    m = torch.maximum(log_f + state.m, log_i).clamp_min(LOG_EMPTY)
    i = torch.exp(log_i - m)[..., None]
    f = torch.exp(log_f + state.m - m)[..., None]
    c = f[..., None] * state.c + (i * v)[..., :, None] * k[..., None, :]
    n = f * state.n + i * k
    # m is negative where all gates are small: read at a scale of 1 there
    m_read = m.clamp_min(0)
    scaled_q = q * torch.exp(m - m_read)[..., None]
    numerator = (c @ scaled_q[..., None])[..., 0]
    normalizer = (n * scaled_q).sum(-1)
    return divide_by_normalizer(numerator, normalizer, m_read), mLSTMState(c, n, m)


def _finite(
    caller: str,
    h: Tensor,
    last: mLSTMState,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    first: mLSTMState,
) -> tuple[Tensor, mLSTMState]:
    """Return the results, unless finite inputs have overflowed on the way to them."""
    raise_on_overflow(
        caller,
        (h, *last),
        lambda: {
            "q": q,
            "k": k,
            "v": v,
            "log_i": log_i,
            "log_f": log_f,
            "state.c": first.c,
            "state.n": first.n,
            "state.m": first.m,
        },
    )
    return h, last


def _widen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    state: mLSTMState | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, mLSTMState]:
    """Bring everything to one dtype, float32 or wider; no state is the empty memory."""
    tensors = [q, k, v, log_i, log_f]
    dtype = torch.float32
    for x in tensors if state is None else [*tensors, *state]:
        dtype = torch.promote_types(dtype, x.dtype)
    q, k, v, log_i, log_f = (x.to(dtype) for x in tensors)
    if state is None:
        B, NH, K = q.shape[0], q.shape[1], q.shape[-1]
        state = mLSTMState(
            q.new_zeros(B, NH, v.shape[-1], K),
            q.new_zeros(B, NH, K),
            q.new_full((B, NH), LOG_EMPTY),
        )
    else:
        c, n, m = (x.to(dtype) for x in state)
        state = mLSTMState(c, n, m.clamp_min(LOG_EMPTY))
    return q, k, v, log_i, log_f, state


def _check(
    who: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    state: mLSTMState | None,
    *,
    sequence: bool,
) -> None:
    """Refuse tensors that do not fit together, with the shapes expected and got."""
    named = {"q": q, "k": k, "v": v, "log_i": log_i, "log_f": log_f}
    if state is not None:
        if not isinstance(state, mLSTMState):
            raise TypeError(f"{who}: state must be an mLSTMState, got {type(state).__name__}.")
        named.update({f"state.{name}": x for name, x in zip("cnm", state, strict=True)})
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: {name} must be a tensor, got {type(x).__name__}.")
        if not x.is_floating_point():
            raise TypeError(f"{who}: {name} must be floating point, got {x.dtype}.")
        if x.device != q.device:
            raise ValueError(f"{who}: {name} is on {x.device}, q on {q.device}; move one of them.")
    steps = "T, " if sequence else ""
    rank = 4 if sequence else 3
    if q.dim() != rank or v.dim() != rank:
        raise ValueError(
            f"{who}: q and k must be (B, NH, {steps}K) and v (B, NH, {steps}V), "
            f"got q {tuple(q.shape)} and v {tuple(v.shape)}."
        )
    K, V = q.shape[-1], v.shape[-1]
    lead = q.shape[:-1]
    expected = {"q": (*lead, K), "k": (*lead, K), "v": (*lead, V), "log_i": lead, "log_f": lead}
    if state is not None:
        B, NH = q.shape[:2]
        expected.update({"state.c": (B, NH, V, K), "state.n": (B, NH, K), "state.m": (B, NH)})
    for name, x in named.items():
        if tuple(x.shape) != tuple(expected[name]):
            raise ValueError(
                f"{who}: {name} must be {tuple(expected[name])} to fit q {tuple(q.shape)} and "
                f"v {tuple(v.shape)}, got {tuple(x.shape)}."
            )
        if name.startswith("state.") and x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{who}: {name} must be float32 or float64, got {x.dtype}.")
