"""The recurrence of a layer in C++, compiled where it runs, for those who ask for it."""

from ._chunkwise import ChunkwiseKernel
from ._gated import GatedKernel
from ._operator import kernel_operator
from ._switch import (
    kernel_suits,
    use_kernel,
)

__all__ = ["ChunkwiseKernel", "GatedKernel", "kernel_operator", "kernel_suits", "use_kernel"]
