"""Make the kernels ready for use: find devices, and test the kernels on them."""

import torch

from .device import TritonUnavailableError, find_devices, is_capturing
from .self_test import TritonSelfTestError, self_test

__all__ = ["TritonUnavailableError", "is_capturing", "prepare"]


def prepare(build: bool) -> str:
    """Test the kernels on each model of device, and return a description.

    Parameters
    ----------
    build : bool
        Not used: Triton compiles a kernel when it is first called.

    Raises
    ------
    TritonUnavailableError
        If there is no device, or no Triton.
    RuntimeError
        If the kernels cannot be compiled, or fail the test.
    """
    devices = find_devices()
    for device in devices:
        try:
            self_test(device)
        except (TritonSelfTestError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a compiler raises
            raise RuntimeError(
                f"the Triton kernels cannot be compiled or run on {device.name}, and are not used: "
                f"{_describe(error)}"
            ) from error
    import triton

    names = " and ".join(sorted({device.name for device in devices}))
    return f"Triton {triton.__version__} on {names}"


def _describe(error: Exception) -> str:
    """Return the class of an error and the first line of its text, without a period."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *(line.strip().rstrip(".") for line in lines[:1])])
