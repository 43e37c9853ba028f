"""Compile the Triton kernels to machine code, with the options of launches, for absent GPUs.

    python tests/helpers/compile_triton_kernels.py 80 90      # compute capabilities

It prints the shared memory of each kernel in bytes. Triton must not be in interpreter mode.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import launch, options


class Case(NamedTuple):
    """How many sequences there are, the sizes of their heads, and the dtype of q, k and v."""

    sequences: int
    K: int
    V: int
    dtype: torch.dtype = torch.float32


CASES = (
    *(
        Case(sequences, *heads, dtype)
        for sequences, heads in (
            *((8, (16, 16)), (128, (16, 16)), (1024, (16, 16))),
            *((8, (32, 32)), (8, (64, 64)), (8, (128, 128))),
        )
        for dtype in (torch.float32, torch.bfloat16)
    ),
    *(Case(8, 24, 40, torch.bfloat16), Case(8, 256, 256)),
)
_LENGTH = 64  # steps that are proposed for a chunk
_READ_AS_THEY_ARE = {"q", "k", "v", "grad_q", "grad_k", "grad_v"}
#: Kernels that are launched with the options of chunks.
_OF_CHUNKS = ("sequences_", "contributions_", "reads_", "chunks_")


def launched_kernels(case: Case) -> list[str]:
    """Return the names of the kernels that are launched for a case."""
    is_sequential = options.is_sequential(*case[:3])
    other = ("contributions_", "states_", "reads_", "division_", "chunks_")
    left_out = other if is_sequential else "sequences_"
    return [name for name in launch.load_kernels() if not name.startswith(left_out)]


def compile_kernel(name: str, case: Case, capability: int, flag: bool) -> int:
    """Compile a kernel, with all of its branches or none; return its shared memory in bytes."""
    function = launch.load_kernels()[name]
    names = [parameter.name for parameter in function.params]
    _, K, V, dtype = case
    chosen = options.chunk_options(
        torch.empty(case.sequences, 1, 0, V, dtype=dtype, device="meta"), K, _LENGTH
    )
    values: dict[str, Any] = {
        **{"K": K, "V": V, "K_SCALE": 0.25, "TINY": 1e-19, "EPS": 1e-5, "DTYPE": tl.float32},
        **{"GATED": flag, "MASKED": flag, "FROM_STATE": flag},
        **{"BE": options.STATE_ELEMENTS, "BK": options.row_side(K), "BV": options.row_side(V)},
        **options.norm_options(4 * K),
    }
    compiler_options = {}
    if name.startswith(_OF_CHUNKS):
        compiler_options = {key: chosen.pop(key) for key in ("num_warps", "num_stages")}
        values |= chosen
    else:
        values["BT"] = options.DIVISION_STEPS if name == "division_bwd" else options.GATE_STEPS
    constants = {key: value for key, value in values.items() if key in names}

    def kind(key: str) -> Any:
        if key in constants:
            return "constexpr"
        if key.endswith("strides"):
            return ("i32",) * (2 if "padding" in names or "grad_log_i" in names else 3)
        if key in ("N", "NH", "T", "H", "W", "rows", "padding_stride"):
            return "i32"
        if key in ("weights", "biases"):
            return ("*fp32",) * 4
        if key == "padding":
            return "*i1"
        return "*bf16" if key in _READ_AS_THEY_ARE and dtype == torch.bfloat16 else "*fp32"

    source = ASTSource(
        fn=function,
        signature={key: kind(key) for key in names},
        constexprs={(names.index(key),): value for key, value in constants.items()},
        attrs={},
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=compiler_options).metadata.shared


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for case in CASES:
            for name in launched_kernels(case):
                for flag in (True, False):
                    shared = compile_kernel(name, case, capability, flag)
                    print(capability, *case, name, flag, shared, flush=True)
