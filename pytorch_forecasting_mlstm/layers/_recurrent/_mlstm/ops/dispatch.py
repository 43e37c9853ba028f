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
from .triton import backend as triton
from .triton.prepare import TritonUnavailableError
from .triton.prepare import prepare as prepare_triton
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

    With ``READS_16_BITS``, q, k and v of ``chunkwise_*`` may have 16 bits, and then so have their
    gradients. Everything else has one dtype, float32 or float64.

    ``step`` takes what ``ops/step.py`` documents, and is differentiable by itself. It returns None
    for what the backend cannot compute: a step is too short for looking at its tensors twice. It is
    None if the backend can compute no step.

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
    READS_16_BITS: bool

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

    @property
    def step(self) -> Callable[[Tensor, CellNorms, Tensor, Tensor], StepResult | None] | None:
        """The function that takes a step of a cell."""


class Kernel(NamedTuple):
    """A compiled backend.

    ``prepare`` loads and tests it, or raises a RuntimeError. Its argument is whether to compile
    what is missing. It returns a description, such as ``"the AVX2 library of the package"``.
    ``device`` is the type of the devices that it computes on.
    """

    backend: Backend
    prepare: Callable[[bool], str]
    device: str = "cpu"


class BackendInfo(NamedTuple):
    """What computes the recurrence, and why; ``str`` makes a sentence of it.

    Attributes
    ----------
    name : str
        ``"cpp"`` or ``"pytorch"`` on the CPU, ``"triton"`` or ``"pytorch"`` on a CUDA device.
    reason : str
        Why, as a clause.
    cuda : BackendInfo, optional
        The same for CUDA devices, or None where torch finds none.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import backend
    >>> info = backend()
    >>> info.reason in str(info)
    True
    """

    name: str
    reason: str
    cuda: "BackendInfo | None" = None

    def __str__(self) -> str:
        sentence = f"The recurrence is computed {self._where()}."
        if self.cuda is not None:
            sentence += f" On CUDA devices, it is computed {self.cuda._where()}."
        return sentence

    def _where(self) -> str:
        if self.name == pytorch.NAME:
            return f"in PyTorch: {self.reason}"
        return f"in {_LANGUAGES[self.name]} where possible, with {self.reason}"


_LANGUAGES = {cpp.NAME: "C++", triton.NAME: "Triton"}

#: The table, in order of preference. What no entry supports is computed in PyTorch.
KERNELS: tuple[Kernel, ...] = (
    Kernel(cpp, prepare_cpp),
    Kernel(triton, prepare_triton, "cuda"),
)
BACKENDS: dict[str, Backend] = {pytorch.NAME: pytorch} | {
    kernel.backend.NAME: kernel.backend for kernel in KERNELS
}

#: Turns the kernels off with 0. Processes that are spawned inherit it.
_VARIABLE = "PYTORCH_FORECASTING_MLSTM_KERNEL"

#: Whether ``use_kernel`` has turned the kernels on or off, None if it has not been called; and what
#: ``backend`` returns then for the CPU.
_state: dict[str, Any] = {"enabled": None, "info": None}

_TURNED_OFF = BackendInfo(pytorch.NAME, "use_kernel(False) was called")


def use_kernel(enabled: bool = True) -> None:
    """Turn the compiled kernels for the recurrence on or off, in this process.

    There is a kernel in C++ for the CPU, and there are kernels in Triton for CUDA devices. They are
    on by default where they can be used: see :func:`backend`. They are turned off with
    ``use_kernel(False)``, or with the environment variable ``PYTORCH_FORECASTING_MLSTM_KERNEL=0``.
    Calls of ``use_kernel`` have no effect on processes that are spawned.

    On the CPU, a library is used that the package was installed with. Where there is none,
    ``use_kernel()`` compiles one for this processor, which takes some seconds, and keeps it in the
    user's cache (``$XDG_CACHE_HOME``, or ``~/.cache``). From then on, it is used by default. Layers
    compute the same numbers up to rounding, in about half the time, and need less memory for the
    backward pass. The library is used for float32 and float64, and for heads of 8, 16, 24, 32, 48
    or 64 units (``hidden_size / num_heads``): by the layer, also under ``torch.compile``, and by
    ``mlstm_chunkwise`` if K = V and ``chunk_size`` is not given. A step of :class:`mLSTMCell` uses
    it for heads of any size, in less than half the time.

    On a CUDA device of compute capability 8.0 or higher, the kernels are used if Triton is
    installed, as it is with torch for Linux. They are used for heads of 8 to 256 units in float32,
    by the layer and by ``mlstm_chunkwise``, also under ``torch.compile``. For ``mlstm_chunkwise``,
    q, k and v may be bfloat16 or float16, and K and V may differ.

    Before a kernel is used for the first time on a machine, it is compared with PyTorch. Everything
    else is computed in PyTorch: other heads, other devices, ``torch.func`` and second derivatives.

    Parameters
    ----------
    enabled : bool, default True
        Whether to use the kernels from now on.

    Raises
    ------
    TypeError
        If ``enabled`` is not a bool.
    RuntimeError
        If there is no library and none can be compiled, because this is not Linux, there is no C++
        compiler or it fails, or the user's cache cannot be used; or if the results of a kernel
        differ from those of PyTorch.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import backend, use_kernel
    >>> use_kernel(False)
    >>> backend().name
    'pytorch'
    """
    check_bool("use_kernel", "enabled", enabled)
    info = _TURNED_OFF
    if enabled:
        try:
            info = _prepare("cpu", build=True)
            if torch.cuda.is_available():
                _prepare("cuda", build=True)
        except TritonUnavailableError:
            pass  # PyTorch computes on these devices, and backend() tells why
        except RuntimeError as error:
            raise RuntimeError(f"use_kernel: {error}") from error
    _state.update(enabled=enabled, info=info)


def backend() -> BackendInfo:
    """Tell what computes the recurrence of layers and cells, on each kind of device, and why.

    Returns
    -------
    BackendInfo
        The name of the backend and the reason: of the CPU, and in ``cuda`` of CUDA devices.
        ``print`` shows one sentence for each.

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
    enabled = _state["enabled"]
    info: BackendInfo = _default("cpu") if enabled is None else _state["info"]
    if torch.cuda.is_available():
        info = info._replace(cuda=_cuda_info(enabled))
    return info


def _cuda_info(enabled: bool | None) -> BackendInfo:
    """Return what computes on CUDA devices, given what ``use_kernel`` was called with."""
    if enabled is None:
        return _default("cuda")
    return _existing("cuda") if enabled else _TURNED_OFF


def _prepare(device: str, build: bool) -> BackendInfo:
    """Make all kernels of a type of device ready, and name the preferred one."""
    kernels = [kernel for kernel in KERNELS if kernel.device == device]
    if not kernels:
        return BackendInfo(pytorch.NAME, "there are no kernels for these devices")
    descriptions = [kernel.prepare(build) for kernel in kernels]
    return BackendInfo(kernels[0].backend.NAME, descriptions[0])


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
def _default(device: str) -> BackendInfo:
    """Return what is used unless ``use_kernel`` is called."""
    if _read_variable() == "0":
        return BackendInfo(pytorch.NAME, f"the environment variable {_VARIABLE} is 0")
    return _existing(device)


@cache
def _existing(device: str) -> BackendInfo:
    """Return a kernel that needs no compiler, or why there is none."""
    try:
        return _prepare(device, build=False)
    except (LibraryError, TritonUnavailableError) as error:
        return BackendInfo(pytorch.NAME, str(error))
    except RuntimeError as error:  # a failed self-test, above all
        warnings.warn(f"pytorch_forecasting_mlstm: {error}.", RuntimeWarning, stacklevel=2)
        return BackendInfo(pytorch.NAME, str(error))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_on_by_default(device: str) -> bool:
    """Whether kernels are used by default; ``torch.compile`` calls this while it traces."""
    return _default(device).name != pytorch.NAME


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_usable(device: str) -> bool:
    """Whether kernels can be used; the CPU's can if ``use_kernel()`` has not raised an error."""
    return device == "cpu" or _existing(device).name != pytorch.NAME


def _is_enabled(kernel: Kernel, device: torch.device) -> bool:
    """Whether a kernel is on, and for this type of device."""
    if kernel.device != device.type:
        return False
    enabled = _state["enabled"]
    return (
        _is_on_by_default(kernel.device)
        if enabled is None
        else enabled and _is_usable(kernel.device)
    )


def select_chunkwise(inputs: Inputs, chunk_size: int | None) -> Backend:
    """Choose the backend of a recurrence; ``chunk_size`` is None if the caller has set none."""
    for kernel in KERNELS:
        if _is_enabled(kernel, inputs.q.device):
            if kernel.backend.supports_chunkwise(inputs, chunk_size):
                return kernel.backend
    return pytorch


def select_gated(p: Tensor, head_dim: int) -> Backend:
    """Choose the backend of a gated recurrence for pre-activations like this tensor."""
    for kernel in KERNELS:
        if _is_enabled(kernel, p.device):
            if kernel.backend.supports_gated(p, head_dim):
                return kernel.backend
    return pytorch


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult:
    """Take a step of a cell with the first backend that can: see ``ops/step.py``."""
    for kernel in KERNELS:
        if kernel.backend.step is not None and _is_enabled(kernel, p.device):
            result = kernel.backend.step(p, norms, c, n)
            if result is not None:
                return result
    return pytorch.step(p, norms, c, n)
