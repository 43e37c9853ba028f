"""The table of backends, and the choice between them.

A backend is a module with the members of :class:`Backend`, in ``protocol.py``. To add one, add an
entry to ``KERNELS``.
"""

import inspect
import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ....._validation import check_bool
from ..norms import CellNorms
from .chunkwise import backend as pytorch
from .cpp import backend as cpp
from .cpp.packaged import LibraryError
from .cpp.prepare import prepare as prepare_cpp
from .execution import is_compiling
from .protocol import Backend
from .triton import backend as triton
from .triton.options import product_precision
from .triton.prepare import TritonUnavailableError, is_capturing
from .triton.prepare import prepare as prepare_triton
from .types import Inputs, StepResult

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendInfo",
    "Kernel",
    "backend",
    "select_cell",
    "select_chunkwise",
    "select_gated",
    "step",
    "use_kernel",
]


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

#: Whether ``use_kernel`` has turned the kernels on or off, by type of device; None if it has not.
_enabled: dict[str, bool | None] = {"cpu": None, "cuda": None}

#: What ``use_kernel`` has prepared, by type of device and by settings.
_prepared: dict[tuple[str, str], "BackendInfo"] = {}

_TURNED_OFF = BackendInfo(pytorch.NAME, "use_kernel(False) was called")


class _TransientError(Exception):
    """Kernels cannot be prepared now, and may be later; the message is a clause that says why."""


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
    if not enabled:
        _enabled.update(dict.fromkeys(_enabled, False))
        return
    errors = []
    for device in _enabled:
        try:
            _turn_on(device)
        except RuntimeError as error:  # which must not keep the kernels of other devices off
            errors.append(error)
    if errors:
        raise RuntimeError(f"use_kernel: {errors[0]}") from errors[0]


def _turn_on(device: str) -> None:
    """Prepare and enable the kernels of a type of device; after an error, nothing has changed."""
    key = (device, _settings(device))
    if device == "cuda" and (not torch.cuda.is_available() or is_capturing()):
        _prepared.pop(key, None)  # they are prepared when they are first used
    else:
        try:
            _prepared[key] = _prepare(device, build=True)
        except TritonUnavailableError as error:  # PyTorch computes the same
            _prepared[key] = BackendInfo(pytorch.NAME, str(error))
    _enabled[device] = True


def _settings(device: str) -> str:
    """Return the settings of torch for which other kernels are compiled, and tested."""
    return product_precision(torch.float32) if device == "cuda" else ""


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
    info = _info("cpu")
    if torch.cuda.is_available():
        info = info._replace(cuda=_info("cuda"))
    return info


def _info(device: str) -> BackendInfo:
    """Return what computes on a type of device."""
    enabled = _enabled[device]
    if enabled is None:
        return _default(device)
    if not enabled:
        return _TURNED_OFF
    return _prepared.get((device, _settings(device))) or _existing(device)


def _prepare(device: str, build: bool) -> BackendInfo:
    """Make all kernels of a type of device ready, and name the preferred one."""
    kernels = [kernel for kernel in KERNELS if kernel.device == device]
    if not kernels:
        return BackendInfo(pytorch.NAME, "there are no kernels for these devices")
    descriptions = [kernel.prepare(build) for kernel in kernels]
    return BackendInfo(kernels[0].backend.NAME, descriptions[0])


@cache
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
_read_variable.cache_clear()  # it may be set after the import


def _default(device: str) -> BackendInfo:
    """Return what is used unless ``use_kernel`` is called."""
    if _read_variable() == "0":
        return BackendInfo(pytorch.NAME, f"the environment variable {_VARIABLE} is 0")
    return _existing(device)


def _existing(device: str) -> BackendInfo:
    """Return a kernel that needs no compiler, or why there is none."""
    try:
        return _lasting(device, _settings(device))
    except _TransientError as error:
        return BackendInfo(pytorch.NAME, str(error))


@cache
def _lasting(device: str, settings: str) -> BackendInfo:
    """Return the same, or raise a _TransientError, which is not cached."""
    if device == "cuda" and is_capturing():
        raise _TransientError("a CUDA graph is captured, which a self-test would break")
    try:
        return _prepare(device, build=False)
    except (LibraryError, TritonUnavailableError) as error:
        return BackendInfo(pytorch.NAME, str(error))
    except torch.OutOfMemoryError as error:
        reason = f"the self-test ran out of memory: {str(error).partition('. ')[0]}"
        raise _TransientError(reason) from error
    except RuntimeError as error:  # a failed self-test, above all
        warnings.warn(f"pytorch_forecasting_mlstm: {error}.", RuntimeWarning, _level_of_caller())
        return BackendInfo(pytorch.NAME, str(error))


def _level_of_caller() -> int:
    """Return the ``stacklevel`` at which a warning of the calling function names its caller.

    That is the first one outside of this package and of torch, whose modules call the package's.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in (__name__.partition(".")[0], "torch"):
            return level
        frame, level = frame.f_back, level + 1
    return 2


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_usable(device: str) -> bool:
    """Whether kernels can be used; ``torch.compile`` calls this while it traces."""
    return _info(device).name != pytorch.NAME


def _is_enabled(kernel: Kernel, device: torch.device) -> bool:
    """Whether a kernel is on, and for this type of device."""
    # A graph depends on the first condition, and takes the second one as a constant.
    return (
        kernel.device == device.type
        and _enabled[kernel.device] is not False
        and _is_usable(kernel.device)
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


def select_cell(x: Tensor, weight: Tensor, head_dim: int) -> Backend | None:
    """Choose a backend that computes a whole cell for x (B, T, input_size), if there is one.

    A graph serves any number of samples and steps, so the custom op looks at these when it runs.
    """
    for kernel in KERNELS:
        forms = kernel.backend.cell
        if forms is not None and _is_enabled(kernel, x.device):
            if forms.supports(x, weight, head_dim) and (
                is_compiling() or forms.pays_off(x, weight)
            ):
                return kernel.backend
    return None


def step(p: Tensor, norms: CellNorms, c: Tensor, n: Tensor) -> StepResult:
    """Take a step of a cell with the first backend that can: see ``ops/step.py``."""
    for kernel in KERNELS:
        if kernel.backend.step is not None and _is_enabled(kernel, p.device):
            result = kernel.backend.step(p, norms, c, n)
            if result is not None:
                return result
    return pytorch.step(p, norms, c, n)
