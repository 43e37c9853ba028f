"""The sizes of the work: chunks of steps, and blocks of samples whose temporaries fit a cache."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ._spans import PieceJoiner

__all__ = [
    "by_blocks",
    "chunk_length",
    "compiled_chunk",
    "is_compiled_whole",
    "is_eager",
    "is_eager_on_cpu",
    "samples_per_block",
]

_BLOCK = 2**20  # numbers in the largest temporary of one block


def chunk_length(T: int, K: int) -> int:
    """Choose the steps of a chunk, by measurement: longer ones for long sequences and wide heads.

    Chunks of equal length leave little padding, multiples of 4 suit the processor.
    """
    most = 64 if T > 1024 else 48 if K > 16 else 32
    chunks = -(-T // most)
    steps = -(-T // chunks)
    return min(T, -(-steps // 4) * 4)


def compiled_chunk(K: int) -> int:
    """Choose the steps of a chunk where T is not to be asked."""
    return 48 if K > 16 else 32


def is_compiled_whole() -> bool:
    """Whether this is a trace for ``torch.compile``: not one to export, nor of a transform."""
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)()
    transformed = torch._C._are_functorch_transforms_active()
    return torch.compiler.is_compiling() and not exporting and not transformed


def is_eager() -> bool:
    """Whether results are computed now, by torch itself: not in a trace, nor under a transform."""
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether blocks, and questions to the data, pay: neither in a trace nor on an accelerator."""
    return x.device.type == "cpu" and is_eager()


def samples_per_block(x: Tensor, B: int, numbers: int) -> int:
    """Return how many of B samples to compute at once, with so many numbers for each."""
    if not is_eager_on_cpu(x) or not B * numbers:
        return B
    blocks = -(-B * numbers // _BLOCK)
    return -(-B // blocks)


def by_blocks(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    samples: int,
) -> tuple[Tensor, ...]:
    """Call a function of tensors (B, ...), which returns such, on blocks of so many samples."""
    B = next(len(x) for x in inputs if x is not None)
    if samples >= B:
        return function(*inputs)
    joiners: list[PieceJoiner] = []
    for start in range(0, B, samples):
        block = slice(start, start + samples)
        parts = function(*(None if x is None else x[block] for x in inputs))
        joiners = joiners or [PieceJoiner(0, B) for _ in parts]
        for joiner, part in zip(joiners, parts, strict=True):
            joiner.put(start, part)
    return tuple(joiner.result() for joiner in joiners)
