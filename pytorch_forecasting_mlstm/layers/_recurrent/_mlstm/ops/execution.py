"""How a call is being executed: eagerly, traced, or under a transform."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "is_compiling",
    "is_eager",
    "is_eager_on_cpu",
    "is_exporting",
    "is_forward_mode",
    "is_known",
]


def is_compiling() -> bool:
    """Whether ``torch.compile`` traces, other than for an export or inside a transform."""
    transformed = torch._C._are_functorch_transforms_active()
    return torch.compiler.is_compiling() and not is_exporting() and not transformed


def is_exporting() -> bool:
    """Whether a graph is recorded that runs without this package.

    This is the case in ``torch.export``, and in ``torch.jit.trace`` and the ONNX exporter on it.
    """
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)()
    return exporting or torch.jit.is_tracing()  # type: ignore[attr-defined]


def is_forward_mode() -> bool:
    """Whether forward-mode derivatives may be asked for, as in ``torch.func.jvp``."""
    return forward_ad._current_level >= 0


def is_known(size: int) -> bool:
    """Whether a size is a number, not a symbol in a trace; False if that cannot be told."""
    tracing = torch.compiler.is_dynamo_compiling() or torch._C._is_tracing()
    return isinstance(size, int) and not tracing


def is_eager() -> bool:
    """Whether operations run now and have no derivatives but those of reverse mode.

    They do not in a trace, under a ``torch.func`` transform, and in forward mode.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
    )


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether tiles of samples and decisions that depend on the data pay off."""
    return x.device.type == "cpu" and is_eager()
