"""The table of backends, and the choice between them.

A backend is a module with the members of :class:`Backend`. To add one, add an entry to ``KERNELS``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from ....._validation import check_bool
from ..norms import CellNorms
from .chunkwise import backend as pytorch
from .cpp import backend as cpp
from .cpp.self_test import self_test as cpp_self_test
from .types import Inputs, OutputGrads, StepResult, mLSTMState

__all__ = [
    "BACKENDS",
    "Backend",
    "Kernel",
    "select_chunkwise",
    "select_gated",
    "step",
    "use_kernel",
]


class Backend(Protocol):
    """The members of a backend.

    ``plan_*`` look at the data and decide what both passes must do in the same way. ``*_fwd``
    return h, the last state, and what they save for ``*_bwd``, in the shapes of ``*_saved_shapes``.

    L is a proposed size of chunks, which a backend may ignore. With ``SAVES_H``, ``chunkwise_bwd``
    gets h before what ``chunkwise_fwd`` has saved.

    ``step`` takes what ``ops/step.py`` documents, and is differentiable by itself. It returns None
    for what the backend cannot compute: a step is too short for looking at its tensors twice.

    ``gated_*`` take pre-activations as one tensor (B, T, 4 H + 2 NH), or in four parts: q, k, v and
    all gates. ``gated_fwd`` returns h (B, T, H) in memory time first. Without ``SAVES_H``,
    ``gated_bwd`` gets None for the last c and n, except under ``torch.compile``. If ``gated_fwd``
    returns the first m itself as the last one, c and n are divided by that scale, and m has no
    gradient.

    ``supports_*`` are called in eager mode, while ``torch.compile`` traces and under ``torch.func``
    transforms, with whatever tensors there are: they must return False for what the backend cannot
    compute.
    """

    NAME: str
    SAVES_H: bool

    def supports_chunkwise(self, inputs: Inputs, chunk_size: int | None) -> bool:
        """Whether these sequences can be computed."""

    def supports_gated(self, p: Tensor, head_dim: int) -> bool:
        """Whether pre-activations like these can be computed."""

    def plan_chunkwise(self, inputs: Inputs, L: int) -> bool:
        """Return the plan of a recurrence in chunks of L steps."""

    def plan_gated(
        self, parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int
    ) -> bool:
        """Return the plan of a gated recurrence."""

    def chunkwise_saved_shapes(self, state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
        """Return the shapes of what ``chunkwise_fwd`` saves."""

    def gated_saved_shapes(self, state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
        """Return the shapes of what ``gated_fwd`` saves."""

    def gated_tile_width(self, projected: int, NH: int, L: int) -> int:
        """Return the elements per step of the largest temporary of a layer."""

    def op_tile_width(self, projected: int, NH: int, L: int) -> int:
        """Return the same for the custom op alone; 0 to compute all samples at once."""

    def chunkwise_fwd(
        self, inputs: Inputs, state: mLSTMState, L: int, plan: bool, /
    ) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
        """Run the recurrence."""

    def chunkwise_bwd(
        self,
        inputs: Inputs,
        state: mLSTMState,
        last_c: Tensor,
        last_n: Tensor,
        saved: tuple[Tensor, ...],
        grads: OutputGrads,
        L: int,
        plan: bool,
        /,
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the inputs and of the state."""

    def gated_fwd(
        self,
        parts: Sequence[Tensor],
        state: mLSTMState,
        padding: Tensor | None,
        L: int,
        plan: bool,
        /,
    ) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
        """Run the gated recurrence."""

    def gated_bwd(
        self,
        parts: Sequence[Tensor],
        state: mLSTMState,
        padding: Tensor | None,
        last_c: Tensor,
        last_n: Tensor,
        saved: Sequence[Tensor],
        grads: OutputGrads,
        L: int,
        plan: bool,
        /,
    ) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
        """Return the gradients of the parts and of the state."""

    def step(self, p: Tensor, norms: CellNorms, c: Tensor, n: Tensor, /) -> StepResult | None:
        """Take a step of a cell."""


class Kernel(NamedTuple):
    """A backend that is used on request, once its self-test has passed."""

    backend: Backend
    self_test: Callable[[], None]


#: The table, in order of preference. What no entry supports is computed in PyTorch.
KERNELS: tuple[Kernel, ...] = (Kernel(cpp, cpp_self_test),)
BACKENDS: dict[str, Backend] = {pytorch.NAME: pytorch} | {
    kernel.backend.NAME: kernel.backend for kernel in KERNELS
}

_state = {"enabled": False}


def use_kernel(enabled: bool = True) -> None:
    """Let layers and cells of this process compute their recurrence in C++ on the CPU.

    The kernel is compiled for this processor on first use, which takes some seconds, and kept in
    the user's cache (``$XDG_CACHE_HOME``, or ``~/.cache``). It is compared with PyTorch before it
    is used. Layers compute the same numbers up to rounding, in about half the time, and need less
    memory for the backward pass.

    The kernel is used for float32 and float64 on the CPU, and for heads of 8, 16, 24, 32, 48 or 64
    units (``hidden_size / num_heads``): by the layer, also under ``torch.compile``, and by
    ``mlstm_chunkwise`` if K = V and ``chunk_size`` is not given. A step of :class:`mLSTMCell` uses
    it for heads of any size, in less than half the time. Everything else is computed in PyTorch as
    before: other heads, accelerators, ``torch.func`` and second derivatives. Each spawned process
    must call ``use_kernel()`` itself.

    Parameters
    ----------
    enabled : bool, default True
        Whether to use the kernel from now on.

    Raises
    ------
    TypeError
        If ``enabled`` is not a bool.
    RuntimeError
        If this is not Linux, there is no C++ compiler or it fails, the user's cache cannot be used,
        or the results of the compiled kernel differ from those of PyTorch.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import use_kernel
    >>> use_kernel()  # doctest: +SKIP
    >>> use_kernel(False)  # back to PyTorch
    """
    check_bool("use_kernel", "enabled", enabled)
    if enabled:
        for kernel in KERNELS:
            kernel.self_test()
    _state["enabled"] = enabled


def select_chunkwise(inputs: Inputs, chunk_size: int | None) -> Backend:
    """Choose the backend of a recurrence; ``chunk_size`` is None if the caller has set none."""
    if _state["enabled"]:
        for kernel in KERNELS:
            if kernel.backend.supports_chunkwise(inputs, chunk_size):
                return kernel.backend
    return pytorch


def select_gated(p: Tensor, head_dim: int) -> Backend:
    """Choose the backend of a gated recurrence for pre-activations like this tensor."""
    if _state["enabled"]:
        for kernel in KERNELS:
            if kernel.backend.supports_gated(p, head_dim):
                return kernel.backend
    return pytorch


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult:
    """Take a step of a cell with the first backend that can: see ``ops/step.py``."""
    if _state["enabled"]:
        for kernel in KERNELS:
            result = kernel.backend.step(p, norms, c, n)
            if result is not None:
                return result
    return pytorch.step(p, norms, c, n)
