"""The recurrence of a layer in C++, compiled where it runs, for those who ask for it."""

from ..dispatch import (
    kernel_supports,
    use_kernel,
)
from .backend import ChunkwiseKernel
from .gated import GatedKernel
from .op import kernel_operator

__all__ = ["ChunkwiseKernel", "GatedKernel", "kernel_operator", "kernel_supports", "use_kernel"]
