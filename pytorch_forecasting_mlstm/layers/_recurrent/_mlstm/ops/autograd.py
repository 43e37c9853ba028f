"""Both operations for autograd and ``torch.compile``, over the table of backends.

Each operation has one autograd Function for eager code, and one custom op that is opaque to
``torch.compile``. A trace of the chunkwise form would have about two hundred nodes, most of them
with a division of T in their shape, and the compiler took minutes for a varying T. The op computes
what the Function computes, tiles and factored decays included, and the compiler fuses the code
around it. The op is not used eagerly: it supports no layer norms, no transforms and no second
derivative. The op of a whole cell is in ``cell_op.py``.

A second derivative is supported in eager mode, at the speed of the naive form.

Dimensions: B batch, NH heads, T time, L steps of a chunk, K key, V value, H = NH·V.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast import autocast_disabled
from .chunks import compiled_chunk_size, default_chunk_size
from .chunkwise.causality import propagate_nans_causally
from .dispatch import BACKENDS, Backend, select_chunkwise, select_gated
from .double_backward import differentiable_grad
from .execution import is_compiling, is_eager, is_exporting, is_known
from .layer_norm import TORCH_LAYER_NORM, LayerNormParams
from .naive import naive_chunkwise, naive_gated, naive_span, rescale_state
from .overflow import raise_on_overflow
from .tiling import batch_tile_size, map_batch_tiles
from .types import Inputs, OutputGrads, at_least_float32, mLSTMState

__all__ = [
    "ChunkwiseFunction",
    "GatedFunction",
    "chunkwise",
    "chunkwise_op",
    "gated",
    "gated_compiled",
    "gated_op",
    "reads_16_bits",
]

_NAMES = ("q", "k", "v", "log_i", "log_f", "state.c", "state.n", "state.m")


# --- the recurrence


def reads_16_bits(inputs: Inputs, chunk_size: int | None) -> bool:
    """Whether q, k and v have 16 bits, and ``chunkwise`` takes them as they are."""
    return (
        inputs.v.dtype in (torch.bfloat16, torch.float16)
        and (is_eager() or is_compiling())
        and select_chunkwise(inputs, chunk_size).READS_16_BITS
    )


def chunkwise(
    inputs: Inputs, state: mLSTMState, chunk_size: int | None
) -> tuple[Tensor, mLSTMState]:
    """Return h (B, NH, T, V) and the last state, for T of at least 1.

    All inputs have one dtype, except for q, k and v if ``reads_16_bits``. h has that of the state.
    """
    if not (is_eager() or is_compiling()):
        return _decomposed(inputs, state, chunk_size)
    backend = select_chunkwise(inputs, chunk_size)
    T, K = inputs.q.shape[2:]
    if is_compiling():
        L = chunk_size or compiled_chunk_size(K)
        h, c, n, m, *_ = chunkwise_op([*_pad(inputs, -T % L), *state], backend.NAME, L)
        return h[:, :, :T], mLSTMState(c, n, m)
    L = min(chunk_size or default_chunk_size(T, K), T)
    plan = backend.plan_chunkwise(inputs, L)
    h, c, n, m, *_ = ChunkwiseFunction.apply(*inputs, *state, backend.NAME, L, plan)
    return h, mLSTMState(c, n, m)


def _decomposed(
    inputs: Inputs, state: mLSTMState, chunk_size: int | None
) -> tuple[Tensor, mLSTMState]:
    """Compute the same with plain operations of torch: for exports, transforms and forward mode.

    All derivatives of these are right, those of derivatives too, which an autograd Function does
    not guarantee under transforms. An export has one span, so that its graph has one size for all
    lengths.
    """
    T, K = inputs.q.shape[2:]
    L = chunk_size or (default_chunk_size(T, K) if is_known(T) else compiled_chunk_size(K))
    form = naive_span if is_exporting() else naive_chunkwise
    h, last = propagate_nans_causally(partial(form, L=L), inputs, state)
    return h, last


def _pad(inputs: Inputs, steps: int) -> Inputs:
    """Append steps that leave the state as it is."""
    q, k, v, log_i, log_f = inputs
    q, k, v = (F.pad(x, (0, 0, 0, steps)) for x in (q, k, v))
    log_i = F.pad(log_i, (0, steps), value=-torch.inf)
    return Inputs(q, k, v, log_i, F.pad(log_f, (0, steps)))


class ChunkwiseFunction(torch.autograd.Function):
    """The recurrence in eager mode.

    It maps (q, k, v, log_i, log_f, c, n, m, backend, L, plan), with L of at most T, to (h, the last
    c, n and m, what is saved).
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        """Run the backend."""
        output = _run_chunkwise(*args)
        _save_chunkwise(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the eight tensors, and three None."""
        tensors = ctx.saved_tensors
        inputs, state = Inputs(*tensors[:5]), mLSTMState(*tensors[5:8])
        last_c, last_n, *saved = tensors[8:]
        with autocast_disabled(inputs.q.device):
            if torch.is_grad_enabled():

                def naive(*tensors: Tensor) -> tuple[Tensor, ...]:
                    wide = (x.to(at_least_float32(x.dtype)) for x in tensors[:5])
                    h, last = naive_chunkwise(Inputs(*wide), mLSTMState(*tensors[5:]), ctx.L)
                    return h, *last

                gradients = differentiable_grad(naive, (*inputs, *state), grads[:4])
            else:
                gradients = ctx.backend.chunkwise_bwd(
                    inputs, state, last_c, last_n, saved, OutputGrads(*grads[:4]), ctx.L, ctx.plan
                )
        return *gradients, None, None, None


def _run_chunkwise(*args: Any) -> tuple[Tensor, ...]:
    inputs, state, (name, L, plan) = Inputs(*args[:5]), mLSTMState(*args[5:8]), args[8:]
    h, last, saved = BACKENDS[name].chunkwise_fwd(inputs, state, L, plan)
    return h, *last, *saved


def _save_chunkwise(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, name, ctx.L, ctx.plan = inputs
    ctx.backend = BACKENDS[name]
    ctx.mark_non_differentiable(*output[4:])
    ctx.save_for_backward(*tensors, *_needed_results(ctx.backend, output))
    ctx.set_materialize_grads(False)  # the last state is rarely part of a loss


def _needed_results(backend: Backend, output: Sequence[Tensor]) -> list[Tensor]:
    """Return the last c and n, and what is saved, of ``(h, c, n, m, *saved)``."""
    h, c, n, _, *saved = output
    return [c, n, *([h] if backend.SAVES_H else []), *saved]


@torch.library.custom_op("pytorch_forecasting_mlstm::chunkwise", mutates_args=())
def chunkwise_op(tensors: list[Tensor], backend: str, L: int) -> list[Tensor]:
    """Return what ``ChunkwiseFunction`` does, for a multiple of L steps."""
    inputs, state, module = Inputs(*tensors[:5]), mLSTMState(*tensors[5:]), BACKENDS[backend]
    with autocast_disabled(inputs.q.device):
        plan = module.plan_chunkwise(inputs, L)
        h, last, saved = module.chunkwise_fwd(inputs, state, L, plan)
    raise_on_overflow(
        "mlstm_chunkwise", (h, *last), lambda: dict(zip(_NAMES, tensors, strict=True))
    )
    return [x.contiguous() for x in (h, *last, *saved)]


@chunkwise_op.register_fake
def _(tensors: list[Tensor], backend: str, L: int) -> list[Tensor]:
    v, state = tensors[2], mLSTMState(*tensors[5:])
    saved = BACKENDS[backend].chunkwise_saved_shapes(state, v.shape[2], L)
    shapes = (v.shape, *(x.shape for x in state), *saved)
    return [state.c.new_empty(shape) for shape in shapes]


@torch.library.custom_op("pytorch_forecasting_mlstm::chunkwise_backward", mutates_args=())
def _chunkwise_bwd_op(
    tensors: list[Tensor], results: list[Tensor], grads: list[Tensor | None], backend: str, L: int
) -> list[Tensor]:
    inputs, state, module = Inputs(*tensors[:5]), mLSTMState(*tensors[5:]), BACKENDS[backend]
    last_c, last_n, *saved = results
    with autocast_disabled(inputs.q.device):
        plan = module.plan_chunkwise(inputs, L)
        gradients = module.chunkwise_bwd(
            inputs, state, last_c, last_n, tuple(saved), OutputGrads(*grads), L, plan
        )
    return [x.contiguous() for x in gradients]


@_chunkwise_bwd_op.register_fake
def _(tensors: list[Tensor], *args: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in tensors]


def _chunkwise_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, ctx.backend, ctx.L = inputs
    ctx.save_for_backward(*tensors, *_needed_results(BACKENDS[ctx.backend], output))
    ctx.set_materialize_grads(False)


def _chunkwise_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, None, None]:
    saved = list(ctx.saved_tensors)
    return _chunkwise_bwd_op(saved[:8], saved[8:], grads[:4], ctx.backend, ctx.L), None, None


chunkwise_op.register_autograd(_chunkwise_backward, setup_context=_chunkwise_setup)


# --- the gated recurrence


def gated(
    p: Tensor, state: mLSTMState, padding: Tensor | None, norms: Sequence[Any]
) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H) and the last state, for arguments of ``GatedFunction``."""
    backend = select_gated(p, state.c.shape[-1])
    h, c, n, m = GatedFunction.apply(p, *state, padding, backend.NAME, *norms)
    return h, mLSTMState(c, n, m)


def gated_compiled(
    p: Tensor, state: mLSTMState, padding: Tensor | None
) -> tuple[Tensor, mLSTMState]:
    """Return the same where ``torch.compile`` traces, for pre-activations that are normalized."""
    K = state.c.shape[-1]
    backend = select_gated(p, K)
    h, c, n, m, *_ = gated_op(p, list(state), padding, backend.NAME, compiled_chunk_size(K))
    return h, mLSTMState(c, n, m)


class GatedFunction(torch.autograd.Function):
    """The gated recurrence in eager mode.

    It maps (p, c, n, m, padding, backend, *norms) to (h, the last c, n and m). p is
    (B, T, 4 H + 2 NH), padding (B, T, 1) or None. The norms are the arguments of
    ``LayerNormParams.of`` if layer norms are still to be applied to p, or nothing. h (B, T, H) lies
    in memory time first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
        padding: Tensor | None,
        backend: str,
        *norms: Any,
    ) -> tuple[Tensor, ...]:
        state, ctx.backend = mLSTMState(c, n, m), BACKENDS[backend]
        ctx.L, ctx.plan = default_chunk_size(p.shape[1], c.shape[-1]), False
        params = LayerNormParams.of(*norms) if norms else None
        saved: tuple[Tensor, ...] = ()
        with autocast_disabled(p.device):
            if params is not None and ctx.backend.normalizing is not None:
                h, last = ctx.backend.normalizing.forward(p, params, state, padding)
            else:
                layer_norm = ctx.backend.layer_norm or TORCH_LAYER_NORM
                parts = [p] if params is None else layer_norm.forward(p, params)[0]
                ctx.plan = ctx.backend.plan_gated(parts, state, padding, ctx.L)
                h, last, saved = ctx.backend.gated_fwd(parts, state, padding, ctx.L, ctx.plan)
        ctx.eps, affine = norms[:1], norms[1:]
        ctx.saved_count = len(saved)
        results = (last.c, last.n) if ctx.backend.SAVES_H else (None, None)
        ctx.save_for_backward(p, *state, padding, *results, *saved, *affine)
        ctx.set_materialize_grads(False)  # the last state is rarely part of a loss
        ctx.keeps_scale = last.m is m
        if ctx.keeps_scale:
            ctx.mark_non_differentiable(m)
        return h, *last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        p, c, n, m, padding, last_c, last_n, *saved = ctx.saved_tensors
        saved, affine = saved[: ctx.saved_count], saved[ctx.saved_count :]
        state, norms = mLSTMState(c, n, m), (*ctx.eps, *affine)
        constants = (None, None, *(None for _ in ctx.eps))  # padding, backend, eps
        with autocast_disabled(p.device):
            if torch.is_grad_enabled():

                def naive(p: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
                    state = mLSTMState(*tensors[:3])
                    h, last = naive_gated(p, state, padding, *ctx.eps, *tensors[3:])
                    return h, *(rescale_state(last, state.m) if ctx.keeps_scale else last)

                inputs = (p, *state, *affine)
                grad_p, grad_c, grad_n, grad_m, *grad_affine = differentiable_grad(
                    naive, inputs, grads
                )
                return grad_p, grad_c, grad_n, grad_m, *constants, *grad_affine

            def bwd(parts: Sequence[Tensor]) -> Any:
                results = (last_c, last_n, saved, OutputGrads(*grads))
                return ctx.backend.gated_bwd(parts, state, padding, *results, ctx.L, ctx.plan)

            if not norms:
                (grad_p,), grad_state = bwd([p])
                return grad_p, *grad_state, *constants
            params = LayerNormParams.of(*norms)
            if ctx.backend.normalizing is not None:
                grad_p, grad_params, grad_state = ctx.backend.normalizing.backward(
                    p, params, state, padding, OutputGrads(*grads)
                )
                return grad_p, *grad_state, *constants, *grad_params
            layer_norm = ctx.backend.layer_norm or TORCH_LAYER_NORM
            parts, statistics = layer_norm.forward(p, params)
            grad_parts, grad_state = bwd(parts)
            grad_p, grad_params = layer_norm.backward(grad_parts, p, statistics, params)
            return grad_p, *grad_state, *constants, *grad_params


@torch.library.custom_op("pytorch_forecasting_mlstm::gated", mutates_args=())
def gated_op(
    p: Tensor, state: list[Tensor], padding: Tensor | None, backend: str, L: int
) -> list[Tensor]:
    """Return what ``GatedFunction`` does without norms, and what is saved."""
    module, p = BACKENDS[backend], p.contiguous()

    def run(p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None) -> Any:
        h, last, saved = module.gated_fwd([p], mLSTMState(c, n, m), padding, L, plan)
        return h, *last, *saved

    with autocast_disabled(p.device):
        plan = module.plan_gated([p], mLSTMState(*state), padding, L)
        tile_size = _op_tile_size(module, p, state, L)
        h, *results = map_batch_tiles(run, (p, *state, padding), tile_size)
    inputs = {"the projected x": p, "state c": state[0], "state n": state[1]}
    raise_on_overflow("mLSTMLayer", (h, *results[:2]), lambda: inputs)
    # An op must not return its inputs.
    return [h, *(x.clone() if x is state[2] else x.contiguous() for x in results)]


@gated_op.register_fake
def _(p: Tensor, state: list[Tensor], padding: Tensor | None, backend: str, L: int) -> list[Tensor]:
    (B, T), (_, NH, V, _) = p.shape[:2], state[0].shape
    h = p.new_empty(T, B, NH * V).transpose(0, 1)
    saved = BACKENDS[backend].gated_saved_shapes(mLSTMState(*state), T, L)
    return [h, *(p.new_empty(shape) for shape in (*(x.shape for x in state), *saved))]


@torch.library.custom_op("pytorch_forecasting_mlstm::gated_backward", mutates_args=())
def _gated_bwd_op(
    p: Tensor,
    state: list[Tensor],
    padding: Tensor | None,
    results: list[Tensor],
    grads: list[Tensor | None],
    backend: str,
    L: int,
) -> list[Tensor]:
    module, p = BACKENDS[backend], p.contiguous()

    def run(
        p: Tensor, c: Tensor, n: Tensor, m: Tensor, padding: Tensor | None, *tensors: Any
    ) -> Any:
        last_c, last_n, *saved = tensors[:-4]
        results = (last_c, last_n, saved, OutputGrads(*tensors[-4:]))
        (grad_p,), grads = module.gated_bwd([p], mLSTMState(c, n, m), padding, *results, L, plan)
        return grad_p, *(torch.zeros_like(m) if grad is None else grad for grad in grads)

    with autocast_disabled(p.device):
        plan = module.plan_gated([p], mLSTMState(*state), padding, L)
        tensors = (p, *state, padding, *results, *grads)
        gradients = map_batch_tiles(run, tensors, _op_tile_size(module, p, state, L))
    return [x.contiguous() for x in gradients]


@_gated_bwd_op.register_fake
def _(p: Tensor, state: list[Tensor], *args: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (p, *state)]


def _op_tile_size(module: Backend, p: Tensor, state: Sequence[Tensor], L: int) -> int:
    B, T, width = p.shape
    return batch_tile_size(p, B, T * module.op_tile_width(width, state[0].shape[1], L))


def _gated_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    p, state, padding, ctx.backend, ctx.L = inputs
    ctx.save_for_backward(p, *state, padding, *output[1:3], *output[4:])
    ctx.set_materialize_grads(False)


def _gated_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    p, c, n, m, padding, *results = ctx.saved_tensors
    grad_p, *grad_state = _gated_bwd_op(
        p, [c, n, m], padding, results, grads[:4], ctx.backend, ctx.L
    )
    return grad_p, grad_state, None, None, None


gated_op.register_autograd(_gated_backward, setup_context=_gated_setup)
