"""The CUDA devices on which the kernels can run, and what identifies them."""

import importlib.util
import sys
from typing import NamedTuple

import torch

__all__ = ["CudaDevice", "TritonUnavailableError", "find_devices"]

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
    """Return one device of each model.

    Raises
    ------
    TritonUnavailableError
        If there is none, one of them is too old, or Triton is not installed.
    """
    if not torch.cuda.is_available():
        raise TritonUnavailableError("torch finds no CUDA device")
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
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        capability = (properties.major, properties.minor)
        if capability < _MIN_CAPABILITY:
            raise TritonUnavailableError(
                f"the kernels need compute capability 8.0, {properties.name} has "
                f"{capability[0]}.{capability[1]}"
            )
        driver = torch._C._cuda_getDriverVersion()  # type: ignore[attr-defined]
        parts = (properties.name, *capability, driver, torch.__version__, version)
        key = "\0".join(map(str, parts))
        devices.setdefault(key, CudaDevice(number, properties.name, key))
    return list(devices.values())
