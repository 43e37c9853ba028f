"""How a call is being executed: eagerly, traced by ``torch.compile``, or under a transform."""

import torch
from torch import Tensor

__all__ = ["is_compiling", "is_eager", "is_eager_on_cpu"]


def is_compiling() -> bool:
    """Whether ``torch.compile`` traces, other than for an export or inside a transform."""
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)()
    transformed = torch._C._are_functorch_transforms_active()
    return torch.compiler.is_compiling() and not exporting and not transformed


def is_eager() -> bool:
    """Whether operations run now, neither traced nor under a ``torch.func`` transform."""
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether tiles of samples and decisions that depend on the data pay off."""
    return x.device.type == "cpu" and is_eager()
