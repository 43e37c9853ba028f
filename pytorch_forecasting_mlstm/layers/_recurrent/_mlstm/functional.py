r"""The mLSTM recurrence as pure functions: one step, step by step, and chunk by chunk.

Per head, with query and key of size K and value of size V [1]_::

    C_t = f_t C_{t-1} + i_t v_t k_tᵀ          (V, K)   the matrix memory
    n_t = f_t n_{t-1} + i_t k_t               (K)      the normalizer
    h_t = C_t q_t / max(|n_tᵀ q_t|, 1)        (V)      the read-out

Gates are passed as logarithms. Memory and normalizer are stored divided by ``exp(m)``, where ``m``
is the running maximum of the logarithmic weights, so that nothing overflows for any finite gate.

Dimensions, everywhere: B batch, NH heads, T time, K key, V value; inside the chunkwise form also
N chunks and L steps of a chunk.

Where this differs from the paper and from other implementations:

1. The denominator has no epsilon: ``max(|nᵀq|, 1)`` is never zero.
2. The ``m = -inf`` of an empty memory in the paper is a large negative finite number here, so no
   form computes ``inf - inf``. All forms therefore agree up to rounding.
3. The read-out never divides by ``exp(m)`` of a negative ``m``: gates of -50 at every step give
   tiny read-outs, as they should, with finite gradients.
4. q·k is not scaled here: the caller scales k by ``1/√K``.
5. A NaN or infinity in k, v or a gate makes the read-outs of its sample and head NaN from its step
   on, and does not affect earlier steps. One in q makes the read-out of its step NaN.
6. Finite inputs give finite results or an error: if q·k, v kᵀ or a read-out overflows, which takes
   numbers of about 1e19 or more in float32, the functions raise a ``ValueError``.
7. On CUDA devices, the kernels treat a forget gate whose logarithm is below -1e6 as closed. That
   changes results only if an earlier input gate has a logarithm of about 1e6 or more.

References
----------
.. [1] M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, equations 19
   to 27.
"""

import torch
from torch import Tensor

from ...._validation import check_int
from .input_check import check_recurrence_inputs
from .ops.autocast import autocast_disabled
from .ops.autograd import chunkwise, reads_16_bits
from .ops.execution import is_exporting
from .ops.naive import naive_step
from .ops.overflow import raise_on_overflow
from .ops.stabilization import LOG_EMPTY, divide_by_normalizer, segsum
from .ops.types import Inputs, at_least_float32, mLSTMState

__all__ = [
    "mLSTMState",
    "mlstm_chunkwise",
    "mlstm_read_weights",
    "mlstm_recurrent",
    "mlstm_step",
]


def mlstm_step(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: mLSTMState
) -> tuple[Tensor, mLSTMState]:
    """Take one time step.

    Parameters
    ----------
    q, k : Tensor
        Query and key, (B, NH, K). The caller scales k by ``1/√K``.
    v : Tensor
        Value, (B, NH, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gate, (B, NH). ``log_i = -inf, log_f = 0`` leaves the state
        unchanged.
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
        If a tensor is not floating point, ranks or sizes do not match, or finite inputs are
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
    inputs = Inputs(q, k, v, log_i, log_f)
    check_recurrence_inputs("mlstm_step", inputs, state, sequence=False)
    with autocast_disabled(q.device):
        inputs, state = _to_common_dtype(inputs, state)
        h, last = naive_step(inputs, state)
    return _checked_results("mlstm_step", h.to(v.dtype), last, inputs, state)


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
        Queries and keys, (B, NH, T, K). The caller scales k by ``1/√K``.
    v : Tensor
        Values, (B, NH, T, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T). Steps with ``log_i = -inf, log_f = 0``
        leave the state exactly unchanged, which masks padding.
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
        If a tensor is not floating point, ranks or sizes do not match, or finite inputs are
        so large that their products overflow (on the CPU; elsewhere the results are inf or NaN).

    Examples
    --------
    >>> import torch
    >>> q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    >>> h, state = mlstm_recurrent(q, k, v, torch.zeros(2, 4, 7), torch.zeros(2, 4, 7))
    >>> h.shape, state.c.shape
    (torch.Size([2, 4, 7, 8]), torch.Size([2, 4, 8, 8]))
    """
    inputs = Inputs(q, k, v, log_i, log_f)
    check_recurrence_inputs("mlstm_recurrent", inputs, state, sequence=True)
    with autocast_disabled(q.device):
        inputs, state = _to_common_dtype(inputs, state)
        if is_exporting():  # a graph has no loop over a variable number of steps
            h, last = chunkwise(inputs, state, None)
        else:
            outputs, last = [], state
            for t in range(q.shape[2]):
                h_t, last = naive_step(inputs.at(t), last)
                outputs.append(h_t)
            h = torch.stack(outputs, dim=2) if outputs else torch.zeros_like(inputs.v)
    return _checked_results("mlstm_recurrent", h.to(v.dtype), last, inputs, state)


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

    The results are those of :func:`mlstm_recurrent`.

    The sequence is split into chunks of L steps. Inside a chunk the outputs are a masked L×L
    product, as in attention. Within a span of at most 64 chunks, the states that enter the chunks
    are a lower-triangular matrix of decays times the states of the chunks. The state is carried
    over from span to span. Time and memory grow linearly with T.

    Parameters
    ----------
    q, k : Tensor
        Queries and keys, (B, NH, T, K). The caller scales k by ``1/√K``.
    v : Tensor
        Values, (B, NH, T, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T). Steps with ``log_i = -inf, log_f = 0``
        leave the state exactly unchanged, which masks padding. On CUDA devices, a forget gate with
        ``log_f < -1e6`` is closed.
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
        If a tensor is not floating point, ranks or sizes do not match, ``chunk_size`` is
        below 1, or finite inputs are so large that their products overflow (on the CPU; elsewhere
        the results are inf or NaN).

    Examples
    --------
    A sequence can be split anywhere, with the state carried over:

    >>> import torch
    >>> q, k, v = torch.randn(3, 2, 4, 70, 8).unbind(0)
    >>> log_i, log_f = torch.randn(2, 4, 70), torch.nn.functional.logsigmoid(torch.randn(2, 4, 70))
    >>> h, _ = mlstm_chunkwise(q, k, v, log_i, log_f)
    >>> inputs = (q, k, v, log_i, log_f)
    >>> first, state = mlstm_chunkwise(*(x[:, :, :50] for x in inputs))
    >>> second, _ = mlstm_chunkwise(*(x[:, :, 50:] for x in inputs), state)
    >>> torch.allclose(h, torch.cat([first, second], dim=2), atol=1e-5)
    True
    """
    inputs = Inputs(q, k, v, log_i, log_f)
    check_recurrence_inputs("mlstm_chunkwise", inputs, state, sequence=True)
    if chunk_size is not None:
        check_int("mlstm_chunkwise", "chunk_size", chunk_size)
    with autocast_disabled(q.device):
        narrow = inputs[:3] if v.numel() and reads_16_bits(inputs, chunk_size) else ()
        inputs, state = _to_common_dtype(inputs, state, *narrow)
        if v.numel() == 0:  # no steps or no samples
            return inputs.v.to(v.dtype), state
        h, last = chunkwise(inputs, state, chunk_size)
    return _checked_results("mlstm_chunkwise", h.to(v.dtype), last, inputs, state)


def mlstm_read_weights(q: Tensor, k: Tensor, log_i: Tensor, log_f: Tensor) -> Tensor:
    r"""Return the mLSTM in attention form: how much each step reads from the value of every step.

    From an empty memory, ``h = W v`` with ::

        W_jl = exp(log f_{l+1} + … + log f_j + log i_l) (q_jᵀ k_l) / max(|n_jᵀ q_j|, 1)

    for l ≤ j, and 0 for l > j [1]_. The weights of a step may be negative, and need not sum to 1.

    Parameters
    ----------
    q, k : Tensor
        Queries and keys, (B, NH, T, K). The caller scales k by ``1/√K``.
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T).

    Returns
    -------
    weights : Tensor
        (B, NH, T, T), float32 or wider: first the step that reads, then the step that is read.
        Time and memory grow with T²: this is for interpretation, not for training.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not floating point, ranks or sizes do not match, or finite inputs are
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
    inputs = Inputs(q, k, k, log_i, log_f)
    check_recurrence_inputs("mlstm_read_weights", inputs, None, sequence=True)
    with autocast_disabled(q.device):
        (q, k, _, log_i, log_f), _ = _to_common_dtype(inputs, None)
        log_weights = segsum(log_f.clamp_min(LOG_EMPTY)) + log_i[..., None, :]
        # 0 above the diagonal, whatever the values of later steps.
        later = torch.ones_like(log_weights, dtype=torch.bool).triu(1)
        log_weights = log_weights.masked_fill(later, -torch.inf)
        # h does not depend on the scale it is computed at.
        m = log_weights.detach().amax(-1).clamp_min(0)
        weights = (q @ k.mT).masked_fill(later, 0.0) * torch.exp(log_weights - m[..., None])
        weights = divide_by_normalizer(weights, weights.sum(-1), m)
        named = {"q": q, "k": k, "log_i": log_i, "log_f": log_f}
        raise_on_overflow("mlstm_read_weights", (weights,), lambda: named)
        return weights


def _to_common_dtype(
    inputs: Inputs, state: mLSTMState | None, *narrow: Tensor
) -> tuple[Inputs, mLSTMState]:
    """Convert everything to one dtype, float32 or wider; replace None by an empty memory.

    The first inputs are ``narrow``, unless float64 occurs: these are not converted.
    """
    dtype = at_least_float32(*(x.dtype for x in (*inputs, *(state or ()))))
    narrow = narrow if dtype == torch.float32 else ()
    inputs = Inputs(*narrow, *(x.to(dtype) for x in tuple(inputs)[len(narrow) :]))
    if state is not None:
        c, n, m = (x.to(dtype) for x in state)
        return inputs, mLSTMState(c, n, m.clamp_min(LOG_EMPTY))
    q, V = inputs.q, inputs.v.shape[-1]
    B, NH, K = q.shape[0], q.shape[1], q.shape[-1]
    c, n = q.new_zeros(B, NH, V, K, dtype=dtype), q.new_zeros(B, NH, K, dtype=dtype)
    return inputs, mLSTMState(c, n, q.new_full((B, NH), LOG_EMPTY, dtype=dtype))


def _checked_results(
    caller: str, h: Tensor, last: mLSTMState, inputs: Inputs, first: mLSTMState
) -> tuple[Tensor, mLSTMState]:
    """Return the results, or raise an error if finite inputs have overflowed."""

    def named_inputs() -> dict[str, Tensor]:
        state = {f"state.{name}": x for name, x in first._asdict().items()}
        return inputs._asdict() | state

    raise_on_overflow(caller, (h, *last), named_inputs)
    return h, last
