"""The CUDA devices on which the kernels can run, and what identifies them."""

import importlib.util
import sys
from functools import cache
from typing import NamedTuple

import torch

__all__ = ["CudaDevice", "TritonUnavailableError", "find_devices", "is_capturing", "is_new_enough"]

_MIN_CAPABILITY = (8, 0)  # the first with matrix units for TF32
_MIN_TRITON = (3, 5)  # of torch 2.9; the interpreter of earlier ones, for tests, has no float64


class TritonUnavailableError(RuntimeError):
    """The kernels cannot run here; the message is a clause that says why."""


class CudaDevice(NamedTuple):
    """A CUDA device.

    Attributes
    ----------
    number : int
        Its number.
    name : str
        Its model.
    key : str
        Everything on which the results of a kernel depend, except for the kernel.
    """

    number: int
    name: str
    key: str


def find_devices() -> list[CudaDevice]:
    """Return one device of each model that is new enough: the current one, for its model.

    Each process of a distributed training has its own current device.

    Raises
    ------
    TritonUnavailableError
        If there is none, all of them are too old, or Triton is not installed.
    """
    if not torch.cuda.is_available():
        raise TritonUnavailableError("torch finds no CUDA device")
    if torch.cuda._is_in_bad_fork():
        raise TritonUnavailableError("this process was forked from one that uses CUDA")
    if torch.version.hip is not None:
        raise TritonUnavailableError("the kernels have not been tested with ROCm")
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is None:
        raise TritonUnavailableError("Triton is not installed; pip install triton")
    import triton

    version = triton.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < _MIN_TRITON:
        needed = ".".join(map(str, _MIN_TRITON))
        raise TritonUnavailableError(f"Triton {needed} is needed, {version} is installed")
    devices: dict[str, CudaDevice] = {}
    too_old = []
    current = torch.cuda.current_device()
    numbers = range(torch.cuda.device_count())
    for number in sorted(numbers, key=lambda number: number != current):
        properties = torch.cuda.get_device_properties(number)
        capability = (properties.major, properties.minor)
        if capability < _MIN_CAPABILITY:
            too_old.append(f"{properties.name} has {capability[0]}.{capability[1]}")
            continue
        parts = (properties.name, *capability, torch.__version__, version)
        key = "\0".join(map(str, parts))
        devices.setdefault(key, CudaDevice(number, properties.name, key))
    if too_old and not devices:
        raise TritonUnavailableError(f"the kernels need compute capability 8.0, {too_old[0]}")
    return list(devices.values())


@cache
def is_new_enough(number: int) -> bool:
    """Whether the kernels run on a device; beside it, there may be older ones."""
    return torch.cuda.get_device_capability(number) >= _MIN_CAPABILITY


def is_capturing() -> bool:
    """Whether the current stream captures a CUDA graph, during which nothing can be tested."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
