"""Whether layers use the kernel: only if asked, and only what it was built for."""

from functools import cache

import torch
from torch import Tensor

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._checks import check_flag
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._gated import plain_gated
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._gated import GatedKernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel._interface import HEAD_SIZES

__all__ = ["kernel_suits", "use_kernel"]

_state = {"enabled": False}


def use_kernel(enabled: bool = True) -> None:
    """Let every :class:`mLSTMLayer` of this process compute its recurrence in C++ on the CPU.

    The kernel is compiled for this processor when it is first asked for, which takes some seconds,
    and kept in the user's cache (``$XDG_CACHE_HOME``, or ``~/.cache``). It is compared with the
    form in PyTorch before it is used. Layers compute the same numbers, to rounding, in about half
    the time, and keep less memory for the backward pass.

    It is used for float32 and float64 on the CPU and heads of 8, 16, 24, 32, 48 or 64 units
    (``hidden_size / num_heads``). Everything else is computed in PyTorch, as without it: other
    heads, accelerators, ``torch.compile``, ``torch.func``, second derivatives, and the functions of
    the mLSTM by themselves.

    Parameters
    ----------
    enabled : bool, default True
        Whether it is to be used from now on.

    Raises
    ------
    TypeError
        If ``enabled`` is not a bool.
    RuntimeError
        If there is no C++ compiler (GCC or Clang, on Linux or macOS), it fails, or what it makes
        computes something else than PyTorch.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import use_kernel
    >>> use_kernel()  # doctest: +SKIP
    >>> use_kernel(False)  # back to PyTorch
    """
    check_flag("use_kernel", "enabled", enabled)
    if enabled:
        _try()
    _state["enabled"] = enabled


def kernel_suits(p: Tensor, head_dim: int) -> bool:
    """Whether these pre-activations are for the kernel."""
    return (
        _state["enabled"]
        and p.device.type == "cpu"
        and p.dtype in (torch.float32, torch.float64)
        and head_dim in HEAD_SIZES
        and type(p) is Tensor
    )


@cache
def _try() -> None:
    """Compile the kernel, and raise unless it computes what plain operations do, and gradients."""
    generator = torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        p, c, n = (
            torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True)
            for shape in ((2, 5, 4 * 16 + 4), (2, 2, 8, 8), (2, 2, 8))
        )
        found = _with_gradient(GatedKernel.apply(p, c, n, None)[0], p)
        expected = _with_gradient(plain_gated(p, c, n, torch.zeros_like(n[..., 0]), None)[0], p)
        if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
            raise RuntimeError(
                "use_kernel: what was compiled does not compute what PyTorch does, and is not "
                "used. Another compiler can be named in CXX."
            )


def _with_gradient(h: Tensor, p: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(h.square().sum(), p)
    return torch.cat([h.detach(), grad], dim=-1)
