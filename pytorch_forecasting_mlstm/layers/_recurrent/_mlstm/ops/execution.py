"""How a call is being executed: eagerly, traced, or under a transform."""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.torch_version import TorchVersion

__all__ = [
    "is_compiling",
    "is_eager",
    "is_eager_on_cpu",
    "is_exporting",
    "is_forward_mode",
    "is_known",
]

#: Whether dynamo takes ``torch.compiler.is_exporting()`` for True under ``torch.compile``, too.
_COMPILES_AS_EXPORT = TorchVersion(torch.__version__) < "2.12"


def is_compiling() -> bool:
    """Whether ``torch.compile`` traces, other than for an export or inside a transform."""
    transformed = torch._C._are_functorch_transforms_active()
    return torch.compiler.is_compiling() and not is_exporting() and not transformed


def is_exporting() -> bool:
    """Whether a graph is recorded that runs without this package.

    This is the case in ``torch.export``, and in ``torch.jit.trace`` and the ONNX exporter on it.
    """
    if _COMPILES_AS_EXPORT and torch.compiler.is_dynamo_compiling():
        return _is_strict_export()
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_strict_export() -> bool:
    """Whether dynamo traces for ``torch.export``; it calls this while it traces."""
    from torch._dynamo.symbolic_convert import InstructionTranslator  # slow to import

    exporting: bool = InstructionTranslator.current_tx().export
    return exporting


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
