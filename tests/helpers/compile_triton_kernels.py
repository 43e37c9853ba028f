"""Compile the Triton kernels to machine code, for GPUs that need not be there.

    python tests/helpers/compile_triton_kernels.py 80 90      # compute capabilities

It prints the shared memory of each kernel in bytes. Triton must not be in interpreter mode.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import launch, options

#: Sizes of heads, dtype of q, k and v, and how products are rounded.
CASES = (
    *((16, 16, "fp32", "tf32x3"), (24, 40, "bf16", "tf32"), (64, 64, "fp32", "tf32x3")),
    *((128, 128, "fp32", "tf32x3"), (256, 256, "fp32", "tf32x3")),
)
READ_AS_THEY_ARE = {"q", "k", "v", "grad_q", "grad_k", "grad_v"}


def compile_kernel(name: str, capability: int, K: int, V: int, dtype: str, precision: str) -> int:
    """Compile a kernel, and return its shared memory in bytes."""
    function = launch.load_kernels()[name]
    names = [parameter.name for parameter in function.params]
    is_large = max(K, V) > 32
    values = {
        **{"K": K, "V": V, "K_SCALE": 0.25, "TINY": 1e-19, "GATED": True, "MASKED": True},
        **{"FROM_STATE": True, "EPS": 1e-5, "BR": 16, "BW": 128, "BE": 512},
        **{"BT": 32 if is_large else 64, "BK": options.block_side(K), "BV": options.block_side(V)},
        **{"DTYPE": tl.float32, "PRECISION": precision},
    }
    if name in ("states_fwd", "states_bwd"):
        values["BK"] = options.row_side(K)
    if name == "division_bwd":
        values |= {"BT": options.DIVISION_STEPS, "BV": options.row_side(V)}
    constants = {name: value for name, value in values.items() if name in names}

    def kind(name: str) -> Any:
        if name in constants:
            return "constexpr"
        if name.endswith("strides"):
            return ("i32",) * (2 if "padding" in names or "grad_log_i" in names else 3)
        if name in ("N", "NH", "T", "H", "W", "rows", "padding_stride"):
            return "i32"
        if name in ("weights", "biases"):
            return ("*fp32",) * 4
        return "*i1" if name == "padding" else f"*{dtype if name in READ_AS_THEY_ARE else 'fp32'}"

    source = ASTSource(
        fn=function,
        signature={name: kind(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={},
    )
    warps = 8 if is_large else 4
    return triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": 2},
    ).metadata.shared


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for case in CASES:
            for name in launch.load_kernels():
                if name.startswith("sequences") and max(case[:2]) > options._MAX_SIDE:
                    continue  # one block must cover a head
                shared = compile_kernel(name, capability, *case)
                print(capability, *case, name, shared, flush=True)
