"""The table of backends, and the choice between them.

A backend is a module with the members of :class:`Backend`. To add one, add an entry to ``KERNELS``.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ....._validation import check_bool
from ..norms import CellNorms
from .chunkwise import backend as pytorch
from .cpp import backend as cpp
from .cpp.packaged import LibraryError
from .cpp.prepare import prepare as prepare_cpp
from .types import Inputs, OutputGrads, StepResult, mLSTMState

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendInfo",
    "Kernel",
    "backend",
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
    """A compiled backend.

    ``prepare`` loads and tests it, or raises a RuntimeError. Its argument is whether to compile
    what is missing. It returns a description, such as ``"the AVX2 library of the package"``.
    """

    backend: Backend
    prepare: Callable[[bool], str]


class BackendInfo(NamedTuple):
    """What computes the recurrence, and why; ``str`` makes a sentence of it.

    Attributes
    ----------
    name : str
        ``"cpp"`` or ``"pytorch"``.
    reason : str
        Why, as a clause.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import backend
    >>> info = backend()
    >>> info.reason in str(info)
    True
    """

    name: str
    reason: str

    def __str__(self) -> str:
        if self.name == pytorch.NAME:
            return f"The recurrence is computed in PyTorch: {self.reason}."
        return f"The recurrence is computed in C++ where possible, with {self.reason}."


#: The table, in order of preference. What no entry supports is computed in PyTorch.
KERNELS: tuple[Kernel, ...] = (Kernel(cpp, prepare_cpp),)
BACKENDS: dict[str, Backend] = {pytorch.NAME: pytorch} | {
    kernel.backend.NAME: kernel.backend for kernel in KERNELS
}

#: Turns the kernel off with 0. Processes that are spawned inherit it.
_VARIABLE = "PYTORCH_FORECASTING_MLSTM_KERNEL"

#: Whether ``use_kernel`` has turned the kernels on or off, None if it has not been called; and what
#: ``backend`` returns then.
_state: dict[str, Any] = {"enabled": None, "info": None}


def use_kernel(enabled: bool = True) -> None:
    """Turn the C++ kernel for the recurrence of layers and cells on or off, in this process.

    Where the package was installed with a compiled library, the kernel is on by default: see
    :func:`backend`. It is turned off with ``use_kernel(False)``, or with the environment variable
    ``PYTORCH_FORECASTING_MLSTM_KERNEL=0``.

    Where there is no library, ``use_kernel()`` compiles one for this processor, which takes some
    seconds, and keeps it in the user's cache (``$XDG_CACHE_HOME``, or ``~/.cache``). From then on,
    it is used by default. A library is compared with PyTorch before it is used for the first time
    on a machine. Layers compute the same numbers up to rounding, in about half the time, and need
    less memory for the backward pass.

    The kernel is used for float32 and float64 on the CPU, and for heads of 8, 16, 24, 32, 48 or 64
    units (``hidden_size / num_heads``): by the layer, also under ``torch.compile``, and by
    ``mlstm_chunkwise`` if K = V and ``chunk_size`` is not given. A step of :class:`mLSTMCell` uses
    it for heads of any size, in less than half the time. Everything else is computed in PyTorch:
    other heads, accelerators, ``torch.func`` and second derivatives. Calls of ``use_kernel`` have
    no effect on processes that are spawned.

    Parameters
    ----------
    enabled : bool, default True
        Whether to use the kernel from now on.

    Raises
    ------
    TypeError
        If ``enabled`` is not a bool.
    RuntimeError
        If there is no library and none can be compiled, because this is not Linux, there is no C++
        compiler or it fails, or the user's cache cannot be used; or if the results of the library
        differ from those of PyTorch.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import backend, use_kernel
    >>> use_kernel(False)
    >>> print(backend())
    The recurrence is computed in PyTorch: use_kernel(False) was called.
    """
    check_bool("use_kernel", "enabled", enabled)
    info = BackendInfo(pytorch.NAME, "use_kernel(False) was called")
    if enabled:
        try:
            info = _prepare(build=True)
        except RuntimeError as error:
            raise RuntimeError(f"use_kernel: {error}") from error
    _state.update(enabled=enabled, info=info)


def backend() -> BackendInfo:
    """Tell what computes the recurrence of layers and cells on the CPU, and why.

    Returns
    -------
    BackendInfo
        The name of the backend and the reason. ``print`` shows one sentence.

    Raises
    ------
    ValueError
        If the environment variable ``PYTORCH_FORECASTING_MLSTM_KERNEL`` is neither 0 nor 1.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import backend
    >>> backend().name in ("cpp", "pytorch")
    True
    """
    return _default() if _state["enabled"] is None else _state["info"]


def _prepare(build: bool) -> BackendInfo:
    """Make all kernels ready, and name the preferred one."""
    descriptions = [kernel.prepare(build) for kernel in KERNELS]
    return BackendInfo(KERNELS[0].backend.NAME, descriptions[0])


def _read_variable() -> str:
    """Return 0, 1 or nothing."""
    setting = os.environ.get(_VARIABLE, "").strip()
    if setting not in ("", "0", "1"):
        raise ValueError(
            f"pytorch_forecasting_mlstm: the environment variable {_VARIABLE} must be 0 or 1, got "
            f"{setting!r}; unset it to use the kernel where there is one."
        )
    return setting


_read_variable()  # so that a wrong setting raises before any work is done


@cache
def _default() -> BackendInfo:
    """Return what is used unless ``use_kernel`` is called: a kernel that needs no compiler."""
    if _read_variable() == "0":
        return BackendInfo(pytorch.NAME, f"the environment variable {_VARIABLE} is 0")
    try:
        return _prepare(build=False)
    except LibraryError as error:
        return BackendInfo(pytorch.NAME, str(error))
    except RuntimeError as error:  # a failed self-test, above all
        warnings.warn(f"pytorch_forecasting_mlstm: {error}.", RuntimeWarning, stacklevel=2)
        return BackendInfo(pytorch.NAME, str(error))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_on_by_default() -> bool:
    """Whether kernels are used by default; ``torch.compile`` calls this while it traces."""
    return _default().name != pytorch.NAME


def _is_enabled() -> bool:
    enabled = _state["enabled"]
    return _is_on_by_default() if enabled is None else enabled


def select_chunkwise(inputs: Inputs, chunk_size: int | None) -> Backend:
    """Choose the backend of a recurrence; ``chunk_size`` is None if the caller has set none."""
    if _is_enabled():
        for kernel in KERNELS:
            if kernel.backend.supports_chunkwise(inputs, chunk_size):
                return kernel.backend
    return pytorch


def select_gated(p: Tensor, head_dim: int) -> Backend:
    """Choose the backend of a gated recurrence for pre-activations like this tensor."""
    if _is_enabled():
        for kernel in KERNELS:
            if kernel.backend.supports_gated(p, head_dim):
                return kernel.backend
    return pytorch


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult:
    """Take a step of a cell with the first backend that can: see ``ops/step.py``."""
    if _is_enabled():
        for kernel in KERNELS:
            result = kernel.backend.step(p, norms, c, n)
            if result is not None:
                return result
    return pytorch.step(p, norms, c, n)
