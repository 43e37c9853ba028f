"""Whether layers use the kernel: only if asked, and only what it was built for."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ....._validation import check_bool
from .autocast import autocast_disabled
from .cpp.backend import ChunkwiseKernel
from .cpp.bindings import HEAD_SIZES
from .cpp.gated import (
    GatedKernel,
    plain_form,
)
from .naive import chunkwise

__all__ = ["kernel_supports", "use_kernel"]

_Form = Callable[..., tuple[Tensor, ...]]

_state = {"enabled": False}


def use_kernel(enabled: bool = True) -> None:
    """Let every :class:`mLSTMLayer` of this process compute its recurrence in C++ on the CPU.

    The kernel is compiled for this processor when it is first asked for, which takes some seconds,
    and kept in the user's cache (``$XDG_CACHE_HOME``, or ``~/.cache``). It is compared with the
    form in PyTorch before it is used. Layers compute the same numbers, to rounding, in about half
    the time, and keep less memory for the backward pass.

    It is used for float32 and float64 on the CPU and heads of 8, 16, 24, 32, 48 or 64 units
    (``hidden_size / num_heads``), by the layer, under ``torch.compile`` too, and by
    ``mlstm_chunkwise`` where K = V and no chunk size is asked for. Everything else is computed in
    PyTorch, as without it: other heads, accelerators, ``torch.func`` and second derivatives.

    Parameters
    ----------
    enabled : bool, default True
        Whether it is to be used from now on.

    Raises
    ------
    TypeError
        If ``enabled`` is not a bool.
    RuntimeError
        If this is not Linux, there is no C++ compiler, it fails, the user's cache cannot be used,
        or what was compiled computes something else than PyTorch.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import use_kernel
    >>> use_kernel()  # doctest: +SKIP
    >>> use_kernel(False)  # back to PyTorch
    """
    check_bool("use_kernel", "enabled", enabled)
    if enabled:
        self_test()
    _state["enabled"] = enabled


def kernel_supports(p: Tensor, head_dim: int) -> bool:
    """Whether pre-activations like this tensor are for the kernel."""
    return (
        _state["enabled"]
        and p.device.type == "cpu"
        and p.dtype in (torch.float32, torch.float64)
        and head_dim in HEAD_SIZES
        and type(p) is Tensor
    )


@cache
def self_test() -> None:
    """Compile the kernel, and raise unless it computes what plain operations do, and gradients.

    Every head size and dtype is code of its own. What the caller has set for torch is kept out.
    """
    cpu = torch.device("cpu")
    with torch.inference_mode(False), torch.enable_grad(), autocast_disabled(cpu), cpu:
        generator = torch.Generator().manual_seed(0)
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
            for d in HEAD_SIZES:
                draw = partial(torch.randn, generator=generator, dtype=dtype)
                state = draw(1, 1, d, d), draw(1, 1, d)
                gated = draw(1, 70, 4 * d + 2), *state
                steps = [draw(1, 1, 70, d) for _ in range(3)]
                gates = draw(1, 1, 70), F.logsigmoid(draw(1, 1, 70))
                _compare(_gated, partial(plain_form, padding=None), gated, tolerance)
                inputs = (*steps, *gates, *state, draw(1, 1))
                _compare(
                    ChunkwiseKernel.apply, partial(chunkwise, chunk_size=35), inputs, tolerance
                )


def _gated(p: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, ...]:
    return GatedKernel.apply(p, c, n, None)


def _compare(kernel: _Form, plain: _Form, inputs: Sequence[Tensor], tolerance: float) -> None:
    """Raise unless results and all gradients of the kernel are those of the plain form."""
    found, expected = (_with_gradients(form, inputs) for form in (kernel, plain))
    for one, other in zip(found, expected, strict=True):
        if not (one - other).abs().max() <= tolerance * (1 + other.abs().max()):
            raise RuntimeError(
                "use_kernel: what was compiled does not compute what PyTorch does, and is not "
                "used. Another compiler can be named in CXX."
            )


def _with_gradients(form: _Form, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    results = form(*leaves)
    loss = torch.stack([part.sin().sum() for part in results]).sum()
    return *(part.detach() for part in results), *torch.autograd.grad(loss, leaves)
