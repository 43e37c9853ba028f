"""The recurrence of a layer in C++, compiled where it runs, for those who ask for it."""

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._chunkwise import ChunkwiseKernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._gated import GatedKernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._operator import kernel_operator
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._switch import (
    kernel_suits,
    use_kernel,
)

__all__ = ["ChunkwiseKernel", "GatedKernel", "kernel_operator", "kernel_suits", "use_kernel"]
